"""Coverage: where original and synthetic joint actions and observations lie in the plane that shows most of them.

INS (Fig. 7) and EAQ (Fig. 3) show such maps made by t-SNE, which has no axes in which shares could be counted, and
places the same point elsewhere in every drawing. Here the map is that of the first two principal components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError, encoded_actions, some
from tasks.datasets.views import TransitionBatch, transitions
from tasks.spec import TaskSpec

Float64 = NDArray[np.float64]

POINTS = 4096
"""Transitions of each dataset on the map."""

A_CELL = 16
"""Transitions that a cell would hold if all held equally many: their number decides how fine the grid is."""


def measure(subject: Subject) -> Measured:
    """`covered_share` and `inside_share` of joint (o, a).

    The map is the plane of the first two principal components of the original (o, a), every column in its standard
    deviations. The rectangle that the original points span is cut into G x G cells, G² = n / 16 rounded down to a
    square. As many points n of either dataset are drawn, 4,096 at most. # inferred, all of it

    `covered_share`: of the original points, those in a cell with a synthetic one. `inside_share`: of the synthetic
    points, those in a cell with an original one. Of the original data: one half of the episodes in place of the
    original, the other half in place of the synthetic data, on the same grid and with as many points.
    """
    drawn = on_the_map(subject)
    original, synthetic = drawn.numbers(drawn.original), drawn.numbers(drawn.synthetic)
    covered = inside = None
    if drawn.halves is not None:
        first, second = (drawn.numbers(points) for points in drawn.halves)
        covered, inside = share_met(first, second), share_met(second, first)
    told: dict[str, float | int | str | None] = {
        "explained_variance": drawn.plane.explained,
        "cells_a_side": drawn.a_side,
        "points": len(original),
    }
    return Measured(
        {
            "covered_share": Measurement(value=share_met(original, synthetic), original=covered, details=told),
            "inside_share": Measurement(value=share_met(synthetic, original), original=inside),
        }
    )


FAMILY = Family(("covered_share", "inside_share"), measure)


@dataclass(frozen=True, slots=True)
class Plane:
    """The first two principal components of standardised columns.

    Attributes:
        mean, scale: (C,) of the columns, scale 1 where one never varies.
        axes: (C, 2) of length 1; the entry of each that is largest in size is positive.
        explained: share of the variance of all columns that the plane shows.
    """

    mean: Float64
    scale: Float64
    axes: Float64
    explained: float

    def points(self, columns: NDArray[np.floating]) -> Float64:
        """(M, C) -> (M, 2)."""
        return np.asarray(((columns - self.mean) / self.scale) @ self.axes)


@dataclass(frozen=True, slots=True)
class Map:
    """Points (n, 2) of both datasets, and of the halves of the original one where it has several episodes."""

    plane: Plane
    original: Float64
    synthetic: Float64
    halves: tuple[Float64, Float64] | None
    a_side: int

    def numbers(self, points: Float64) -> NDArray[np.int64]:
        """(n,) the cell of each point in the rectangle of the original ones."""
        return cells(points, self.original.min(axis=0), self.original.max(axis=0), self.a_side)


def on_the_map(subject: Subject) -> Map:
    """The plane and the points that are drawn and counted.

    Raises:
        UndefinedError: without transitions, and where fewer than two columns of the original ones vary.
    """
    spec, generator = subject.task.spec, subject.generator("coverage")
    batches = [subject.sampled["original"], subject.sampled["synthetic"]]
    if subject.halves is not None:
        batches += [transitions(subject.original).gather(steps) for steps in subject.halves]
    count = min(POINTS, *(len(batch.rewards) for batch in batches))
    if not count:
        raise UndefinedError("there are no transitions to compare")

    def drawn(batch: TransitionBatch, most: int) -> NDArray[np.float32]:
        return _columns(spec, batch, some(np.arange(len(batch.rewards)), most, generator))

    plane = fit_plane(drawn(batches[0], POINTS))
    original, synthetic, *halves = (plane.points(drawn(batch, count)) for batch in batches)
    both = (halves[0], halves[1]) if halves else None
    return Map(plane, original, synthetic, both, max(1, math.isqrt(count // A_CELL)))


def fit_plane(columns: NDArray[np.floating]) -> Plane:
    """The plane of (M, C) columns.

    Raises:
        UndefinedError: where fewer than two of them vary.
    """
    mean, deviation = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-8
    if varies.sum() < 2:
        raise UndefinedError("fewer than two columns of the original (o, a) vary")
    scale = np.where(varies, deviation, 1.0)
    standard = np.where(varies, (columns - mean) / scale, 0.0)
    if min(standard.shape) > 3:
        start = np.random.default_rng(0).normal(size=min(standard.shape))  # of the iteration: any will do
        _, sizes, rows = svds(standard, k=2, v0=start)  # not all of them, where agents have many features
    else:
        _, sizes, rows = np.linalg.svd(standard)
    order = np.argsort(-sizes)[:2]
    axes = rows[order].T  # (C, 2)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(2)])
    explained = float((sizes[order] ** 2).sum() / (standard * standard).sum())
    return Plane(mean, scale, np.asarray(axes * signs), explained)


def cells(points: Float64, low: Float64, high: Float64, a_side: int) -> NDArray[np.int64]:
    """(M,) the number of the cell of each point (M, 2) in a grid over low (2,) .. high (2,), -1 outside."""
    extent = np.where(high > low, high - low, 1.0)
    place = np.clip(np.floor((points - low) / extent * a_side), 0, a_side - 1).astype(np.int64)  # high: the last cell
    outside = ((points < low) | (points > high)).any(axis=1)
    return np.where(outside, -1, place[:, 0] * a_side + place[:, 1])


def share_met(numbers: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """The share of points (M,), by their cells, in a cell that holds one of the others; those outside are in none."""
    return float((np.isin(numbers, others) & (numbers >= 0)).mean())


def _columns(spec: TaskSpec, batch: TransitionBatch, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(M, N D + N A) of these rows of a batch."""
    seen = batch.observations[rows].reshape(len(rows), -1)
    return np.concatenate([seen, encoded_actions(spec, batch.actions[rows]).reshape(len(rows), -1)], axis=1)
