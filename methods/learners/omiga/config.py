"""What OMIGA can be told, and where its defaults come from."""

from __future__ import annotations

from dataclasses import dataclass

from methods.algorithms.reward_units import require_reward_scale
from methods.base import require
from methods.objectives.densities import DENSITIES
from tasks.spec import TaskSpec

TRANSITIONS = 128  # a batch without memory; OMIGA's repository, both branches
EPISODES = 32  # a batch with memory; OffPyMARL, default.yaml (offline_batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class OMIGAConfig:
    """Values of OMIGA's repository, which has multi-agent MuJoCo and, on another branch, SMAC.

    OffPyMARL's form, which MADiTS used, has a memory, `max_grad_norm` 10 and `mixer_relu` false.
    """

    memory: str = "none"  # perceptrons on transitions, OMIGA's repository; "gru": on whole episodes, OffPyMARL
    alpha: float = 10.0  # temperature; OMIGA's repository, both branches
    hidden: int = 256  # of two layers in Q, V and a policy without memory; the same
    gru_hidden: int = 128  # of a policy with memory; OffPyMARL, omiga.yaml
    mixer_hidden: int = 64  # OMIGA's repository, both branches
    mixer_relu: bool = True  # behind the mixer's first layer; the same; OffPyMARL has none
    learning_rate: float = 5e-4  # of three Adams; the same
    density: str | None = None  # "squashed", the same; "centred", ICQ's; None: centred on particles (inferred)
    discount: float = 0.99  # the same
    polyak: float = 0.005  # ρ of target Q, V and mixer; the same
    max_grad_norm: float = 1.0  # of each replica's Q with mixer, V, policy; the same; OffPyMARL: 10. 0: no clipping
    batch_size: int | None = None  # None: `TRANSITIONS`, or with memory `EPISODES`; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)
    normalise: bool | None = None  # z-score of observations by the original data; None: of continuous tasks (inferred)

    def __post_init__(self) -> None:
        require_reward_scale("omiga", self.reward_scale)
        require(self.memory in ("none", "gru"), "omiga", f"memory={self.memory}", "none or gru")
        for name in ("hidden", "gru_hidden", "mixer_hidden", "batch_size", "updates"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            optional = value is None and name == "batch_size"
            require(optional or whole, "omiga", f"{name}={value}", "a whole number, 1 or more")
        for name in ("alpha", "learning_rate"):
            value = getattr(self, name)
            require(0 < value < float("inf"), "omiga", f"{name}={value}", "a finite number above 0")
        require(0 <= self.discount <= 1, "omiga", f"discount={self.discount}", "a number in [0, 1]")
        require(0 < self.polyak <= 1, "omiga", f"polyak={self.polyak}", "a number in (0, 1]")
        require(self.max_grad_norm >= 0, "omiga", f"max_grad_norm={self.max_grad_norm}", "0 or more")
        require(isinstance(self.mixer_relu, bool), "omiga", f"mixer_relu={self.mixer_relu}", "true or false")
        require(self.density in (None, *DENSITIES), "omiga", f"density={self.density}", "squashed or centred")
        require(self.normalise in (None, True, False), "omiga", f"normalise={self.normalise}", "true or false")

    def density_of(self, spec: TaskSpec) -> str:
        """The density of continuous policies; None: the centred one on particles.

        Their recorded noise is cut at the bounds, where a squashed density has its poles.
        """
        return self.density or ("centred" if spec.family == "mpe" else "squashed")
