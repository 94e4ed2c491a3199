from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from factory import matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leaderboard import statistics
from leaderboard.coverage import FILE, SHAPES, Coverage, as_markdown, simulate
from leaderboard.statistics import Estimate, Resampling, tiers
from tasks.common.seeding import make_generator

ROOT = Path(__file__).parents[3]
KINDS = ("percentile", "expanded", "apart")
SCORES = arrays(
    np.float64, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=st.integers(-200, 200).map(lambda k: k / 4)
)
STATISTICS = [statistics.iqm, statistics.median, statistics.mean, statistics.optimality_gap]


def draw(scores: np.ndarray, seed: int = 0, strata: list[int] | None = None, resamples: int = 500) -> Resampling:
    groups = np.arange(scores.shape[1]) if strata is None else np.array(strata)
    return Resampling.draw(len(scores), groups, make_generator("test", seed), resamples)


def test_aggregates_worked_by_hand() -> None:
    scores = matrix([[0, 10, 200], [20, 30, 40]])
    # Sorted 0 10 20 30 40 200; a quarter of 6 is 1.5, so one leaves at each end: mean(10, 20, 30, 40) = 25.
    assert statistics.iqm(scores) == 25
    assert statistics.median(scores) == 20  # of the cell means 10, 20, 120
    assert statistics.mean(scores) == 50
    # 200 counts as 100: 100 − (0 + 10 + 100 + 20 + 30 + 40) / 6 = 66.67
    assert statistics.optimality_gap(scores) == pytest.approx(100 - 200 / 6)


def test_probability_of_improvement_worked_by_hand() -> None:
    scores, baseline = matrix([[1, 5], [3, 5]]), matrix([[2, 5], [0, 9]])
    # Cell 1: (1,2) lost, (1,0) won, (3,2) won, (3,0) won: 3/4. Cell 2: a tie and a loss, twice: 1/4.
    draws = draw(scores)
    assert statistics.probability_of_improvement(scores, baseline, draws, draws).value == 0.5


def test_profile_worked_by_hand() -> None:
    profile = statistics.performance_profile(
        matrix([[0, 10], [20, 30]]), np.array([-1.0, 10.0, 30.0]), draw(matrix([[0, 0], [0, 0]]))
    )
    assert [estimate.value for estimate in profile] == [1.0, 0.5, 0.0]
    assert (profile[0].low, profile[0].high) == (1.0, 1.0)


