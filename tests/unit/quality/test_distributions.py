import numpy as np
import pytest
from scipy.stats import ks_2samp, spearmanr

from benchmark.quality import distributions
from benchmark.quality.distributions import column_names, correlation_similarity, ks_distances, rank_correlations


def test_ks_distance_by_hand():
    first = np.array([[1.0], [2.0], [3.0], [4.0]])
    second = np.array([[3.0], [4.0], [5.0], [6.0]])
    assert ks_distances(first, second) == pytest.approx([0.5])  # at 2.x: F = 1/2, G = 0
    assert ks_distances(first, first) == pytest.approx([0.0])
    assert ks_distances(np.zeros((3, 1)), np.ones((5, 1))) == pytest.approx([1.0])


def test_ks_distance_agrees_with_scipy_on_ties():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (60, 3)).astype(float), rng.integers(1, 7, (47, 3)).astype(float)
    expected = [ks_2samp(first[:, i], second[:, i]).statistic for i in range(3)]
    assert ks_distances(first, second) == pytest.approx(expected)


def test_rank_correlation_by_hand_and_beside_a_constant():
    columns = np.array([[1.0, 10.0, 7.0], [2.0, 1000.0, 7.0], [3.0, 100.0, 7.0]])  # ranks 1 2 3 and 1 3 2
    correlations = rank_correlations(columns)
    assert correlations[0, 1] == pytest.approx(0.5)  # 1 - 6 · 2 / (3 · 8)
    assert correlations[0, 2] == 0.0


def test_rank_correlation_agrees_with_scipy_on_ties():
    columns = np.random.default_rng(1).integers(0, 4, (50, 3)).astype(float)
    assert rank_correlations(columns) == pytest.approx(spearmanr(columns).statistic)


def test_correlation_similarity_by_hand():
    rising = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    falling = rising * [1.0, -1.0]
    assert correlation_similarity(rising, falling) == pytest.approx((0.0, 2.0))  # ρ = 1 against -1
    assert correlation_similarity(rising, rising**3) == pytest.approx((1.0, 0.0))


def test_one_disturbed_column_is_found(subject, recorded, spread):
    moved = recorded.actions.copy()
    moved[:, 1, 0] = 1.0  # agent 1 always pushes to the right
    measured = distributions.measure(subject(recorded, recorded.replace(actions=moved)))
    similarity, correlation = measured.metrics["similarity"], measured.metrics["correlation"]
    assert similarity.details["largest_distance_of"] == "agent 1: action x"
    columns = len(column_names(spread.spec))
    assert columns == 54 + 6 + 1 + 54
    assert similarity.value == pytest.approx(1 - similarity.details["largest_distance"] / columns)
    assert correlation.value < 1.0
    assert 0.8 < similarity.original < 1.0  # two halves of 40 episodes
