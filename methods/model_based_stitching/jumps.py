"""Where each transition of the current episodes would jump to, and the walks that follow from it.

What is decided at a transition depends on that transition alone, so that all decisions make a functional graph: they
are taken once, in blocks, and all episodes then follow their pointers in lockstep. This gives what walking through one
episode after another would give (MBTS' repository, TrajectoryStitching.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.steps import StepTensors
from methods.model_based_stitching.stitched import StitchedEpisodes
from methods.objectives.transition_density import within_reach

_PAIRS = 256  # transitions decided at a time; bounds the memory
_CANDIDATES = 8_192  # candidates whose densities are evaluated at a time

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TransitionGraph:
    """The different transitions (row, next row) of the current episodes.

    Attributes:
        first, second: (P,) rows, sorted by the first, then by the second.
        of_step: (S,) the transition that each step is.
        arrives: (M,) the earliest step that leads to a row, −1 if none does.
        begins: (M + 1,) where the transitions out of each row begin.
    """

    first: Index
    second: Index
    of_step: Index
    arrives: Index
    begins: Index

    @classmethod
    def of(cls, episodes: StitchedEpisodes, rows: int) -> TransitionGraph:
        """Of episodes over that many rows of the original data."""
        first, second = episodes.first_rows(), episodes.second_rows()
        keys, of_step = np.unique(first * rows + second, return_inverse=True)
        arrives = np.full(rows, -1, dtype=np.int64)
        arrives[second[::-1]] = np.arange(len(second))[::-1]  # the last assignment is the earliest step
        return cls(
            keys // rows, keys % rows, of_step.reshape(-1), arrives, np.searchsorted(keys // rows, np.arange(rows + 1))
        )

    def candidates(self, pairs: Index, neighbours: NDArray[np.int32]) -> tuple[Index, Index]:
        """The rows that each of some transitions (B,) may lead to instead: entries of `pairs`, and rows; each once.

        What follows a neighbour of the row in the current episodes, and neighbours of the next row that something
        leads to. Neighbours are given for all rows, (M, K), −1 behind them.
        """
        first, second = self.first[pairs], self.second[pairs]
        near = np.concatenate([first[:, None], neighbours[first]], axis=1)  # (B, 1 + K)
        owner, column = np.nonzero(near >= 0)
        start = near[owner, column]
        count = self.begins[start + 1] - self.begins[start]
        left = np.repeat(owner, count)
        offsets = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        left_rows = self.second[np.repeat(self.begins[start], count) + offsets]
        near = neighbours[second].astype(np.int64)  # (B, K)
        right, column = np.nonzero((near >= 0) & (self.arrives[near] >= 0))
        keys = np.concatenate([left * len(self.arrives) + left_rows, right * len(self.arrives) + near[right, column]])
        keys = np.unique(keys)
        return keys // len(self.arrives), keys % len(self.arrives)


@dataclass(frozen=True, slots=True, eq=False)
class Jumps:
    """Where the transitions of a graph jump to.

    Attributes:
        target: (P,) the row, −1 to stay.
        better, reached: how many candidates had a higher value, and how many of these were within reach.
    """

    target: Index
    better: int
    reached: int


def decide(
    graph: TransitionGraph,
    neighbours: NDArray[np.int32],
    model: StitchingModel,
    steps: StepTensors,
    values: NDArray[np.float32],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Jumps:
    """The candidate within reach of the highest value, if that is above the value of the next row (MBTS).

    Args:
        graph: the current transitions.
        neighbours: (M, K) of `nearest_rows`.
        model: for the densities.
        steps: the original data.
        values: (M,) min(V¹, V²) of every row.
        report: called with transitions done and in all.
    """
    total = len(graph.first)
    target = np.full(total, -1, dtype=np.int64)
    better = reached = 0
    for start in range(0, total, _PAIRS):
        pairs = np.arange(start, min(start + _PAIRS, total))
        owner, row = graph.candidates(pairs, neighbours)
        higher = values[row] > values[graph.second[pairs[owner]]]
        owner, row = owner[higher], row[higher]
        near = _reachable(model, steps, graph.first[pairs], graph.second[pairs], owner, row)
        better, reached = better + len(row), reached + int(near.sum())
        owner, row = owner[near], row[near]
        order = np.lexsort((row, -values[row], owner))  # the highest value first, the earliest row on a tie
        chosen, position = np.unique(owner[order], return_index=True)
        target[pairs[chosen]] = row[order][position]
        report(int(pairs[-1]) + 1, total)
    return Jumps(target, better, reached)


def _reachable(
    model: StitchingModel, steps: StepTensors, first: Index, second: Index, owner: Index, row: Index
) -> NDArray[np.bool_]:
    """(C,) whether candidate rows (C,) of transitions `owner` (C,) are within reach; transitions (B,) given by rows."""
    device = steps.rows.device
    at, following = torch.from_numpy(first).to(device), torch.from_numpy(second).to(device)
    mean, log_std = model.densities(steps, at)  # (members, B, X)
    real = model.log_density(mean, log_std, steps.changes(at, following))  # (members, B)
    found = []
    for start in range(0, len(row), _CANDIDATES):
        of = torch.from_numpy(owner[start : start + _CANDIDATES]).to(device)
        there = torch.from_numpy(row[start : start + _CANDIDATES]).to(device)
        other = model.log_density(mean[:, of], log_std[:, of], steps.changes(at[of], there))  # (members, C)
        found.append(within_reach(other, real[:, of]).cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Walks:
    """E walks of up to L steps, padded.

    Attributes:
        rows: (E, L + 1).
        source: (E, L) the step whose action and reward are kept, −1 at a jump.
        lengths: (E,) steps of each.
        terminal: (E,) whether it ends where an episode truly ended. won: whether that one was won.
    """

    rows: Index
    source: Index
    lengths: Index
    terminal: NDArray[np.bool_]
    won: NDArray[np.bool_]


def walk(episodes: StitchedEpisodes, graph: TransitionGraph, jumps: Jumps, limit: int) -> Walks:
    """From the start of every episode, in lockstep, until an episode ends or the limit is reached.

    After a jump to a row the walk goes on behind the earliest step that leads to it, and ends with that one's episode.
    """
    count, starts = episodes.n_episodes, episodes.starts
    episode_of = np.repeat(np.arange(count), episodes.lengths)
    last = np.zeros(int(starts[-1]), dtype=np.bool_)
    last[starts[1:] - 1] = True
    rows, source = np.full((count, limit + 1), -1, dtype=np.int64), np.full((count, limit), -1, dtype=np.int64)
    lengths = np.zeros(count, dtype=np.int64)
    terminal, won = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
    walking, step = np.arange(count), starts[:-1].copy()
    rows[:, 0] = episodes.rows[starts[:-1] + np.arange(count)]
    for t in range(limit):
        pair = graph.of_step[step]
        jumped = jumps.target[pair] >= 0
        rows[walking, t + 1] = np.where(jumped, jumps.target[pair], graph.second[pair])
        source[walking, t] = np.where(jumped, -1, step)
        behind = np.where(jumped, graph.arrives[jumps.target[pair]], step)  # −1 reads another row's, which is not used
        lengths[walking] = t + 1
        ended = last[behind]
        over = episode_of[behind[ended]]
        terminal[walking[ended]], won[walking[ended]] = episodes.terminal[over], episodes.won[over]
        walking, step = walking[~ended], behind[~ended] + 1
        if not len(walking):
            break
    return Walks(rows, source, lengths, terminal, won)
