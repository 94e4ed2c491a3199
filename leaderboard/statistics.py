"""Aggregates, intervals and tiers over score matrices (R, C): R independent replicates, C cells.

Point values are rliable's own functions. Its intervals are not used: rliable 1.2.0 accepts `random_state` and draws
from numpy's global generator all the same, so they change from call to call. Here the resampled indices come from a
passed generator, all resamples are computed at once, and tests feed the same indices to a subclass of rliable's
bootstrap to show that the intervals agree.

Two kinds of intervals, both 95%:

- `percentile` is what rliable prints, and what absolute scores carry here.
- `expanded` is for what decides: lift and tiers. A percentile interval of n values is too narrow by
  sqrt((n - 1) / n), and takes normal where it should take t quantiles; with five replicates in one cell it covers the
  truth 83% of the time (docs/statistics.md). Expanded percentiles mend both (Hesterberg 2015, "What Teachers Should
  Know about the Bootstrap", section 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rliable import metrics
from scipy.special import ndtr, stdtrit

Float = NDArray[np.float64]
Statistic = Callable[[Float], Float]  # (..., R, C) -> (...)

RESAMPLES = 2000
EXPERT_SCORE = 100.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval; one replicate has no interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def separates_from(self, other: Estimate) -> bool:
        """Whether the two intervals have no point in common. Without an interval nothing separates."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return False
        return self.low > other.high or self.high < other.low


@dataclass(frozen=True)
class Resampling:
    """Bootstrap resamples of replicates, one draw for each stratum.

    Cells of one stratum (same task and dataset, different learners) were trained on the same augmented sets, so they
    are resampled together. With one cell a stratum this is rliable's stratified bootstrap.

    Attributes:
        indices: (B, R, G) replicates drawn in each of B resamples for each of G strata.
        strata: (C,) the stratum of each cell, 0 to G - 1.
    """

    indices: NDArray[np.int64]
    strata: NDArray[np.int64]

    @classmethod
    def draw(
        cls, replicates: int, strata: NDArray[np.int64], generator: np.random.Generator, resamples: int = RESAMPLES
    ) -> Resampling:
        """Draws with replacement, every replicate equally likely."""
        n_strata = int(strata.max()) + 1
        return cls(generator.integers(replicates, size=(resamples, replicates, n_strata)), strata)

    @property
    def replicates(self) -> int:
        """R, the number of independent replicates."""
        return int(self.indices.shape[1])

    def apply(self, scores: Float) -> Float:
        """The resampled scores, (R, C) -> (B, R, C)."""
        rows = self.indices[:, :, self.strata]  # (B, R, C)
        resampled: Float = np.take_along_axis(scores[None], rows, axis=1)  # (B, R, C)
        return resampled

    def counts(self) -> Float:
        """How often each replicate was drawn, (B, R, G)."""
        replicates = np.arange(self.replicates)
        drawn = self.indices[:, :, None, :] == replicates[:, None]  # (B, R, R, G)
        return np.asarray(drawn.sum(axis=1), dtype=np.float64)  # (B, R, G)

    @property
    def degrees_of_freedom(self) -> int:
        """G (R - 1): what the variance is estimated from."""
        return int(self.indices.shape[2]) * (self.replicates - 1)


