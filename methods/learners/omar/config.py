"""The settings of `omar` and `cql`, of both forms."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite

from methods.algorithms.independent_td3 import Sizes, decided
from methods.algorithms.reward_units import require_reward_scale
from methods.base import added, require
from methods.objectives.td3 import PENALISED
from tasks.spec import TaskSpec

SEARCHES = ("softmax", "elites")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Of the terms of the losses, decided. OMAR tunes both by task and data quality; data without such a label, and
    augmented ones, have no value there.
    """

    tau: float
    conservatism: float


CONTINUOUS = Weights(
    tau=0.7,  # fixed for all data (inferred; OMAR: 0.1 to 1)
    conservatism=5.0,  # fixed for all data, OG-MARL, omar.yaml; OMAR: 5 for medium and expert data, 0.5 or 1 for others
)
DISCRETE = Weights(
    tau=0.5,  # OffPyMARL, omar.yaml, and CFCQL's repository
    conservatism=5.0,  # the same
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The fields of `OMARConfig` that the discrete form shares with the continuous one, all decided."""

    hidden: int
    learning_rate: float
    batch_size: int
    max_grad_norm: float
    normalise: bool


CHOICES = Settings(
    hidden=64,  # OffPyMARL, default.yaml
    learning_rate=1e-3,  # OffPyMARL, omar.yaml
    batch_size=32,  # episodes; OffPyMARL, default.yaml (offline_batch_size); CFCQL's repository: 128
    max_grad_norm=10.0,  # OffPyMARL, default.yaml
    normalise=False,  # OffPyMARL has none
)
TRANSITIONS = 640  # inferred: batch of memory=none, as of other learners of discrete actions


@dataclass(frozen=True, slots=True, kw_only=True)
class OMARConfig:
    """None: by kind of actions, `CONTINUOUS` with the sizes of `independent_td3`, or `DISCRETE` with `CHOICES`.

    Continuous: MPE as in OMAR's repository; its HalfCheetah is
    `[search=elites,iterations=2,samples=20,policy_actions=true]`. Discrete: OffPyMARL's `omar`.
    """

    tau: float | None = None  # weight of the found actions in the actor's loss; 0: MA-CQL
    conservatism: float | None = None  # α_cql; 0: no penalty
    hidden: int | None = None  # of actors and critics; of discrete actors alone
    learning_rate: float | None = None  # of Adam, actor and critics
    batch_size: int | None = None  # transitions, or episodes with memory=gru; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    discount: float = 0.99  # OMAR, App. B.1, in effect 0.95 in its repository; OffPyMARL, default.yaml
    max_grad_norm: float | None = None  # of one agent's actor, and its critics; or of each replica's. 0: no clipping
    normalise: bool | None = None  # z-score of observations by the original data
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)

    polyak: float | None = None  # ρ, share of the new weights in the targets; continuous, see `independent_td3`
    cql_samples: int = 10  # K of the penalty; continuous; OMAR's repository
    policy_actions: bool = False  # the penalty also draws noisy actions of the policy; continuous; OMAR, HalfCheetah
    policy_noise: float = 0.2  # σ of those; continuous; OMAR's repository
    search: str = "softmax"  # or "elites", the cross-entropy method (OMAR, HalfCheetah); continuous
    iterations: int = 3  # J; continuous; OMAR's repository, MPE
    samples: int = 10  # K of the search; continuous; OMAR's repository, MPE
    elites: int = 5  # of search=elites; continuous; OMAR's repository, HalfCheetah
    search_sigma: float = 2.0  # σ of the first candidates; continuous; OMAR's repository
    output_penalty: float = 1e-3  # on the mean square of what actors give; continuous; OMAR's repository
    penalised: str = added("outputs")  # before the tanh (inferred; MATD3's repository), or "actions"; continuous
    # Critics see actions standardised within their batch; continuous; false: inferred, OMAR's repository standardises.
    batch_norm: bool = False

    memory: str = "gru"  # of discrete actors, on episodes, OffPyMARL; "none": perceptrons, on transitions (inferred)
    critic_hidden: int = 256  # of two layers in discrete critics; OffPyMARL's critic and CFCQL's
    trace: float = 0.6  # λ of the returns; discrete; OffPyMARL, default.yaml
    target_every: int = 25  # updates between two copies into the targets; discrete; in effect so in OffPyMARL
    exploration: float = 0.45  # ε of the policy gradient; discrete; OffPyMARL: 0.5 to 0.41 over 100,000 updates
    per_timestep_updates: bool = False  # discrete critics make a step of Adam a time step; true: both repositories

    def __post_init__(self) -> None:
        require_reward_scale("omar", self.reward_scale)
        for name in ("hidden", "batch_size", "updates", "cql_samples", "iterations", "samples", "elites"):
            self._require_count(name)
        for name in ("critic_hidden", "target_every"):
            self._require_count(name)
        for name in ("tau", "discount", "trace"):
            value = getattr(self, name)
            within = value is None or (_is_number(value) and 0 <= value <= 1)
            require(within, "omar", f"{name}={value}", "a number in [0, 1]")
        for name in ("conservatism", "output_penalty", "max_grad_norm"):
            value = getattr(self, name)
            good = value is None or (_is_number(value) and value >= 0)
            require(good, "omar", f"{name}={value}", "a finite number, 0 or more")
        for name in ("learning_rate", "policy_noise", "search_sigma"):
            value = getattr(self, name)
            good = value is None or (_is_number(value) and value > 0)
            require(good, "omar", f"{name}={value}", "a finite number above 0")
        given = f"exploration={self.exploration}"
        require(_is_number(self.exploration) and 0 <= self.exploration < 1, "omar", given, "a number in [0, 1)")
        polyak = self.polyak
        share = polyak is None or (_is_number(polyak) and 0 < polyak <= 1)
        require(share, "omar", f"polyak={polyak}", "a number in (0, 1]")
        for name in ("policy_actions", "batch_norm", "per_timestep_updates", "normalise"):
            value = getattr(self, name)
            optional = value is None and name == "normalise"
            require(optional or isinstance(value, bool), "omar", f"{name}={value}", "true or false")
        require(self.memory in ("gru", "none"), "omar", f"memory={self.memory}", "gru or none")
        require(self.penalised in PENALISED, "omar", f"penalised={self.penalised}", " or ".join(PENALISED))
        require(self.search in SEARCHES, "omar", f"search={self.search}", " or ".join(SEARCHES))
        if self.search == "elites":
            require(2 <= self.elites <= self.samples, "omar", f"elites={self.elites}", f"2 to {self.samples} (samples)")

    def _require_count(self, name: str) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        optional = value is None and name in ("hidden", "batch_size")
        require(optional or whole, "omar", f"{name}={value}", "a whole number, 1 or more")

    def weights(self, preset: Weights) -> Weights:
        """τ and α_cql, decided."""
        return Weights(
            tau=preset.tau if self.tau is None else self.tau,
            conservatism=preset.conservatism if self.conservatism is None else self.conservatism,
        )

    def sizes(self, spec: TaskSpec) -> Sizes:
        """Of the continuous form, decided for one task."""
        return decided(self, spec)

    def settings(self) -> Settings:
        """Of the discrete form, decided."""
        own = {field.name: getattr(self, field.name) for field in fields(Settings)}
        preset = CHOICES if self.memory == "gru" else replace(CHOICES, batch_size=TRANSITIONS)
        return replace(preset, **{name: value for name, value in own.items() if value is not None})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
