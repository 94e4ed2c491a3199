"""The settings of `td3bc`, those of both forms."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from methods.algorithms.independent_td3 import Sizes, decided
from methods.algorithms.reward_units import require_reward_scale
from methods.base import require
from tasks.spec import TaskSpec

CHOICES = Sizes(
    hidden=64,  # of both layers of the actor before the last; OffPyMARL, matd3_bc
    learning_rate=3e-4,  # of both Adams; OffPyMARL, matd3_bc.yaml
    polyak=0.005,  # the same
    batch_size=32,  # episodes; OffPyMARL, default.yaml (offline_batch_size)
    max_grad_norm=10.0,  # of a replica's actor, and of its critics; OffPyMARL, default.yaml
    normalise=False,  # OffPyMARL has none
)
CHOICES_TRANSITIONS = 640  # batch of memory=none, as `bc` has it (inferred)


@dataclass(frozen=True, slots=True, kw_only=True)
class TD3BCConfig:
    """None: as `CHOICES` says for discrete actions, `PARTICLES` or `LOCOMOTION` (mamujoco) for continuous ones."""

    alpha: float = 2.5  # of λ = α / mean |Q| (TD3+BC, Sec. 5.1; OffPyMARL, matd3_bc.yaml)
    form: str = "lambda"  # or "tau": τ cloning − (1 − τ) Q, without λ (MASTARS, App. D.2)
    tau: float = 0.7  # of the form "tau"; OMAR's of medium data
    memory: str = "gru"  # discrete: on episodes, OffPyMARL; "none": a ReLU layer in its place (inferred)
    critic_hidden: int = 128  # discrete: of two layers; OffPyMARL, matd3_bc. Continuous critics: as `hidden`
    hidden: int | None = None  # of the actor; continuous: of actor and critics, two layers
    learning_rate: float | None = None  # of Adam, actor and critics
    polyak: float | None = None  # ρ, share of the new weights in the targets
    batch_size: int | None = None  # transitions, or episodes with memory; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    discount: float = 0.99  # OMAR, App. B.1; OffPyMARL, default.yaml
    max_grad_norm: float | None = None  # 0: no clipping
    normalise: bool | None = None  # z-score of observations by the original data
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)

    def __post_init__(self) -> None:
        require_reward_scale("td3bc", self.reward_scale)
        require(self.alpha >= 0, "td3bc", f"alpha={self.alpha}", "0 or more")
        require(self.form in ("lambda", "tau"), "td3bc", f"form={self.form}", "lambda or tau")
        require(0 <= self.tau <= 1, "td3bc", f"tau={self.tau}", "a number in [0, 1]")
        require(self.memory in ("gru", "none"), "td3bc", f"memory={self.memory}", "gru or none")
        for name in ("critic_hidden", "hidden", "batch_size", "updates"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            given = value is not None or name in ("critic_hidden", "updates")
            require(whole or not given, "td3bc", f"{name}={value}", "a whole number, 1 or more")
        rate, polyak, norm = self.learning_rate, self.polyak, self.max_grad_norm
        good = rate is None or (_is_number(rate) and 0 < rate < float("inf"))
        require(good, "td3bc", f"learning_rate={rate}", "a finite number above 0")
        good = polyak is None or (_is_number(polyak) and 0 < polyak <= 1)
        require(good, "td3bc", f"polyak={polyak}", "a number in (0, 1]")
        require(norm is None or (_is_number(norm) and norm >= 0), "td3bc", f"max_grad_norm={norm}", "0 or more")
        require(0 <= self.discount <= 1, "td3bc", f"discount={self.discount}", "a number in [0, 1]")
        known = self.normalise is None or isinstance(self.normalise, bool)
        require(known, "td3bc", f"normalise={self.normalise}", "true or false")

    def sizes(self, spec: TaskSpec) -> Sizes:
        """The fields that may be None, decided for one task."""
        if not spec.action.discrete:
            return decided(self, spec)
        own = {field.name: getattr(self, field.name) for field in fields(Sizes)}
        if self.batch_size is None and self.memory == "none":
            own["batch_size"] = CHOICES_TRANSITIONS
        return replace(CHOICES, **{name: value for name, value in own.items() if value is not None})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