def iqm(scores: Float) -> Float:
    """Mean of the middle half of all R x C scores (rliable's `aggregate_iqm`), (..., R, C) -> (...)."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = int(0.25 * flat.shape[-1])
    return np.asarray(flat[..., cut : flat.shape[-1] - cut].mean(axis=-1))


def median(scores: Float) -> Float:
    """Median over cells of the mean over replicates (rliable's `aggregate_median`), (..., R, C) -> (...)."""
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def mean(scores: Float) -> Float:
    """Mean of all scores (rliable's `aggregate_mean`), (..., R, C) -> (...)."""
    return np.asarray(scores.mean(axis=-2).mean(axis=-1))


def optimality_gap(scores: Float) -> Float:
    """How far scores fall short of the expert's 100 on average, better ones counted as 100, (..., R, C) -> (...)."""
    return np.asarray(EXPERT_SCORE - np.minimum(scores, EXPERT_SCORE).mean(axis=(-2, -1)))


_POINT: dict[Statistic, Callable[[Float], float]] = {
    iqm: metrics.aggregate_iqm,
    median: metrics.aggregate_median,
    mean: metrics.aggregate_mean,
    optimality_gap: lambda scores: metrics.aggregate_optimality_gap(scores, gamma=EXPERT_SCORE),
}


def estimate(scores: Float, statistic: Statistic, resampling: Resampling, *, expanded: bool = False) -> Estimate:
    """The aggregate of (R, C) scores with its interval: rliable's value, percentiles of the resampled values."""
    value = float(_POINT[statistic](scores))
    return with_interval(value, lambda: statistic(resampling.apply(scores)), resampling, expanded=expanded)


def paired_lift(scores: Float, baseline: Float, resampling: Resampling, statistic: Statistic = iqm) -> Estimate:
    """The aggregate of the differences to the partner runs, (R, C) each: same cell, same seed.

    A resampled seed brings its partner along. Differences of one statistic are not the statistic of the differences:
    the IQM here leaves out the cells and seeds with the most extreme differences, not with the most extreme scores.
    """
    return estimate(scores - baseline, statistic, resampling, expanded=True)


def probability_of_improvement(
    scores: Float, baseline: Float, resampling: Resampling, baseline_resampling: Resampling
) -> Estimate:
    """P(X > Y) + P(X = Y) / 2 for runs X, Y of the same cell, mean over cells (rliable, same name).

    As in rliable the two sides are independent samples: pairs are all R x R combinations, and each side is resampled
    on its own.
    """
    wins = np.sign(scores[:, None] - baseline[None]) / 2 + 0.5  # (R, R', C)
    value = float(wins.mean())

    def resampled() -> Float:
        left, right = resampling.counts(), baseline_resampling.counts()  # (B, R, G), (B, R', G)
        total = np.zeros(len(left))
        for column, stratum in enumerate(resampling.strata):
            total += (left[:, :, stratum] @ wins[:, :, column] * right[:, :, stratum]).sum(axis=1)
        return total / wins.size

    return with_interval(value, resampled, resampling)


def performance_profile(scores: Float, thresholds: Float, resampling: Resampling) -> list[Estimate]:
    """The share of runs that score more than each threshold, with pointwise intervals (rliable's profiles)."""
    above = (scores[:, :, None] > thresholds).astype(np.float64)  # (R, C, T)
    values = above.mean(axis=(0, 1))  # (T,)
    if resampling.replicates < 2:
        return [Estimate(float(value)) for value in values]
    n_strata = resampling.indices.shape[2]
    by_stratum = np.stack([above[:, resampling.strata == g].sum(axis=1) for g in range(n_strata)], axis=1)  # (R, G, T)
    resampled = np.einsum("brg,rgt->bt", resampling.counts(), by_stratum, optimize=True) / scores.size  # (B, T)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return [Estimate(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]


def cell_mean(scores: Float) -> Estimate:
    """The mean of the replicates of one cell, (R,), with Student's t interval; one replicate has none."""
    n = len(scores)
    value = float(scores.mean())
    if n < 2:
        return Estimate(value)
    half = float(stdtrit(n - 1, 0.975) * scores.std(ddof=1) / np.sqrt(n))
    return Estimate(value, value - half, value + half)


def with_interval(
    value: float, resampled: Callable[[], Float], resampling: Resampling, *, expanded: bool = False
) -> Estimate:
    """The value with percentiles of its resampled values; without an interval if there is one replicate only."""
    if resampling.replicates < 2:
        return Estimate(value)
    tail = expanded_tail(resampling.replicates, resampling.degrees_of_freedom) if expanded else 0.025
    low, high = np.percentile(resampled(), [100 * tail, 100 * (1 - tail)])
    return Estimate(value, float(low), float(high))


def expanded_tail(replicates: int, degrees_of_freedom: int) -> float:
    """Φ(−sqrt(n / (n − 1)) t), the mass below an expanded 95% percentile interval (Hesterberg 2015, 4.3)."""
    t = stdtrit(degrees_of_freedom, 0.975)
    return float(ndtr(-np.sqrt(replicates / (replicates - 1)) * t))


def tiers(estimates: Sequence[Estimate]) -> list[int | None]:
    """The tier of each estimate, 1 for the best; None without an interval.

    From the highest value down: whoever does not separate from the leader of the tier shares it, the first one that
    does opens the next tier and leads it.
    """
    order = sorted(
        (index for index, estimate in enumerate(estimates) if estimate.low is not None),
        key=lambda index: -estimates[index].value,
    )
    ranks: list[int | None] = [None] * len(estimates)
    leader, rank = None, 0
    for index in order:
        if leader is None or estimates[index].separates_from(estimates[leader]):
            leader, rank = index, rank + 1
        ranks[index] = rank
    return ranks
