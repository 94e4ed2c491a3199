"""What a run gives a method: seeds, a device, a budget, a place for checkpoints.

A method receives offline data, a seeded generator, a device and a budget; never an environment or an evaluation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset

if TYPE_CHECKING:
    from methods.base import LearnedPolicy

Arrays = Mapping[str, NDArray[Any]]


def _ignore_progress(done: int, total: int, message: str) -> None:
    """Nobody watches."""


def _ignore_snapshot(updates: int, policy: LearnedPolicy) -> None:
    """Nobody keeps a curve."""


class Checkpoint(Protocol):
    """Where a long fit or generation keeps what it needs to go on after a kill; the harness owns the place."""

    def load(self) -> Arrays | None:
        """What `save` last stored for the same fit, or None."""

    def due(self) -> bool:
        """Whether enough time has passed since the last `save`; asking costs nothing."""

    def save(self, arrays: Arrays) -> None:
        """Stores a state, whole or not at all: weights, optimiser, generators. A fit that loads it must end as if
        it had never stopped.
        """


_OF_GENERATION = ("sampler", "sampling_steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeBudget:
    """What a protocol allows all models of a kind; None: the method's own, as its paper has it."""

    def given(self, *, of_fit: bool = False) -> dict[str, int | float | str]:
        """The fields that are not the method's own; `of_fit`: without those that generation alone reads."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if v is not None and not (of_fit and k in _OF_GENERATION)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionBudget(ComputeBudget):
    """Of a model that diffuses windows of a few steps.

    Attributes:
        width: channels of the denoiser's first level.
        prediction: `noise`, as the papers have it, or `velocity`. first_skip: whether the first level's
            output reaches the last block. Neither is a paper's; both make a short training useful (docs/diffusion.md).
        updates, batch_size, learning_rate: of the denoiser.
        ema_every: updates between two steps of the averaged weights.
        head_updates: of each auxiliary network.
        sampler: `ddpm`, `ddim` or `dpmpp_2m`. sampling_steps: its steps; None: as many as in training.
    """

    width: int | None = None
    prediction: str | None = None
    first_skip: bool | None = None
    updates: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    ema_every: int | None = None
    head_updates: int | None = None
    sampler: str | None = None
    sampling_steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeBudget(ComputeBudget):
    """Of a model that diffuses whole episodes.

    Attributes:
        prediction: `data`, as EAQ has it, or `velocity`. The others as `DiffusionBudget` has them.
    """

    width: int | None = None
    prediction: str | None = None
    updates: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    ema_every: int | None = None
    head_updates: int | None = None
    sampler: str | None = None
    sampling_steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionBudget(ComputeBudget):
    """Of models of single transitions: diffusion (EDM), autoencoders, dynamics, values of states.

    Attributes:
        width: of hidden layers.
        updates, batch_size, learning_rate: of each network.
        sampler: `edm_heun` or `edm_heun_det`. sampling_steps: its steps.
    """

    width: int | None = None
    updates: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    sampler: str | None = None
    sampling_steps: int | None = None


COMPUTES = ("diffusion", "episode", "transition")
"""The budgets of models that a protocol has, by name: `Augmenter.compute` names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a protocol allows a method.

    Attributes:
        amount: transitions that `generate` returns, at least (whole episodes are kept whole, so the last one may
            pass it); None: the method's own amount, as its paper has it.
        updates: gradient updates of a learner; None: the learner's own number.
        batch_size: transitions (memoryless) or episodes (recurrent) an update; None: the learner's own.
        snapshots: evenly spaced points of the learning curve, the final policy included.
        diffusion: of an augmenter that diffuses windows of a few steps.
        episode: of one that diffuses whole episodes.
        transition: of an augmenter whose models are of single transitions.
    """

    amount: int | None = None
    updates: int | None = None
    batch_size: int | None = None
    snapshots: int = 1
    diffusion: DiffusionBudget = field(default_factory=DiffusionBudget)
    episode: EpisodeBudget = field(default_factory=EpisodeBudget)
    transition: TransitionBudget = field(default_factory=TransitionBudget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a method may use.

    Attributes:
        seeds: one an entry of the data of a learner; one a member that `Augmenter.fit_together` fits; a single one
            for `fit` and `generate` of an augmenter. Everything random in replica r derives from seeds[r] alone,
            so R together equal R single runs.
        device: a torch device string, chosen by the harness.
        progress: called with (done, total, message).
        snapshot: learners call it with (updates so far, policy) at the budget's points of the learning curve;
            the harness evaluates what it receives later, on its own.
        deadline: `time.monotonic()` at which the harness will stop the run; None: no limit.
        original: the data before augmentation (learners only): statistics of inputs come from it, so that the
            scores of augmenters stay comparable; None: the data passed to `fit` is the original.
        extra_data: more real episodes, for the control that is told to look (`needs_extra_data`), else None.
        original_episodes: one an entry of the data: how many of its first episodes are the original ones, the rest
            being synthetic (learners only, for diagnosis); None: unknown.
        checkpoint: where a long fit or generation may keep its state, to go on after a kill; None: nowhere.
        folder: where a generation may keep what is too large for the checkpoint, and lasts as long; None: nowhere.
    """

    seeds: tuple[int, ...]
    device: str = "cpu"
    budget: Budget = field(default_factory=Budget)
    progress: Callable[[int, int, str], None] = _ignore_progress
    snapshot: Callable[[int, LearnedPolicy], None] = _ignore_snapshot
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("methods"))
    deadline: float | None = None
    original: OfflineDataset | None = None
    extra_data: OfflineDataset | None = None
    original_episodes: tuple[int, ...] | None = None
    checkpoint: Checkpoint | None = None
    folder: Path | None = None

    def generator(self, purpose: str, replica: int = 0) -> np.random.Generator:
        """A fresh generator for one purpose of one replica; the same arguments give the same stream."""
        return make_generator(purpose, self.seeds[replica])

    def report(self, done: int, total: int, message: str) -> None:
        """Tells how far a method is, and stops it once its time is over. Call it at least every few seconds.

        Raises:
            TimeoutError: after the deadline.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError(f"Time limit reached after {done} of {total} steps ({message}).")
        self.progress(done, total, message)
