"""Our vectorised aggregates against rliable and scipy, the reference implementations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rliable import library, metrics

from leaderboard import statistics
from leaderboard.statistics import Resampling
from tasks.common.seeding import make_generator

SHAPES = [(2, 1), (3, 4), (5, 1), (5, 24), (10, 7)]
PAIRS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (statistics.iqm, metrics.aggregate_iqm),
    (statistics.median, metrics.aggregate_median),
    (statistics.mean, metrics.aggregate_mean),
    (statistics.optimality_gap, lambda scores: metrics.aggregate_optimality_gap(scores, gamma=100.0)),
]


class SeededBootstrap(library.StratifiedBootstrap):  # type: ignore[misc]
    """rliable's bootstrap with given indices (B, R, G): its own `random_state` is ignored."""

    def __init__(self, *args: np.ndarray, draws: Resampling) -> None:
        super().__init__(*args)
        self._draws = itertools.cycle(draws.indices[:, :, draws.strata])  # (R, C) each

    def update_indices(self) -> tuple[np.ndarray, ...]:
        return (next(self._draws), *self._strata_indices)


def scores_of(shape: tuple[int, int], name: str = "scores") -> np.ndarray:
    return make_generator(name, *shape).normal(60.0, 40.0, size=shape)


def draw(shape: tuple[int, int], resamples: int = 400) -> Resampling:
    return Resampling.draw(shape[0], np.arange(shape[1]), make_generator("draws", *shape), resamples)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ours", "reference"), PAIRS)
def test_point_values_are_rliables(
    ours: Callable[..., Any], reference: Callable[..., Any], shape: tuple[int, int]
) -> None:
    scores = scores_of(shape)
    assert statistics.estimate(scores, ours, draw(shape, 2)).value == reference(scores)
    assert ours(scores) == pytest.approx(reference(scores), rel=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_iqm_is_scipys_trimmed_mean(shape: tuple[int, int]) -> None:
    scores = scores_of(shape)
    assert statistics.iqm(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None), rel=1e-13)


@pytest.mark.parametrize("shape", [(5, 4), (3, 7)])
@pytest.mark.parametrize(("ours", "reference"), PAIRS)
def test_same_indices_give_rliables_interval(
    ours: Callable[..., Any], reference: Callable[..., Any], shape: tuple[int, int]
) -> None:
    scores, draws = scores_of(shape), draw(shape)
    estimate = statistics.estimate(scores, ours, draws)
    bootstrap = SeededBootstrap(scores, draws=draws)
    interval = bootstrap.conf_int(lambda s: np.array([reference(s)]), reps=400, size=0.95, method="percentile")
    np.testing.assert_allclose([estimate.low, estimate.high], interval[:, 0], rtol=1e-12)


def test_the_bootstrap_distribution_is_rliables() -> None:
    """rliable draws from numpy's global generator, so this comparison is of distributions (Kolmogorov-Smirnov)."""
    scores = scores_of((5, 6))
    ours = statistics.iqm(draw((5, 6), 1500).apply(scores))
    np.random.seed(0)  # noqa: NPY002  rliable knows no other generator
    theirs = library.StratifiedBootstrap(scores).apply(lambda s: np.array([metrics.aggregate_iqm(s)]), 1500)
    assert scipy.stats.ks_2samp(ours, theirs[:, 0]).pvalue > 0.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("round_to", [1.0, 0.0001])
def test_probability_of_improvement_is_rliables(shape: tuple[int, int], round_to: float) -> None:
    """Coarse rounding makes ties."""
    first, second = (np.round(scores_of(shape, name) / 20 / round_to) * round_to for name in ("x", "y"))
    draws = draw(shape, 2)
    value = statistics.probability_of_improvement(first, second, draws, draws).value
    assert value == pytest.approx(metrics.probability_of_improvement(first, second), rel=1e-13)
    u = [
        scipy.stats.mannwhitneyu(x, y, alternative="greater").statistic for x, y in zip(first.T, second.T, strict=True)
    ]
    assert value == pytest.approx(np.mean(u) / shape[0] ** 2, rel=1e-13)
    assert statistics.probability_of_improvement(first, first, draws, draws).value == 0.5


def test_probability_of_improvement_resamples_like_a_plain_loop() -> None:
    shape = (4, 3)
    first, second = scores_of(shape, "x"), scores_of(shape, "y")
    left, right = draw(shape, 60), Resampling.draw(4, np.arange(3), make_generator("right"), 60)
    values = [
        metrics.probability_of_improvement(x, y) for x, y in zip(left.apply(first), right.apply(second), strict=True)
    ]
    estimate = statistics.probability_of_improvement(first, second, left, right)
    np.testing.assert_allclose([estimate.low, estimate.high], np.percentile(values, [2.5, 97.5]), rtol=1e-12)


def test_profiles_are_rliables() -> None:
    scores, thresholds, draws = scores_of((5, 4)), np.linspace(-20.0, 120, 15), draw((5, 4))
    ours = statistics.performance_profile(scores, thresholds, draws)
    np.testing.assert_allclose([e.value for e in ours], library.score_distributions(scores, thresholds), rtol=1e-13)
    bootstrap = SeededBootstrap(scores, draws=draws)
    interval = bootstrap.conf_int(lambda s: library.score_distributions(s, thresholds), reps=400, method="percentile")
    np.testing.assert_allclose([[e.low for e in ours], [e.high for e in ours]], interval, rtol=1e-12, atol=1e-15)
