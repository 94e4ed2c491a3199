"""Windows of H observation rows, gathered by index on a device; never materialised.

Window (e, s) is rows s .. s + H − 1 of episode e. Rows past the end repeat the last one, actions likewise, and rewards
are zero (replicate padding, MADiff's repository, datasets/sequence.py), so that a model learns that a finished episode
stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import UnsupportedError
from tasks.common.errors import DataError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

Index = NDArray[np.int64]


class WindowIndex:
    """All W windows of a dataset, episode by episode, ordered by start step.

    Args:
        data: the episodes.
        horizon: H, 2 or more.
        padded: True: one window starts at every step, T of an episode. False: T + 2 − H of them where that is
            positive, all inside the episode (MADiTS, Eq. 2).

    Attributes:
        episodes: (W,). starts: (W,) first step within the episode.
        first_step, first_row: (W,) the same as positions in the columns of the dataset.
        left: (W,) transitions from the start to the end of the episode, 1 or more; H − 1 of them or fewer are used.

    Raises:
        UnsupportedError: if there is no window.
    """

    def __init__(self, data: OfflineDataset, horizon: int, *, padded: bool = True) -> None:
        self.data, self.horizon = data, horizon
        counts = data.lengths if padded else np.maximum(data.lengths + 2 - horizon, 0)
        total = int(counts.sum())
        if total == 0:
            longest = int(data.lengths.max(initial=0))
            raise UnsupportedError(
                f"{data.spec.id}: no window of {horizon} observation rows fits into these {data.n_episodes} episodes; "
                f"the longest has {longest} steps. Use a shorter horizon, or pad_windows=true."
                if data.n_episodes
                else f"{data.spec.id}: there is no episode to cut windows from."
            )
        self.episodes: Index = np.repeat(np.arange(data.n_episodes), counts)
        self.starts: Index = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        self.first_step: Index = data.episode_starts[self.episodes] + self.starts
        self.first_row: Index = self.first_step + self.episodes
        self.left: Index = data.lengths[self.episodes] - self.starts

    def __len__(self) -> int:
        return len(self.episodes)

    def of_episodes(self, episodes: Index) -> Index:
        """The windows that lie in these episodes, ascending."""
        chosen = np.zeros(self.data.n_episodes, dtype=np.bool_)
        chosen[episodes] = True
        return np.flatnonzero(chosen[self.episodes])

    def rows(self, windows: Index) -> Index:
        """(M,) windows -> (M, H) rows of the dataset's row columns."""
        ahead = np.arange(self.horizon)
        rows: Index = self.first_row[windows, None] + np.minimum(ahead, self.left[windows, None])
        return rows

    def steps(self, windows: Index) -> tuple[Index, NDArray[np.bool_]]:
        """(M,) windows -> (M, H − 1) steps, the last one repeated, and whether each is inside the episode."""
        ahead, left = np.arange(self.horizon - 1), self.left[windows, None]
        return self.first_step[windows, None] + np.minimum(ahead, left - 1), ahead < left

    def discounted_returns(self, gamma: float) -> NDArray[np.float64]:
        """(W,) Σ_{j < H−1} γ^j r_{s+j} of the team, rewards past the end being zero."""
        rewards = self.data.team_rewards()
        total = np.zeros(len(self))
        for j in range(self.horizon - 1):
            inside = self.left > j
            total[inside] += gamma**j * rewards[self.first_step[inside] + j]
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class RawWindows:
    """M windows in the task's units: observations (M, H, N, D), actions (M, H − 1, N[, A]), rewards (M, H − 1, N).

    `states` (M, H, K), `available_actions` (M, H, N, A), `behaviour` (M, H − 1, N): None where the data have none.
    """

    observations: NDArray[np.float32]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    states: NDArray[np.float32] | None
    available_actions: NDArray[np.bool_] | None
    behaviour: NDArray[np.int8] | None


