"""What MA-ICQ can be told, and where its defaults come from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from methods.algorithms.reward_units import require_reward_scale
from methods.base import added, require
from methods.objectives.densities import DENSITIES
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The fields of a config that differ by kind of task, all decided."""

    memory: str
    alpha: float
    hidden: int
    critic_hidden: int
    learning_rate: float
    critic_learning_rate: float
    polyak: float
    target_every: int
    batch_size: int


PARTICLES = Sizes(
    memory="none",  # ICQ's repository, single agents
    alpha=1.0,  # inferred, by measurement: 0.1 leaves a seventh of a batch in use (docs/learners.md)
    hidden=64,  # OMAR, App. B.1, whose MA-ICQ stands on the networks of its TD3
    critic_hidden=64,  # the same
    learning_rate=1e-3,  # inferred; ICQ's repository, single agents, for longer trainings: 3e-4
    critic_learning_rate=1e-3,  # the same
    polyak=0.005,  # ICQ's repository, single agents
    target_every=1,  # the same
    batch_size=1024,  # OMAR, App. B.1
)
LOCOMOTION = replace(
    PARTICLES,
    hidden=256,  # ICQ's repository, single agents, which have four layers in the policy
    critic_hidden=256,  # the same
    learning_rate=3e-4,  # the same
    critic_learning_rate=3e-4,  # the same
    batch_size=256,  # OMAR's repository, HalfCheetah
)
CHOICES = Sizes(
    memory="gru",  # ICQ's repository, SMAC
    alpha=0.1,  # the same
    hidden=64,  # the same
    critic_hidden=256,  # the same
    learning_rate=5e-4,  # the same, of RMSprop
    critic_learning_rate=1e-4,  # the same
    polyak=1.0,  # the same: targets are copies
    target_every=200,  # OG-MARL; ICQ's repository: 600 steps of a critic that takes one a time step
    batch_size=32,  # episodes; ICQ's repository, SMAC
)
SINGLE_CHOICES = replace(
    CHOICES,
    memory="none",
    batch_size=256,  # inferred
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ICQConfig:
    """None: as `CHOICES` or `SINGLE_CHOICES` (discrete actions with and without memory), `LOCOMOTION` (mamujoco) or
    `PARTICLES` say.
    """

    memory: str | None = None  # "gru": recurrent policies on whole episodes, discrete actions only; "none": transitions
    alpha: float | None = None  # temperature of the policy's weights
    beta: float = 1000.0  # temperature of the targets' weights; ICQ's repository, SMAC
    density: str = "centred"  # of continuous policies; ICQ's repository, single agents; "squashed": OMIGA's
    trace: float = 0.8  # λ of returns along episodes; ICQ's repository, SMAC, whose code has 0.75; none without memory
    hidden: int | None = None  # of two layers in the policy, or of its GRU and the layer before
    critic_hidden: int | None = None  # of two layers in the critic
    mixer_hidden: int = 32  # embedding of the mixer; ICQ's repository, SMAC
    learning_rate: float | None = None  # of the policy's Adam
    critic_learning_rate: float | None = None  # of the Adam of critic and mixer
    discount: float = 0.99  # ICQ's repository
    polyak: float | None = None  # ρ, share of the new weights in the targets
    target_every: int | None = None  # updates between two steps of the targets
    max_grad_norm: float = 10.0  # of each replica's policy, and of critic with mixer; OffPyMARL; ICQ: 20; 0: none
    batch_size: int | None = None  # transitions, or episodes with memory; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)
    normalise: bool | None = None  # z-score of observations by the original data; None: of continuous tasks (inferred)
    behaviour_updates: int | None = added(None)  # of the clone behind single transitions; None: as `updates` (inferred)

    def __post_init__(self) -> None:
        require_reward_scale("icq", self.reward_scale)
        require(self.memory in (None, "gru", "none"), "icq", f"memory={self.memory}", "gru or none")
        for name in (
            "hidden",
            "critic_hidden",
            "mixer_hidden",
            "target_every",
            "batch_size",
            "updates",
            "behaviour_updates",
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(value is None or whole, "icq", f"{name}={value}", "a whole number, 1 or more")
        for name in ("alpha", "beta", "learning_rate", "critic_learning_rate"):
            value = getattr(self, name)
            require(value is None or 0 < value < float("inf"), "icq", f"{name}={value}", "a finite number above 0")
        polyak = self.polyak
        require(polyak is None or 0 < polyak <= 1, "icq", f"polyak={polyak}", "a number in (0, 1]")
        for name in ("trace", "discount"):
            value = getattr(self, name)
            require(0 <= value <= 1, "icq", f"{name}={value}", "a number in [0, 1]")
        require(self.max_grad_norm >= 0, "icq", f"max_grad_norm={self.max_grad_norm}", "0 or more")
        require(self.density in DENSITIES, "icq", f"density={self.density}", "squashed or centred")
        require(self.normalise in (None, True, False), "icq", f"normalise={self.normalise}", "true or false")

    def sizes(self, spec: TaskSpec) -> Sizes:
        """All fields decided for one task."""
        if spec.action.discrete:
            preset = SINGLE_CHOICES if self.memory == "none" else CHOICES
        else:
            preset = LOCOMOTION if spec.family == "mamujoco" else PARTICLES
        own = {f.name: getattr(self, f.name) for f in fields(Sizes) if getattr(self, f.name) is not None}
        return replace(preset, **own)
