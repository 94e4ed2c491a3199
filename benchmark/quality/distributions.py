"""Similarity and correlation: does the synthetic data look like the original, column by column and pair by pair?

Columns are those of the joint transition (o, a, r, o') of all agents: N D + N A + 1 + N D of them (INS, App. F).
For the original data, one half of the episodes is compared with the other: what unlimited real data would score.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, encoded_actions
from tasks.datasets.views import TransitionBatch, transitions
from tasks.spec import TaskSpec

Float64 = NDArray[np.float64]


def measure(subject: Subject) -> Measured:
    """`similarity` and `correlation` of the sampled transitions."""
    spec, batches = subject.task.spec, subject.sampled
    original, synthetic = columns_of(spec, batches["original"]), columns_of(spec, batches["synthetic"])
    halves = _halves(subject)
    distances = ks_distances(original, synthetic)
    worst = int(distances.argmax())
    similarity = Measurement(
        value=1.0 - float(distances.mean()),
        original=None if halves is None else 1.0 - float(ks_distances(*halves).mean()),
        details={"largest_distance": float(distances[worst]), "largest_distance_of": column_names(spec)[worst]},
    )
    varies = np.ptp(original, axis=0) > 0
    if varies.sum() < 2:
        correlation = Measurement.undefined("fewer than two columns of the original data vary")
    else:
        value, largest = correlation_similarity(original[:, varies], synthetic[:, varies])
        real = None if halves is None else correlation_similarity(halves[0][:, varies], halves[1][:, varies])[0]
        correlation = Measurement(value=value, original=real, details={"largest_difference": largest})
    return Measured({"similarity": similarity, "correlation": correlation})


FAMILY = Family(("similarity", "correlation"), measure)


def ks_distances(first: Float64, second: Float64) -> Float64:
    """Two-sample Kolmogorov-Smirnov distance of every column, (C,): sup_x |F_1(x) - F_2(x)| (INS, Eq. A1).

    INS calls the distance itself "Similarity" and reads it as higher is better: we report one minus its mean over
    columns. Columns that never vary count too, so that an augmenter that disturbs them is seen.

    Args:
        first: (M_1, C).
        second: (M_2, C).
    """
    result = np.empty(first.shape[1])
    for column in range(first.shape[1]):
        x, y = np.sort(first[:, column]), np.sort(second[:, column])
        points = np.concatenate([x, y])
        below_x = np.searchsorted(x, points, side="right") / len(x)
        below_y = np.searchsorted(y, points, side="right") / len(y)
        result[column] = np.abs(below_x - below_y).max()
    return result


def correlation_similarity(first: Float64, second: Float64) -> tuple[float, float]:
    """1 - mean |ρ_1 - ρ_2| / 2 over all pairs of columns of (M_1, C) and (M_2, C), and the largest difference.

    Eq. A2 of INS as printed correlates the i-th row of one dataset with the i-th of the other, which are no pair; the
    text calls it "pairwise rank Pearson correlation". We read it as SynthER's correlation metric, which INS builds on:
    rank correlations of all pairs of columns, compared between the datasets. # inferred
    """
    gaps = np.abs(rank_correlations(first) - rank_correlations(second))
    pairs = gaps[np.triu_indices(len(gaps), k=1)]
    return 1.0 - float(pairs.mean()) / 2.0, float(pairs.max())


def rank_correlations(columns: Float64) -> Float64:
    """Pearson correlations (C, C) of the ranks of columns (M, C), ties averaged; 0 beside a constant column."""
    ranks = rankdata(columns, axis=0)
    centred = ranks - ranks.mean(axis=0)
    norms = np.sqrt((centred * centred).sum(axis=0))
    unit = centred / np.where(norms > 0, norms, 1.0)
    return np.asarray(unit.T @ unit)


def column_names(spec: TaskSpec) -> list[str]:
    """The columns of a joint transition, e.g. `agent 1: own_position_x`; o' with `next` in front."""
    agents, actions = range(spec.n_agents), spec.action.names or tuple(map(str, range(spec.action.size)))
    seen = [f"agent {agent}: {feature}" for agent in agents for feature in spec.observation_features]
    acted = [f"agent {agent}: action {name}" for agent in agents for name in actions]
    return [*seen, *acted, "team reward", *(f"next {name}" for name in seen)]


def columns_of(spec: TaskSpec, batch: TransitionBatch) -> Float64:
    """(M, C) the columns of joint transitions."""
    rows = len(batch.rewards)
    parts = [
        batch.observations.reshape(rows, -1),
        encoded_actions(spec, batch.actions).reshape(rows, -1),
        spec.fold_rewards(batch.rewards)[:, None],
        batch.next_observations.reshape(rows, -1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _halves(subject: Subject) -> tuple[Float64, Float64] | None:
    """The columns of the two halves of the original episodes; None for a single episode."""
    if subject.halves is None:
        return None
    data, (first, second) = subject.original, subject.halves
    return (
        columns_of(data.spec, transitions(data).gather(first)),
        columns_of(data.spec, transitions(data).gather(second)),
    )