def raw_windows(index: WindowIndex, windows: Index) -> RawWindows:
    """Windows as they were recorded, with replicate padding and zero rewards past the end."""
    data, rows = index.data, index.rows(windows)
    steps, inside = index.steps(windows)
    return RawWindows(
        observations=data.observations[rows],
        actions=data.actions[steps],
        rewards=data.rewards[steps] * inside[..., None],
        states=None if data.states is None else data.states[rows],
        available_actions=None if data.available_actions is None else data.available_actions[rows],
        behaviour=None if data.behaviour is None else data.behaviour[steps],
    )


def held_out_split(n_episodes: int, generator: np.random.Generator, share: float = 0.05) -> tuple[Index, Index]:
    """Episodes to train on and episodes to judge by, both ascending.

    The last ⌈share · E⌉ of a permutation are held out; a single episode serves as both.
    """
    order = generator.permutation(n_episodes)
    if n_episodes < 2:
        return order, order
    kept = n_episodes - ceil(share * n_episodes)
    return np.sort(order[:kept]), np.sort(order[kept:])


def steps_of(data: OfflineDataset, episodes: Index) -> Index:
    """All steps of these episodes, ascending."""
    chosen = np.zeros(data.n_episodes, dtype=np.bool_)
    chosen[episodes] = True
    return np.flatnonzero(np.repeat(chosen, data.lengths))


@dataclass(frozen=True, slots=True, eq=False)
class TrainingEntries:
    """What a replica draws its training windows from: entry j is window `windows[j]` under rotation `rotations[j]`."""

    windows: Index
    rotations: Index


def training_entries(index: WindowIndex, windows: Index, share: float, gamma: float) -> TrainingEntries:
    """The given windows, and rotations of the best of them (circular shift; MADiTS, App. D).

    Among the windows with the same start step, the ⌈share · count⌉ of largest discounted in-window return are added
    under every rotation but the identity. Observations are not rewritten: what an agent sees of its teammates keeps
    its order, as in the paper.
    """
    turns = len(rotations(index.data.spec)) - 1
    none = np.zeros_like(windows)
    if share == 0 or turns == 0:
        return TrainingEntries(windows, none)
    scores, starts = index.discounted_returns(gamma)[windows], index.starts[windows]
    order = np.lexsort((-scores, starts))  # by start step, the best first
    first = np.searchsorted(starts[order], starts[order])  # where the group of each begins
    count = np.bincount(starts)[starts[order]]
    best = windows[order[np.arange(len(order)) - first < np.ceil(share * count - 1e-9)]]
    added = np.repeat(np.arange(1, turns + 1), len(best))
    return TrainingEntries(np.concatenate([windows, np.tile(best, turns)]), np.concatenate([none, added]))


def rotations(spec: TaskSpec) -> Index:
    """(P, N) cyclic rotations of the agents within each group of exchangeable ones; row 0 is the identity.

    P is the size of the largest group: slot j of a group of size m holds its agent (j + p) mod m under rotation p.
    """
    turns = max(len(group) for group in spec.agent_groups)
    table = np.tile(np.arange(spec.n_agents), (turns, 1))
    for group in spec.agent_groups:
        for turn in range(turns):
            table[turn, list(group)] = np.roll(group, -turn)
    return table


def require_finite(data: OfflineDataset) -> None:
    """Refuses data that a model cannot be trained on.

    Raises:
        DataError: naming the column, how many of its rows are not finite, and what to do.
    """
    for name in ("observations", "actions", "rewards", "states"):
        column = getattr(data, name)
        if column is None or not np.issubdtype(column.dtype, np.floating):
            continue
        bad = ~np.isfinite(column.reshape(len(column), -1)).all(axis=1)
        if bad.any():
            raise DataError(
                f"{data.spec.id}: {int(bad.sum())} of {len(column)} rows of {name!r} hold NaN or infinite values "
                f"(first row {int(np.flatnonzero(bad)[0])}). Remove these episodes, or record the dataset again."
            )
