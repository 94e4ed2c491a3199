"""How rewards of a step, and what an episode still pays from a step on, are distributed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from benchmark.quality.family import Family, Measured, central_histogram
from benchmark.quality.report import Measurement, PairedHistogram
from benchmark.quality.subject import SAMPLED, Subject, Which, some
from tasks.datasets.offline import OfflineDataset

Values = NDArray[np.floating[Any]]

DISCOUNT = 0.99
"""γ of the papers' learners."""

WHOLE = 0.5
"""Where fewer of the synthetic episodes run their course, there are no values to compare."""

BINS = 40


def measure(subject: Subject) -> Measured:
    """`reward_distance` and `value_distance`, and the histograms `step_reward` and `return_to_go`.

    Both are first Wasserstein distances between the distributions of the original and the synthetic data, in standard
    deviations of the original values (1 where they never vary): ∫ |F(x) - F'(x)| dx / σ. # inferred
    Of the original data: the distance of one half of the episodes to the other.

    The value of a step is its discounted return-to-go as the data claim it, Σ_{t' >= t} γ^{t' - t} r_{t'}, γ = 0.99,
    the Q that EAQ (Sec. 3.2) learns from. Only episodes count that end or reach the time limit: what a segment that
    is cut short would still earn is unknown. INS (Fig. A3) shows what a policy trained on the data earns instead.
    """
    rewards, values = _rewards(subject), _values(subject)
    metrics = {"reward_distance": rewards[0], "value_distance": values[0]}
    return Measured(metrics, {**rewards[1], **values[1]})


FAMILY = Family(("reward_distance", "value_distance"), measure)

Told = tuple[Measurement, dict[str, PairedHistogram]]
Halves = tuple[Values, Values] | None


def distance(original: Values, synthetic: Values, scale: float) -> float:
    """W_1 between samples (M_1,) and (M_2,), in units of `scale`."""
    return float(wasserstein_distance(original, synthetic)) / scale


def spread_of(values: Values) -> float:
    """Their standard deviation, 1 where they never vary."""
    deviation = float(np.std(values, dtype=np.float64))
    return deviation if deviation > 1e-8 else 1.0


def whole(data: OfflineDataset) -> NDArray[np.bool_]:
    """(E,) which episodes end or reach the time limit."""
    return np.asarray(data.terminals[data.episode_starts[1:] - 1] | (data.lengths >= data.spec.episode_limit))


def _rewards(subject: Subject) -> Told:
    fold = subject.task.spec.fold_rewards
    real, made = (fold(subject.sampled[which].rewards) for which in _BOTH)
    halves: Halves = None
    if subject.halves is not None:
        team = subject.original.team_rewards()
        halves = team[subject.halves[0]], team[subject.halves[1]]
    return _compared(real, made, halves), {"step_reward": central_histogram(real, made, BINS)}


def _values(subject: Subject) -> Told:
    count = {which: whole(subject.data(which)) for which in _BOTH}
    for which in _BOTH:
        if (share := float(count[which].mean())) < WHOLE:
            return Measurement.undefined(
                f"{1 - share:.0%} of the {which} episodes are cut short, and what they would still earn is unknown"
            ), {}
    to_go = {which: subject.data(which).returns_to_go(DISCOUNT) for which in _BOTH}  # (S,)
    of_whole = {which: count[which][subject.data(which).episode_of_step()] for which in _BOTH}  # (S,)
    real, made = (
        to_go[which][some(np.flatnonzero(of_whole[which]), SAMPLED, subject.generator(f"{which} values"))]
        for which in _BOTH
    )
    halves: Halves = None
    if subject.halves is not None:
        first, second = (half[of_whole["original"][half]] for half in subject.halves)
        halves = to_go["original"][first], to_go["original"][second]
    told = {"whole_share": float(count["synthetic"].mean())}
    return _compared(real, made, halves, told), {"return_to_go": central_histogram(real, made, BINS)}


def _compared(real: Values, made: Values, halves: Halves, told: Mapping[str, float] | None = None) -> Measurement:
    scale = spread_of(real)
    return Measurement(
        value=distance(real, made, scale),
        original=distance(*halves, scale) if halves is not None and all(half.size for half in halves) else None,
        details={
            "unit": scale,
            "mean": float(made.mean(dtype=np.float64)),
            "original_mean": float(real.mean(dtype=np.float64)),
            **(told or {}),
        },
    )


_BOTH: tuple[Which, Which] = ("original", "synthetic")