def test_cell_mean_worked_by_hand() -> None:
    estimate = statistics.cell_mean(np.array([1.0, 2, 3, 4, 5]))
    half = 2.776445 * np.sqrt(2.5) / np.sqrt(5)  # t(0.975, 4) s / sqrt(n)
    assert (estimate.low, estimate.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_two_calls_agree_to_the_last_bit_and_global_state_does_not_matter() -> None:
    scores = make_generator("scores").normal(size=(5, 6))
    first = statistics.estimate(scores, statistics.iqm, draw(scores))
    np.random.seed(1)  # noqa: NPY002  the generator that rliable would have drawn from
    assert statistics.estimate(scores, statistics.iqm, draw(scores)) == first
    assert statistics.estimate(scores, statistics.iqm, draw(scores, seed=1)) != first


def test_one_replicate_has_no_interval() -> None:
    scores = matrix([[1, 2, 3]])
    draws = draw(scores)
    for statistic in STATISTICS:
        assert statistics.estimate(scores, statistic, draws).low is None
    assert statistics.paired_lift(scores, scores, draws) == Estimate(0.0)
    assert statistics.probability_of_improvement(scores, scores, draws, draws).high is None
    assert statistics.performance_profile(scores, np.array([0.0]), draws) == [Estimate(1.0)]
    assert statistics.cell_mean(scores[:, 0]) == Estimate(1.0)


def test_a_stratum_is_resampled_as_one() -> None:
    scores = make_generator("scores").normal(size=(5, 1)).repeat(2, axis=1)
    together = draw(scores, strata=[0, 0]).apply(scores)
    np.testing.assert_array_equal(together[..., 0], together[..., 1])
    apart = draw(scores).apply(scores)
    assert (apart[..., 0] != apart[..., 1]).any()


def test_shared_augmented_sets_give_wider_intervals_than_independent_ones() -> None:
    scores = make_generator("scores").normal(size=(5, 1)).repeat(8, axis=1)
    shared, independent = (
        statistics.estimate(scores, statistics.mean, draw(scores, strata=s)) for s in ([0] * 8, None)
    )
    assert width(shared) > 2 * width(independent)  # sqrt(8) = 2.8


def test_lift_resamples_partners_jointly() -> None:
    baseline = make_generator("baseline").normal(size=(5, 4)) * 50
    lift = statistics.paired_lift(baseline + 7, baseline, draw(baseline))
    assert (lift.value, lift.low, lift.high) == (pytest.approx(7), pytest.approx(7), pytest.approx(7))


def test_expanded_tail_is_hesterbergs() -> None:
    # n = 5, one cell: sqrt(5/4) × t(0.975, 4) = 1.1180 × 2.7764 = 3.1042, and Φ(−3.1042) = 0.00095
    assert statistics.expanded_tail(5, 4) == pytest.approx(0.000954, abs=2e-6)
    assert statistics.expanded_tail(10_000, 9_999) == pytest.approx(0.025, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(scores=SCORES, shift=st.integers(-80, 80))
def test_lift_and_aggregates_move_with_the_scores(scores: np.ndarray, shift: int) -> None:
    draws = draw(scores, resamples=50)
    zero = np.zeros_like(scores)
    for statistic in (statistics.iqm, statistics.median, statistics.mean):
        before, after = (statistics.estimate(s, statistic, draws) for s in (scores, scores + shift))
        assert as_array(after) == pytest.approx(as_array(before) + shift)
    before, after = (statistics.paired_lift(s, zero, draws) for s in (scores, scores + shift))
    assert as_array(after) == pytest.approx(as_array(before) + shift)
    assert as_array(statistics.paired_lift(-scores, zero, draws))[0] == pytest.approx(-before.value)


@settings(deadline=None, max_examples=50)
@given(scores=SCORES, other=st.integers(-80, 80))
def test_probability_of_improvement_is_a_probability_and_antisymmetric(scores: np.ndarray, other: int) -> None:
    draws, rival = draw(scores, resamples=50), np.roll(scores, 1, axis=0) + other
    forward = statistics.probability_of_improvement(scores, rival, draws, draws)
    backward = statistics.probability_of_improvement(rival, scores, draws, draws)
    assert forward.value + backward.value == pytest.approx(1.0)
    assert forward.low is not None
    assert forward.high is not None
    assert 0 <= forward.low <= forward.high <= 1


@settings(deadline=None, max_examples=50)
@given(scores=SCORES)
def test_profiles_fall_from_one_to_zero(scores: np.ndarray) -> None:
    values = [
        e.value
        for e in statistics.performance_profile(scores, np.array([-51.0, -10, 0, 10, 51]), draw(scores, resamples=20))
    ]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (1, 0)


def test_tiers_share_what_does_not_separate_from_the_leader() -> None:
    winner, close, middle, wide, last = (
        Estimate(10, 9, 11),
        Estimate(8, 7, 9.5),
        Estimate(6, 5.5, 6.5),  # separates from the winner: opens tier 2
        Estimate(5, 1, 9.2),  # reaches the winner, but stands below a method that does not: tier 2
        Estimate(-1, -2, 0),
    )
    assert tiers([last, wide, middle, winner, close]) == [3, 2, 2, 1, 1]


def test_without_intervals_there_are_no_tiers() -> None:
    assert tiers([Estimate(1.0), Estimate(5.0)]) == [None, None]
    assert not Estimate(1.0).separates_from(Estimate(9.0, 8.0, 10.0))


@pytest.mark.parametrize(("n", "pairs", "least"), [(5, 1, 0.85), (5, 4, 0.88)])
def test_lift_intervals_cover_the_truth(n: int, pairs: int, least: float) -> None:
    coverage = simulate(n, pairs, suites=200, resamples=300)
    assert coverage.expanded > least
    assert coverage.expanded >= coverage.percentile > coverage.apart - 0.05


def test_the_documentation_has_the_coverage_that_was_simulated() -> None:
    with (ROOT / "results" / FILE).open(newline="") as file:
        stored = [Coverage(int(r["n"]), int(r["pairs"]), *(float(r[k]) for k in KINDS)) for r in csv.DictReader(file)]
    page = (ROOT / "docs" / "statistics.md").read_text().splitlines()
    assert [(row.n, row.pairs) for row in stored] == SHAPES
    assert set(as_markdown(stored)) <= set(page)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def as_array(estimate: Estimate) -> np.ndarray:
    return np.array([estimate.value, estimate.low, estimate.high])
