"""The contracts of augmenters and learners; `methods.run` holds what a run gives them."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from methods.run import Arrays as Arrays
from methods.run import Budget as Budget
from methods.run import Checkpoint as Checkpoint
from methods.run import DiffusionBudget as DiffusionBudget
from methods.run import EpisodeBudget as EpisodeBudget
from methods.run import Run as Run
from methods.run import TransitionBudget as TransitionBudget
from tasks.common.errors import UsageError
from tasks.common.selector import Scalar
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import SegmentBatch
from tasks.spec import TaskSpec

ConfigT = TypeVar("ConfigT")


class UnsupportedError(UsageError):
    """A method is undefined on these data; the message says why. A cell that ends so is `unsupported`."""


def require(condition: bool, owner: str, given: str, expected: str) -> None:
    """Checks a value of a config.

    Raises:
        UsageError: unless `condition` holds.
    """
    if not condition:
        raise UsageError(f"{owner}: {given}, expected {expected}.")


def added(default: Any) -> Any:
    """A config field that came after results were published, whose default is what the method did before.

    At its default it is no part of the method's identity, so that those results stay valid.
    """
    return field(default=default, metadata={_ADDED: True})


_ADDED = "added"


def identity_of(config: Any) -> dict[str, Any]:
    """The fields of a config that determine what its method does: all but added ones at their defaults."""
    return {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if not (f.metadata.get(_ADDED) and getattr(config, f.name) == f.default)
    }


class Configurable(Generic[ConfigT]):
    """Something built from a frozen config whose defaults are the paper's values."""

    Config: ClassVar[type[Any]]
    version: ClassVar[int]

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config: ConfigT = self.Config() if config is None else config

    @classmethod
    def from_params(cls, params: Mapping[str, Scalar]) -> Self:
        """Builds the method with some fields of its config overridden.

        Raises:
            UsageError: for a field that does not exist or a value of another type.
        """
        return cls(make_config(cls.Config, params, cls.__name__))

    @classmethod
    def version_on(cls, spec: TaskSpec) -> int:
        """The version of what runs on this task."""
        return cls.version

    @classmethod
    def tiny(cls, params: Mapping[str, Scalar] | None = None) -> Self:
        """The same code path at a size that takes seconds on a CPU; contract tests use it."""
        return cls.from_params(params or {})


