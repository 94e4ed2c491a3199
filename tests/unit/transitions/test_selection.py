"""Which candidates are kept."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.transitions.selection import candidates_for, selected
from tasks.common.errors import UsageError


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@given(st.integers(1, 10_000_000), st.floats(0.01, 1.0))
def test_the_kept_fraction_of_the_candidates_is_enough(amount: int, eta: float) -> None:
    count = candidates_for(amount, eta)
    assert count >= amount
    assert eta * (count - 1) < amount + 1e-6


def test_five_million_take_six_and_a_quarter() -> None:
    assert candidates_for(5_000_000, 0.8) == 6_250_000


def test_topk_keeps_as_many_as_asked_and_none_below_what_it_drops() -> None:
    values = rng(0).normal(size=1000)
    kept = selected(values, 800, "topk", None, rng(1))
    assert len(np.unique(kept)) == math.floor(0.8 * 1000)
    dropped = np.setdiff1d(np.arange(1000), kept)
    assert values[kept].min() >= values[dropped].max()
    assert (np.diff(kept) > 0).all()


def test_none_keeps_the_first() -> None:
    assert selected(rng(0).normal(size=10), 4, "none", None, rng(1)).tolist() == [0, 1, 2, 3]


def test_softmax_draws_without_replacement_in_proportion_to_the_exponentials() -> None:
    """Pairs of four: p(i, then j) = p_i p_j / (1 − p_i), in either order."""
    values = np.array([0.0, 0.5, 1.0, 2.0])
    p = np.exp(values) / np.exp(values).sum()
    generator, draws = rng(2), 40_000
    found = Counter(tuple(selected(values, 2, "softmax", 1.0, generator).tolist()) for _ in range(draws))
    for i, j in itertools.combinations(range(4), 2):
        wanted = p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])
        assert found[i, j] / draws == pytest.approx(wanted, abs=0.01)


def test_values_are_compared_in_units_of_their_deviation_unless_told_otherwise() -> None:
    values = rng(3).normal(size=500)
    small, large = (selected(values * scale, 250, "softmax", None, rng(4)) for scale in (1.0, 1000.0))
    assert np.array_equal(small, large)
    literal = selected(values * 1000, 250, "softmax", 1.0, rng(4))
    assert np.isin(literal, selected(values, 250, "topk", None, rng(4))).mean() > 0.98


def test_equal_values_are_drawn_uniformly() -> None:
    kept = [selected(np.full(4, 7.0), 1, "softmax", None, rng(seed))[0] for seed in range(400)]
    assert min(Counter(kept).values()) > 60


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="softmax or topk or none"):
        selected(np.zeros(3), 2, "best", None, rng(0))
