import numpy as np
import pytest

from benchmark.quality import coverage
from benchmark.quality.coverage import cells, fit_plane, share_met
from benchmark.quality.subject import UndefinedError

A, B, C = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, -1, -1, 1]], dtype=np.float64)


def test_the_plane_by_hand():
    """Three columns are A, two are B, one is C, each standardised: variances 3, 2 and 1, of which two axes show 5."""
    plane = fit_plane(np.stack([A, 10 * A + 5, -2 * A, B, 3 * B, C, np.full(4, 7.0)], axis=1))
    assert np.abs(plane.axes[:, 0]) == pytest.approx(np.array([1, 1, 1, 0, 0, 0, 0]) / np.sqrt(3), abs=1e-9)
    assert np.abs(plane.axes[:, 1]) == pytest.approx(np.array([0, 0, 0, 1, 1, 0, 0]) / np.sqrt(2), abs=1e-9)
    assert plane.explained == pytest.approx(5 / 6)
    where = plane.points(np.array([[2.0, 25.0, -4.0, 0.0, 0.0, 9.0, -3.0]]))  # 2 A; C and a constant do not show
    assert np.abs(where) == pytest.approx(np.array([[2 * np.sqrt(3), 0.0]]), abs=1e-9)


@pytest.mark.parametrize("shape", [(300, 20), (12, 40), (5, 3), (3, 8)])
def test_the_plane_agrees_with_a_full_decomposition(shape):
    columns = np.random.default_rng(1).normal(size=shape) @ np.diag(np.linspace(1, 9, shape[1]))
    standard = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    _, sizes, rows = np.linalg.svd(standard, full_matrices=False)
    plane = fit_plane(columns)
    assert np.abs((plane.axes.T * rows[:2]).sum(axis=1)) == pytest.approx(1.0)
    assert plane.explained == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum())
    assert (plane.axes[np.abs(plane.axes).argmax(axis=0), [0, 1]] > 0).all()
    assert np.array_equal(fit_plane(columns).axes, plane.axes)


def test_a_plane_needs_two_columns_that_vary():
    with pytest.raises(UndefinedError, match="fewer than two columns"):
        fit_plane(np.stack([A, np.ones(4)], axis=1))


def test_cells_by_hand():
    points = np.array([[0, 0], [1.9, 1.9], [2, 0], [4, 2], [4.1, 1], [1, -0.1]], dtype=np.float64)
    assert cells(points, np.zeros(2), np.array([4.0, 2.0]), 2).tolist() == [0, 1, 2, 3, -1, -1]


def test_points_outside_meet_nobody():
    assert share_met(np.array([0, 0, 1, -1]), np.array([1, -1, 3])) == 0.25
    assert share_met(np.array([1, -1, 3]), np.array([0, 0, 1, -1])) == pytest.approx(1 / 3)


def placed(episodes, x, y):
    """One episode in which two features of agent 0 are x and one is y: the axes of the map are x and y."""
    observations = np.zeros((1, len(x) + 1, 3, 18), dtype=np.float32)
    observations[0, :-1, 0, 0] = observations[0, :-1, 0, 1] = x
    observations[0, :-1, 0, 2] = y
    return episodes(observations)


def test_shares_by_hand(subject, episodes):
    """64 points on 4 x 4 places, so 2 x 2 cells. The synthetic ones: 48 in the lower half of x, 16 beyond it."""
    x, y = np.tile(np.repeat(range(4), 4), 4), np.tile(range(4), 16)
    original = placed(episodes, x, y)
    measured = coverage.measure(subject(original, placed(episodes, np.where(x < 3, x % 2, 5), y))).metrics
    assert measured["covered_share"].value == 0.5
    assert measured["inside_share"].value == 0.75
    assert measured["covered_share"].original is None  # one episode has no halves
    assert measured["covered_share"].details == {
        "explained_variance": pytest.approx(1.0),
        "cells_a_side": 2,
        "points": 64,
    }


def test_copies_cover_everything_and_one_point_hardly_anything(subject, recorded):
    copied = coverage.measure(subject(recorded, recorded)).metrics
    # Of 1,000 steps only as many as a half has are drawn, of either dataset: not quite the same ones.
    assert copied["covered_share"].details["points"] == 500
    assert copied["covered_share"].value > 0.95
    assert 0.8 < copied["covered_share"].original <= 1
    frozen = recorded.replace(
        observations=np.repeat(recorded.observations[:1], len(recorded.observations), axis=0),
        actions=np.repeat(recorded.actions[:1], recorded.n_steps, axis=0),
    )
    measured = coverage.measure(subject(recorded, frozen)).metrics
    assert (measured["covered_share"].value < 0.3, measured["inside_share"].value) == (True, 1.0)
    away = coverage.measure(subject(recorded, recorded.replace(observations=recorded.observations + 50))).metrics
    assert (away["covered_share"].value, away["inside_share"].value) == (0.0, 0.0)