class Augmenter(Configurable[ConfigT], ABC):
    """Turns offline data into more offline data.

    Attributes:
        version: raise it when behaviour changes; it is part of the cache key.
        privileged: whether it may see the `behaviour` column.
        needs_extra_data: whether `run.extra_data` (more real episodes) is needed; for the oracle control only.
        trains: whether `fit` learns something worth caching; then `state` and `load_state` must be implemented.
        compute: which of the budgets its models have, one of `methods.run.COMPUTES`, if it trains any.
        adds_data: False for the control that returns no episodes whatever the amount.
        random: whether another seed gives other episodes.
        generation_fields: config fields that `fit` never reads. Variants that differ in these alone share one
            fitted model.
        credit_functions: names of all the credit functions that `credit` knows, where there are several.
    """

    privileged: ClassVar[bool] = False
    needs_extra_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    compute: ClassVar[str] = "diffusion"
    adds_data: ClassVar[bool] = True
    random: ClassVar[bool] = True
    generation_fields: ClassVar[frozenset[str]] = frozenset()
    credit_functions: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """Why this augmenter is undefined on a task, or None. Becomes the skip reason of a plan."""
        return None

    @property
    def returns_transitions(self) -> bool:
        """Whether all that `generate` returns are independent transitions, episodes of one step."""
        return False

    @abstractmethod
    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Learns from the data. Called again, it starts afresh. Must not change `data`."""

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """Fits R members of one config on the same data, member r from `run.seeds[r]` alone.

        R together equal R single fits, up to float error. Fitting one after another is the default; a method whose
        networks can be stacked does better. `run.checkpoint` is used only by those that do.
        """
        for member, seed in zip(members, run.seeds, strict=True):
            member.fit(data, replace(run, seeds=(seed,), checkpoint=None))

    @abstractmethod
    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Synthetic episodes only, of `run.budget.amount` transitions; mixing with `data` is the protocol's.

        Episodes are whole, so the amount may be passed by less than one episode. Amount 0 and data without episodes
        give a dataset without episodes. Privileged columns are not returned.

        Raises:
            UnsupportedError: where these data leave the method undefined.
        """

    def state(self) -> Arrays:
        """What `fit` learned, as arrays."""
        return {}

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        """Takes what `state` returned, in place of a `fit`."""

    def diagnosis(self) -> Mapping[str, Any]:
        """What the last `fit` tells, and after it the last `generate`, as values that JSON knows.

        For the card of the artefact, e.g. `heldout_denoising_loss`, `acceptance_rate`, `seconds`; ranks nothing.
        """
        return {}

    def credit(
        self, data: OfflineDataset, windows: SegmentBatch, function: str | None = None
    ) -> NDArray[np.float32] | None:
        """How much each agent contributes in each window, (B, N), larger is more; None: the method knows no credit.

        `function` is one of `credit_functions`; None: the one that the config chooses.
        """
        return None

    def reconstruction_errors(self, windows: SegmentBatch) -> NDArray[np.float32] | None:
        """How badly the method's generative model of the original data rebuilds each window, (B,); for DIRE alone.

        The mean absolute difference of normalised observations between a window and what the deterministic process,
        run from it to noise and back, makes of it (MASTARS, Sec. 4.7). None: the method has no such model.
        """
        return None

    def attention(self, data: OfflineDataset, steps: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """How much each agent attends to each other one in these transitions of the data, (M, N, N).

        Row i is what agent i gives the N agents, itself included, 0 or more and 1 in all. For analysis alone. None:
        the method has no model in which agents attend to each other.
        """
        return None


class LearnedPolicy(ABC):
    """R trained policies of one learner, acting together.

    Memoryless policies ignore `memory`; recurrent ones pass it on from call to call.
    """

    replicas: int

    @abstractmethod
    def act(
        self, observations: NDArray[np.float32], available_actions: NDArray[np.bool_] | None, memory: Any = None
    ) -> tuple[NDArray[np.float32] | NDArray[np.int64], Any]:
        """Greedy joint actions of R policies in B environments each, and their memory for the next step.

        Args:
            observations: (R, B, N, D).
            available_actions: (R, B, N, A) for discrete tasks, else None.
            memory: None at the first step of an episode, then what the last call returned.

        Returns:
            actions (R, B, N, A) float32 or (R, B, N) int64, and the new memory.
        """

    @abstractmethod
    def state(self, replica: int) -> Arrays:
        """The arrays of one policy, enough for `Learner.load_policy`."""

    def diverged(self, replica: int) -> bool:
        """Whether a parameter of this policy is not finite. Its actions then mean nothing: do not evaluate it."""
        arrays = self.state(replica).values()
        return not all(np.isfinite(array).all() for array in arrays if np.issubdtype(array.dtype, np.floating))

    def diagnosis(self, replica: int) -> Mapping[str, float | None]:
        """What training tells about one policy, e.g. `final_loss`; None where a number is not finite."""
        return {}


class Learner(Configurable[ConfigT], ABC):
    """Learns policies from offline data, R seeds at a time."""

    privileged: ClassVar[bool] = False

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """Why this learner is undefined on a task, or None. Becomes the skip reason of a plan."""
        return None

    def needs_episodes(self, spec: TaskSpec) -> str | None:
        """Why it cannot learn from independent transitions alone, and what can, or None.

        Becomes the skip reason of a plan where an augmenter's transitions replace the data.
        """
        return None

    @abstractmethod
    def fit(self, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        """Trains one policy a dataset, `run.seeds` beside them, all in one program.

        A replica that diverges does not disturb the others; its parameters are then not finite and stay so.

        Raises:
            UnsupportedError: where these data leave the learner undefined.
            TimeoutError: after `run.deadline`.
        """

    @abstractmethod
    def load_policy(self, states: Sequence[Arrays], spec: TaskSpec, device: str) -> LearnedPolicy:
        """The policies whose arrays `LearnedPolicy.state` returned, acting together."""


def make_config(config_class: type[ConfigT], params: Mapping[str, Scalar], owner: str) -> ConfigT:
    """A frozen config with some fields overridden.

    Raises:
        UsageError: for an unknown field (with the known ones) or a value whose type does not fit the default's.
    """
    known = {f.name: f for f in fields(config_class)}  # type: ignore[arg-type]  # configs are dataclasses
    for name, value in params.items():
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise UsageError(f"{owner} has no parameter {name!r}.{hint} It has: {', '.join(known) or 'none'}.")
        default = known[name].default
        numeric = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if default is not None and not numeric and type(value) is not type(default):
            raise UsageError(
                f"{owner}: parameter {name}={value!r} is a {type(value).__name__}, expected "
                f"{type(default).__name__} (default {default!r})."
            )
    return config_class(**params)
