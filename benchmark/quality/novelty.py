"""How new the synthetic data are: distance to the nearest original transition, and the share of rows never recorded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, Which, encoded_actions
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import transitions

QUERIES = 1024
"""Synthetic transitions whose nearest neighbour is searched."""

REFERENCE = 200_000
"""Original transitions among which it is searched; INS (App. F) uses as many samples."""

BLOCK = 1 << 22
"""Distances held at once."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, with bits all over: 2^64 divided by the golden ratio

ROW_TOLERANCE = 1e-3
"""Rows closer than this in every feature are the same row: normalising and back costs a few 1e-6."""


def measure(subject: Subject) -> Measured:
    """`novelty` and `new_row_share`."""
    return Measured({"novelty": _novelty(subject), "new_row_share": _new_rows(subject)})


FAMILY = Family(("novelty", "new_row_share"), measure)


def _novelty(subject: Subject) -> Measurement:
    """Mean squared distance of joint (o, a) to the nearest original one (INS, Eq. A5), on raw values as printed.

    Of the original data: the distance to the nearest transition of another episode, which is what further real data
    would have.
    """
    reference_steps = _some(subject, "original", REFERENCE, "novelty reference")
    reference = _joint(subject.original, reference_steps)
    queries = _joint(subject.synthetic, _some(subject, "synthetic", QUERIES, "novelty queries"))
    nearest = nearest_distances(queries, reference)
    baseline = None
    if subject.original.n_episodes > 1:
        episodes = np.searchsorted(subject.original.episode_starts, reference_steps, side="right") - 1
        size = min(QUERIES, len(reference))
        picked = subject.generator("novelty baseline").choice(len(reference), size=size, replace=False)
        others = nearest_distances(reference[picked], reference, (episodes[picked], episodes))
        baseline = float(others.mean())
    return Measurement(value=float(nearest.mean()), original=baseline, details={"median": float(np.median(nearest))})


def nearest_distances(
    queries: NDArray[np.float32],
    reference: NDArray[np.float32],
    strangers: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> NDArray[np.float64]:
    """Squared Euclidean distances (Q,) of the queries to their nearest neighbours among the reference.

    A neighbour is found in float32 and its distance computed again in float64, so that a copy is at exactly 0.

    Args:
        queries: (Q, C).
        reference: (M, C).
        strangers: group numbers (Q,) and (M,), where a query must not meet a reference row of its own group.
    """
    best = np.full(len(queries), np.inf, dtype=np.float32)
    found = np.zeros(len(queries), dtype=np.int64)
    centre = reference.mean(axis=0)
    shifted = queries - centre  # smaller numbers: |x|² + |y|² - 2 x·y loses fewer digits
    rows = max(1, BLOCK // max(1, len(queries)))
    for first in range(0, len(reference), rows):
        block = reference[first : first + rows] - centre
        scores = shifted @ block.T
        scores *= -2.0
        scores += (block * block).sum(axis=1)
        if strangers is not None:
            scores[strangers[0][:, None] == strangers[1][first : first + rows]] = np.inf
        nearest = scores.argmin(axis=1)
        score = scores[np.arange(len(queries)), nearest]
        better = score < best
        best[better], found[better] = score[better], first + nearest[better]
    difference = queries.astype(np.float64) - reference[found]
    return np.asarray((difference * difference).sum(axis=1))


def _new_rows(subject: Subject) -> Measurement:
    """Share of the agents' observation rows that the same agent never observed in the original data.

    MASTARS (Sec. 4.7, Table 7) reports how much of its trajectories was generated anew after the subgoal; this
    measures it on the data, for every method alike. The rows of final observations are not looked at.
    """
    made = subject.sampled["synthetic"].observations
    fresh = np.ones(made.shape[:2], dtype=np.bool_)
    for agent in range(made.shape[1]):
        fresh[:, agent] = ~recorded(made[:, agent], subject.original.observations[:, agent])
    return Measurement(value=float(fresh.mean()), original=0.0)


def recorded(rows: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the rows (M, D) occur in the reference (K, D), up to rounding.

    Both are cut into cells of ROW_TOLERANCE, twice: cells shifted by half a width catch what lies at an edge. Rows
    in the same cell are equal, compared through a 64-bit hash.
    """
    found = np.zeros(len(rows), dtype=np.bool_)
    for shift in (0.0, 0.5):
        known = np.unique(_hashes(reference, shift))
        hashes = _hashes(rows, shift)
        position = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        found |= known[position] == hashes
    return found


def _hashes(rows: NDArray[np.float32], shift: float) -> NDArray[np.uint64]:
    cells = np.floor(rows.astype(np.float64) / ROW_TOLERANCE + shift).astype(np.int64).view(np.uint64)  # (M, D)
    hashes = np.zeros(len(rows), dtype=np.uint64)
    for column in range(cells.shape[1]):  # products wrap around, as meant
        hashes = (hashes ^ cells[:, column]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _some(subject: Subject, which: Which, count: int, purpose: str) -> NDArray[np.int64]:
    """At most `count` steps of one of the datasets."""
    steps = subject.data(which).n_steps
    if steps <= count:
        return np.arange(steps)
    return np.sort(subject.generator(purpose).choice(steps, size=count, replace=False)).astype(np.int64)


def _joint(data: OfflineDataset, steps: NDArray[np.int64]) -> NDArray[np.float32]:
    """(M, N D + N A) observation and action of all agents."""
    batch = transitions(data).gather(steps)
    rows = len(steps)
    parts = [batch.observations.reshape(rows, -1), encoded_actions(data.spec, batch.actions).reshape(rows, -1)]
    return np.concatenate(parts, axis=1)
