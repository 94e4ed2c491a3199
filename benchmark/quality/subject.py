"""What the metrics look at: two datasets of one task, and samples of them that the metrics share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from methods.base import Augmenter
from tasks.base import Task
from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import TransitionBatch, transitions
from tasks.scene import Scene
from tasks.spec import TaskSpec

Which = Literal["original", "synthetic"]

SAMPLED = 16_384
"""Transitions of each dataset that most metrics look at. INS (App. F) takes 200,000, which costs ten times as much;
here two samples of the same data come out 0.01 apart in KS distance."""


class UndefinedError(UsageError):
    """A metric means nothing for this task, method or data; the message says why."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One measurement's input.

    Attributes:
        original, synthetic: without privileged columns.
        augmenter: fitted, for what only the method itself can tell; None where it is not at hand.
        seed: of every sample drawn here.
    """

    original: OfflineDataset
    synthetic: OfflineDataset
    task: Task
    augmenter: Augmenter[Any] | None
    seed: int

    def data(self, which: Which) -> OfflineDataset:
        """One of the two."""
        return self.original if which == "original" else self.synthetic

    def generator(self, purpose: str) -> np.random.Generator:
        """A fresh generator for one purpose."""
        return make_generator("quality", purpose, self.seed)

    @cached_property
    def sampled(self) -> Mapping[Which, TransitionBatch]:
        """At most SAMPLED transitions of each dataset, drawn without replacement, in their order."""
        return {which: self._sample(which) for which in ("original", "synthetic")}

    @cached_property
    def halves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """At most SAMPLED steps of each half of the original episodes, dealt at random; None for a single episode.

        What one half has to the other is what unlimited real data would have.
        """
        data = self.original
        if data.n_episodes < 2:
            return None
        generator = self.generator("halves")
        in_first = np.zeros(data.n_episodes, dtype=np.bool_)
        in_first[generator.permutation(data.n_episodes)[: data.n_episodes // 2]] = True
        of_first = in_first[data.episode_of_step()]  # (S,)
        first, second = (some(np.flatnonzero(chosen), SAMPLED, generator) for chosen in (of_first, ~of_first))
        return first, second

    def scene(self, observations: NDArray[np.float32]) -> Scene:
        """Where everything is in joint observations (M, N, D). Raises UsageError where the task has no map."""
        return self.task.scene(observations)

    @cached_property
    def scenes(self) -> Mapping[Which, Scene]:
        """The scenes of the sampled transitions' observations. Raises UsageError where the task has no map."""
        return {which: self.scene(batch.observations) for which, batch in self.sampled.items()}

    def _sample(self, which: Which) -> TransitionBatch:
        data = self.data(which)
        return transitions(data).gather(some(np.arange(data.n_steps), SAMPLED, self.generator(f"{which} transitions")))


def some(numbers: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most `count` of the numbers, drawn without replacement, in increasing order."""
    if len(numbers) <= count:
        return numbers
    return np.sort(generator.choice(numbers, size=count, replace=False))


def encoded_actions(spec: TaskSpec, actions: NDArray[Any]) -> NDArray[np.float32]:
    """(M, N, A): continuous actions as they are, discrete ones as indicators."""
    if not spec.action.discrete:
        return np.asarray(actions, dtype=np.float32)
    return np.asarray(np.eye(spec.action.size, dtype=np.float32)[actions])
