"""Does a model of interacting agents attend to those that are near? Attention weights against inverse distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.distributions import rank_correlations
from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Curve, Measurement
from benchmark.quality.subject import Subject, UndefinedError, some
from tasks.scene import Scene

Float64 = NDArray[np.float64]

TRANSITIONS = 1024
"""Original transitions that the method's model looks at."""

BINS = 12
"""Points of the curve, each the mean over as many pairs."""

_NEAREST = 1e-3
"""Agents nearer than this count as that far apart, in units of the map."""


def measure(subject: Subject) -> Measured:
    """`attention_correlation`, and the curve `attention_by_inverse_distance`.

    Spearman's rank correlation of the weight that agent i gives agent j with 1 / d(i, j), over all ordered pairs of
    different agents in real transitions that the method's own model is shown (INS, Sec. 5.5, Fig. 8, which shows
    weights and inverse distances beside each other; the correlation is inferred). Distances are those between where
    the agents say they are. `nearest` and `furthest` in the details are the mean weights that an agent gives its
    nearest and its furthest teammate, `itself` what it keeps.
    """
    if subject.augmenter is None:
        raise UndefinedError("the fitted augmenter is not at hand")
    data = subject.original
    if data.spec.n_agents < 2:
        raise UndefinedError("there is one agent alone")
    steps = some(np.arange(data.n_steps), TRANSITIONS, subject.generator("attention"))
    found = subject.augmenter.attention(data, steps)
    if found is None:
        raise UndefinedError("the method has no model in which agents attend to each other")
    weights = np.asarray(found, dtype=np.float64)
    near = inverse_distances(subject.scene(data.observations[data.row_of_step()[steps]]))
    i, j = np.nonzero(~np.eye(data.spec.n_agents, dtype=np.bool_))
    given, beside = weights[:, i, j].ravel(), near[:, i, j].ravel()  # (M N (N - 1),)
    if not np.ptp(given) or not np.ptp(beside):
        raise UndefinedError("all weights, or all distances, are the same")
    first, last = extremes(weights, near)
    measured = Measurement(
        value=float(rank_correlations(np.stack([given, beside], axis=1))[0, 1]),
        details={
            "nearest": first,
            "furthest": last,
            "itself": float(np.einsum("mii->mi", weights).mean()),
            "zero_share": float((given == 0).mean()),
            "transitions": len(steps),
        },
    )
    return Measured(
        {"attention_correlation": measured}, curves={"attention_by_inverse_distance": curve(beside, given, BINS)}
    )


FAMILY = Family(("attention_correlation",), measure)


def inverse_distances(scene: Scene) -> Float64:
    """(M, N, N) 1 / d(i, j) between the learning agents, each by its own account; the diagonal means nothing."""
    places = np.stack([agent.position for agent in scene.agents], axis=1)  # (M, N, 2)
    difference = places[:, :, None] - places[:, None]
    distances = np.sqrt((difference * difference).sum(axis=-1))
    return np.asarray(1.0 / np.maximum(distances, _NEAREST))


def extremes(weights: Float64, near: Float64) -> tuple[float, float]:
    """Mean weights of the nearest and of the furthest other agent, from (M, N, N) each, row i what i gives."""
    n = weights.shape[1]
    others = np.where(np.eye(n, dtype=np.bool_), np.nan, near)
    nearest, furthest = np.nanargmax(others, axis=2), np.nanargmin(others, axis=2)  # (M, N)
    picked = [np.take_along_axis(weights, place[..., None], axis=2) for place in (nearest, furthest)]
    return float(picked[0].mean()), float(picked[1].mean())


def curve(x: Float64, y: Float64, bins: int) -> Curve:
    """Means of y over groups of equal size in the order of x, each at the median of its x."""
    groups = np.array_split(np.argsort(x, kind="stable"), min(bins, len(x)))
    return Curve(x=[float(np.median(x[group])) for group in groups], y=[float(y[group].mean()) for group in groups])
