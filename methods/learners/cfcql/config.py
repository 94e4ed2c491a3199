"""The settings of `cfcql`, for both kinds of actions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from methods.algorithms.reward_units import require_reward_scale
from methods.base import added, require
from methods.objectives.td3 import PENALISED
from tasks.spec import TaskSpec

WEIGHTS = ("uniform", "behaviour")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The fields of `CFCQLConfig` that differ by kind of task, all decided."""

    conservatism: float
    weights: str
    temperature: float
    hidden: int
    learning_rate: float
    polyak: float
    batch_size: int
    max_grad_norm: float
    normalise: bool
    behaviour_hidden: int
    behaviour_updates: int
    behaviour_batch_size: int
    behaviour_learning_rate: float


PARTICLES = Settings(
    conservatism=5.0,  # fixed for all data, as `omar` (inferred; CFCQL tunes it by task and data quality, 0.1 to 5)
    weights="uniform",  # CFCQL's repository
    temperature=-1.0,  # the same: a softmin with cf_tau=1
    hidden=64,  # the same; OMAR, App. B.1
    learning_rate=1e-3,  # the same; for its `simple_spread` alone 0.01
    polyak=0.01,  # the same; OMAR, App. B.1
    batch_size=1024,  # transitions; the same
    max_grad_norm=0.5,  # of one agent's actor, and of the critics; the same
    normalise=True,  # inferred (TD3+BC's repository); CFCQL: batch normalisation of all inputs
    behaviour_hidden=750,  # CFCQL's repository
    behaviour_updates=100_000,  # the same
    behaviour_batch_size=256,  # transitions; the same
    behaviour_learning_rate=1e-4,  # the same
)
LOCOMOTION = replace(
    PARTICLES,
    hidden=256,  # CFCQL's repository, HalfCheetah
    learning_rate=3e-4,  # the same
    polyak=0.005,  # the same
    batch_size=256,  # the same
)
CHOICES = Settings(
    conservatism=50.0,  # OffPyMARL, cfcql.yaml; CFCQL's repository by map and data: 0.1 to 50
    weights="behaviour",  # the same
    temperature=5.0,  # the same; CFCQL's repository by map and data: 0 to 1, or the largest alone
    hidden=64,  # of the agents; the same
    learning_rate=1e-3,  # the same
    polyak=1.0,  # targets are copies; the same
    batch_size=32,  # episodes; OffPyMARL, default.yaml. CFCQL's repository: 128
    max_grad_norm=10.0,  # of agents with mixer, and of the behaviour; the same
    normalise=False,  # OffPyMARL has none
    behaviour_hidden=64,  # OffPyMARL, cfcql.yaml; as `hidden`, where that is given
    behaviour_updates=20_000,  # the same, which makes one more
    behaviour_batch_size=32,  # episodes; OffPyMARL, default.yaml
    behaviour_learning_rate=1e-3,  # OffPyMARL, cfcql.yaml
)
TRANSITIONS = 640  # inferred: batch of memory=none, in line with other learners


