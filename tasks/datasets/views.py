"""Batches of transitions, segments and episodes, by index arithmetic: a batch reads what it returns, no more.

The columns may be memory-mapped. Nothing of the length of the data is built: the episode of a step is found by
binary search in `episode_starts`, so a batch of B costs O(B log E) beside the values themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError
from tasks.datasets.offline import OfflineDataset

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionBatch:
    """B transitions (o, a, r, o'). Optional columns are None where the dataset lacks them."""

    observations: NDArray[np.float32]  # (B, N, D)
    actions: NDArray[np.float32] | NDArray[np.int64]  # (B, N, A) or (B, N)
    rewards: NDArray[np.float32]  # (B, N)
    next_observations: NDArray[np.float32]  # (B, N, D)
    terminals: NDArray[np.bool_]  # (B,)
    truncations: NDArray[np.bool_]  # (B,)
    available_actions: NDArray[np.bool_] | None  # (B, N, A)
    next_available_actions: NDArray[np.bool_] | None  # (B, N, A)
    states: NDArray[np.float32] | None  # (B, K)
    next_states: NDArray[np.float32] | None  # (B, K)
    alive: NDArray[np.bool_] | None  # (B, N)
    next_alive: NDArray[np.bool_] | None  # (B, N)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentBatch:
    """B windows of H observation rows; what lies beyond an episode's end is zero or False, and masked.

    The final row of an episode has an observation and no action, so `step_valid` is False one row before
    `row_valid` is.
    """

    observations: NDArray[np.float32]  # (B, H, N, D)
    actions: NDArray[np.float32] | NDArray[np.int64]  # (B, H, N, A) or (B, H, N)
    rewards: NDArray[np.float32]  # (B, H, N)
    terminals: NDArray[np.bool_]  # (B, H)
    truncations: NDArray[np.bool_]  # (B, H)
    row_valid: NDArray[np.bool_]  # (B, H), a prefix of True
    step_valid: NDArray[np.bool_]  # (B, H), a prefix of True
    episodes: Index  # (B,), where each window was cut
    offsets: Index  # (B,), its first step within the episode
    available_actions: NDArray[np.bool_] | None  # (B, H, N, A)
    states: NDArray[np.float32] | None  # (B, H, K)
    alive: NDArray[np.bool_] | None  # (B, H, N)


class Transitions:
    """The S transitions of a dataset, by their step number."""

    def __init__(self, data: OfflineDataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.n_steps

    def gather(self, steps: Index) -> TransitionBatch:
        """The transitions at these steps, (B,) numbers in 0..S-1. Raises DataError if one is out of range."""
        data = self._data
        _require_in_range("transition", steps, len(self))
        rows = row_of(data, steps)
        return TransitionBatch(
            observations=data.observations[rows],
            actions=data.actions[steps],
            rewards=data.rewards[steps],
            next_observations=data.observations[rows + 1],
            terminals=data.terminals[steps],
            truncations=data.truncations[steps],
            available_actions=_rows(data.available_actions, rows),
            next_available_actions=_rows(data.available_actions, rows + 1),
            states=_rows(data.states, rows),
            next_states=_rows(data.states, rows + 1),
            alive=_rows(data.alive, rows),
            next_alive=_rows(data.alive, rows + 1),
        )

    def sample(self, batch_size: int, generator: np.random.Generator) -> TransitionBatch:
        """A batch drawn uniformly, with replacement. Raises DataError if the dataset is empty."""
        if not len(self):
            raise DataError(f"{self._data.spec.id}: the dataset is empty, there is no transition to sample.")
        return self.gather(generator.integers(len(self), size=batch_size))


class Segments:
    """All windows of H observation rows.

    Args:
        horizon: H, at least 1.
        padded: False: windows lie inside their episode, T + 2 - H of them where that is positive. True: one
            window starts at every step, T of them, and may reach beyond the end of its episode.
    """

    def __init__(self, data: OfflineDataset, horizon: int, *, padded: bool = False) -> None:
        if horizon < 1:
            raise DataError(f"A segment of {horizon} rows is impossible. Ask for at least 1.")
        self._data, self.horizon = data, horizon
        counts = data.lengths if padded else np.maximum(data.lengths + 2 - horizon, 0)
        self._ends = np.cumsum(counts)  # (E,)
        self._starts = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def gather(self, windows: Index) -> SegmentBatch:
        """The windows with these numbers, (B,) in 0..len-1. Raises DataError if one is out of range."""
        _require_in_range("segment", windows, len(self))
        episodes = np.searchsorted(self._ends, windows, side="right")
        return gather_segments(self._data, episodes, windows - self._starts[episodes], self.horizon)

    def sample(self, batch_size: int, generator: np.random.Generator) -> SegmentBatch:
        """A batch drawn uniformly over windows, with replacement. Raises DataError if there is none."""
        if not len(self):
            longest = int(self._data.lengths.max(initial=0))
            raise DataError(
                f"{self._data.spec.id}: no episode has {self.horizon} observation rows; the longest has "
                f"{longest + 1}. Use a shorter horizon or padded segments."
            )
        return self.gather(generator.integers(len(self), size=batch_size))


def transitions(data: OfflineDataset) -> Transitions:
    """The transitions of a dataset, to gather or sample."""
    return Transitions(data)


def segments(data: OfflineDataset, horizon: int, *, padded: bool = False) -> Segments:
    """The windows of H observation rows of a dataset, to gather or sample."""
    return Segments(data, horizon, padded=padded)


def padded_episodes(data: OfflineDataset, episodes: Sequence[int] | Index) -> SegmentBatch:
    """Whole episodes (B, T_max + 1, ...), padded to the longest of them."""
    index = np.asarray(episodes, dtype=np.int64)
    _require_in_range("episode", index, data.n_episodes)
    horizon = int(data.lengths[index].max(initial=0)) + 1
    return gather_segments(data, index, np.zeros_like(index), horizon)


def gather_segments(data: OfflineDataset, episodes: Index, offsets: Index, horizon: int) -> SegmentBatch:
    """Windows of `horizon` rows from step `offsets` of `episodes`, both (B,)."""
    first_step = data.episode_starts[episodes] + offsets  # (B,)
    steps_left = data.episode_starts[episodes + 1] - first_step  # (B,)
    ahead = np.arange(horizon)
    row_valid = ahead <= steps_left[:, None]  # (B, H)
    step_valid = ahead < steps_left[:, None]  # (B, H)
    steps = first_step[:, None] + np.minimum(ahead, np.maximum(steps_left - 1, 0)[:, None])  # (B, H), in the episode
    steps = np.minimum(steps, data.n_steps - 1)  # a window at the very last row has no step of its own
    rows = (first_step + episodes)[:, None] + np.minimum(ahead, steps_left[:, None])  # (B, H)

    def padded(column: NDArray[Any] | None, index: Index, valid: NDArray[np.bool_]) -> Any:
        if column is None:
            return None
        gathered = column[index]
        gathered[~valid] = 0
        return gathered

    return SegmentBatch(
        observations=padded(data.observations, rows, row_valid),
        actions=padded(data.actions, steps, step_valid),
        rewards=padded(data.rewards, steps, step_valid),
        terminals=padded(data.terminals, steps, step_valid),
        truncations=padded(data.truncations, steps, step_valid),
        row_valid=row_valid,
        step_valid=step_valid,
        episodes=episodes,
        offsets=offsets,
        available_actions=padded(data.available_actions, rows, row_valid),
        states=padded(data.states, rows, row_valid),
        alive=padded(data.alive, rows, row_valid),
    )


def row_of(data: OfflineDataset, steps: Index) -> Index:
    """The row of each step's observation; its next observation is one row later."""
    episodes: Index = np.searchsorted(data.episode_starts, steps, side="right") - 1
    return steps + episodes


def _rows(column: NDArray[Any] | None, rows: Index) -> Any:
    return None if column is None else column[rows]


def _require_in_range(what: str, index: Index, size: int) -> None:
    bad = (index < 0) | (index >= size)
    if bad.any():
        raise DataError(f"There is no {what} {int(index[bad][0])}; the dataset has {size}, numbered from 0.")
