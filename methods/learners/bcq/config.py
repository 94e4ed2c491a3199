"""The settings of `bcq`, those of both forms."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from methods.algorithms.reward_units import require_reward_scale
from methods.base import require
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The fields of `BCQConfig` that differ by kind of actions, all decided."""

    hidden: int
    second_hidden: int
    vae_hidden: int
    learning_rate: float
    batch_size: int
    normalise: bool


LOCOMOTION = Sizes(
    hidden=400,  # first layer of critics and perturbation; BCQ's repository
    second_hidden=300,  # their second layer; the same
    vae_hidden=750,  # of two layers in encoder and decoder; the same
    learning_rate=1e-3,  # of three Adams; the same
    batch_size=100,  # transitions; the same
    normalise=True,  # z-score by the original data (inferred); BCQ's repository: none
)
PARTICLES = replace(
    LOCOMOTION,
    hidden=64,  # inferred: the width of OMAR's baselines in MPE (App. B.1)
    second_hidden=64,  # the same
    vae_hidden=128,  # inferred: about as much wider than the critics as in BCQ's repository
)
DISCRETE = Sizes(
    hidden=64,  # of both layers before the last, values and behaviour; OG-MARL, iql_bcq.yaml
    second_hidden=64,  # the same
    vae_hidden=0,  # there is none
    learning_rate=3e-4,  # of two Adams; the same
    batch_size=32,  # episodes (inferred); OG-MARL: 32 windows of 20 steps
    normalise=False,  # OG-MARL has none
)
DISCRETE_TRANSITIONS = 640  # batch of memory=none: as many steps as OG-MARL's (inferred)


@dataclass(frozen=True, slots=True, kw_only=True)
class BCQConfig:
    """None: as `LOCOMOTION` (mamujoco), `PARTICLES` or `DISCRETE` say."""

    hidden: int | None = None  # width of the networks
    second_hidden: int | None = None  # continuous: second layer of critics and perturbation
    vae_hidden: int | None = None  # continuous: of two layers in encoder and decoder
    learning_rate: float | None = None  # of Adam, otherwise with torch's defaults
    polyak: float = 0.005  # continuous: ρ of target critics and target perturbation; BCQ's repository
    discount: float = 0.99  # BCQ's repository; OG-MARL, iql_bcq.yaml
    perturbation: float = 0.05  # continuous: Φ, for actions in [−1, 1]; BCQ's repository
    minimum_share: float = 0.75  # continuous: λ of the smaller twin in targets; the same
    target_samples: int = 10  # continuous: actions decoded for each next observation; the same
    proposals: int = 100  # continuous: actions decoded to choose from in acting; the same
    memory: str = "gru"  # discrete: on episodes, OG-MARL; "none": a ReLU layer in its place, on transitions (inferred)
    threshold: float = 0.4  # discrete: ζ, least p(a) / max p of a likely action; OG-MARL, iql_bcq.yaml; BCQ: 0.3
    target_every: int = 200  # discrete: updates between two copies into the target; OG-MARL, iql_bcq.yaml
    filter_at_eval: bool = True  # discrete: acts on likely actions alone, BCQ's repository; false: OG-MARL
    max_grad_norm: float = 0.0  # of each optimiser's networks, of one agent if continuous; both sources: no clipping
    batch_size: int | None = None  # transitions, or episodes with memory; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; OG-MARL, iql_bcq.yaml; unless the protocol sets it
    normalise: bool | None = None  # z-score of observations by the original data
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)

    def __post_init__(self) -> None:
        require_reward_scale("bcq", self.reward_scale)
        optional = ("hidden", "second_hidden", "vae_hidden", "batch_size")
        counts = ("target_samples", "proposals", "target_every", "updates")
        for name in optional + counts:
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            given = value is not None or name not in optional
            require(whole or not given, "bcq", f"{name}={value}", "a whole number, 1 or more")
        rate = self.learning_rate
        good = rate is None or (isinstance(rate, int | float) and 0 < rate < float("inf"))
        require(good, "bcq", f"learning_rate={rate}", "a finite number above 0")
        require(0 < self.polyak <= 1, "bcq", f"polyak={self.polyak}", "a number in (0, 1]")
        for name in ("discount", "perturbation", "minimum_share", "threshold"):
            require(0 <= getattr(self, name) <= 1, "bcq", f"{name}={getattr(self, name)}", "a number in [0, 1]")
        require(self.max_grad_norm >= 0, "bcq", f"max_grad_norm={self.max_grad_norm}", "0 or more")
        require(self.memory in ("gru", "none"), "bcq", f"memory={self.memory}", "gru or none")
        for name in ("filter_at_eval", "normalise"):
            value = getattr(self, name)
            left_open = value is None and name == "normalise"
            require(left_open or isinstance(value, bool), "bcq", f"{name}={value}", "true or false")

    def sizes(self, spec: TaskSpec) -> Sizes:
        """The fields that may be None, decided for one task."""
        continuous = LOCOMOTION if spec.family == "mamujoco" else PARTICLES
        preset = DISCRETE if spec.action.discrete else continuous
        if spec.action.discrete and self.memory == "none":
            preset = replace(preset, batch_size=DISCRETE_TRANSITIONS)
        own = {f.name: getattr(self, f.name) for f in fields(Sizes) if getattr(self, f.name) is not None}
        return replace(preset, **own)