@dataclass(frozen=True, slots=True, kw_only=True)
class CFCQLConfig:
    """None: as `CHOICES` (discrete actions), `LOCOMOTION` (mamujoco) or `PARTICLES` say."""

    conservatism: float | None = None  # α, weight of the penalties; 0: none
    weights: str | None = None  # w of the agents' penalties: "uniform", 1/N; "behaviour", by distance from the data
    # κ of weights=behaviour: above 0 agents far from the data count more, below 0 those near to it. A large one, 1e4
    # say, leaves the largest alone, for which CFCQL's discrete code has the number 100.
    temperature: float | None = None
    hidden: int | None = None  # of actors and critics, or of the agents' values
    learning_rate: float | None = None  # of Adam, otherwise with torch's defaults
    discount: float = 0.99  # OffPyMARL; OMAR, App. B.1, on whose code CFCQL's stands (0.95 in effect there)
    max_grad_norm: float | None = None  # L2 norm; 0: no clipping
    batch_size: int | None = None  # transitions, or episodes with memory=gru; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    normalise: bool | None = None  # z-score of observations by the original data
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)
    behaviour_hidden: int | None = None  # of the model of the data
    behaviour_updates: int | None = None  # of the model of the data, before `updates` begin
    behaviour_batch_size: int | None = None  # transitions, or episodes with memory=gru, whatever the protocol sets
    behaviour_learning_rate: float | None = None

    # Continuous actions alone; all but the first, `penalised` and `batch_norm` as in CFCQL's repository.
    polyak: float | None = None  # ρ, share of the new weights in the targets
    cql_samples: int = 10  # K of each agent
    target_noise: float = 0.05  # σ of the actions in targets
    ca_ratio: int = 5  # steps of the critic a step of the actors
    output_penalty: float = 1e-3  # on the mean square of what each actor gives
    penalised: str = added("outputs")  # before its tanh (MATD3's repository; inferred), or "actions" after it, CFCQL's
    batch_norm: bool = False  # critics see actions standardised within their batch; its repository: true
    behaviour_samples: int = 20  # L of the estimate of ln β

    # Discrete actions alone.
    memory: str = "gru"  # on whole episodes, OffPyMARL; "none": a ReLU layer in its place, on transitions (inferred)
    trace: float = 0.6  # λ of the targets; OffPyMARL, cfcql.yaml
    td_weight: float = 1.0  # c, weight of the TD error; OffPyMARL; CFCQL's repository: 0.5
    mixer_embed: int = 32  # OffPyMARL, cfcql.yaml
    mixer_hidden: int = 64  # of the hypernetworks; the same
    target_every: int = 200  # updates between two copies into the targets; the same

    def __post_init__(self) -> None:
        require_reward_scale("cfcql", self.reward_scale)
        for name in _WHOLE:
            value = getattr(self, name)
            least = 0 if name == "behaviour_updates" else 1
            right = value is None or (_number(value, least) and isinstance(value, int))
            require(right, "cfcql", f"{name}={value}", f"a whole number, {least} or more")
        for name in ("conservatism", "target_noise", "output_penalty", "td_weight", "max_grad_norm"):
            value = getattr(self, name)
            require(value is None or _number(value, 0), "cfcql", f"{name}={value}", "a finite number, 0 or more")
        for name in ("learning_rate", "behaviour_learning_rate"):
            value = getattr(self, name)
            right = value is None or (_number(value, 0) and value > 0)
            require(right, "cfcql", f"{name}={value}", "a finite number above 0")
        for name in ("discount", "trace"):
            value = getattr(self, name)
            require(_number(value, 0) and value <= 1, "cfcql", f"{name}={value}", "a number in [0, 1]")
        rate, given = self.polyak, f"temperature={self.temperature}"
        require(rate is None or (_number(rate, 0) and 0 < rate <= 1), "cfcql", f"polyak={rate}", "a number in (0, 1]")
        require(self.temperature is None or _number(self.temperature), "cfcql", given, "a finite number")
        require(self.penalised in PENALISED, "cfcql", f"penalised={self.penalised}", " or ".join(PENALISED))
        require(self.weights in (None, *WEIGHTS), "cfcql", f"weights={self.weights}", " or ".join(WEIGHTS))
        require(self.memory in ("gru", "none"), "cfcql", f"memory={self.memory}", "gru or none")
        normalise = self.normalise
        require(normalise is None or isinstance(normalise, bool), "cfcql", f"normalise={normalise}", "true or false")
        require(isinstance(self.batch_norm, bool), "cfcql", f"batch_norm={self.batch_norm}", "true or false")

    def settings(self, spec: TaskSpec) -> Settings:
        """All fields decided for one task."""
        preset = LOCOMOTION if spec.family == "mamujoco" else PARTICLES
        if spec.action.discrete:
            preset = CHOICES
            if self.memory == "none":
                preset = replace(preset, batch_size=TRANSITIONS, behaviour_batch_size=TRANSITIONS)
            if self.hidden is not None:
                preset = replace(preset, behaviour_hidden=self.hidden)
        given = {field.name: getattr(self, field.name) for field in fields(Settings)}
        return replace(preset, **{name: value for name, value in given.items() if value is not None})


_WHOLE = (
    "hidden",
    "batch_size",
    "updates",
    "behaviour_hidden",
    "behaviour_updates",
    "behaviour_batch_size",
    "cql_samples",
    "ca_ratio",
    "behaviour_samples",
    "mixer_embed",
    "mixer_hidden",
    "target_every",
)


def _number(value: object, least: float = -float("inf")) -> bool:
    """Whether it is a finite number, `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < float("inf") and value >= least
