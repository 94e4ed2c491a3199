"""Neighbours against brute force, and distances worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from methods.model_based_stitching import neighbours
from methods.model_based_stitching.neighbours import nearest_distances, nearest_rows


def by_brute_force(points: NDArray[np.float32], radius: float, limit: int) -> NDArray[np.int32]:
    found = np.full((len(points), limit), -1, dtype=np.int32)
    for i, point in enumerate(points.astype(np.float64)):
        distances = np.sqrt(((points - point) ** 2).sum(axis=1))
        others = [j for j in np.lexsort((np.arange(len(points)), distances)) if j != i and distances[j] <= radius]
        found[i, : min(limit, len(others))] = others[:limit]
    return found


@pytest.mark.parametrize("block", [7, 64, 512])
@pytest.mark.parametrize("radius", [0.0, 0.8, 2.0, np.inf])
def test_blocks_find_what_brute_force_finds(block: int, radius: float) -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(300, 4))
    points = (latent @ rng.normal(size=(4, 11))).astype(np.float32)  # four directions of eleven
    found = nearest_rows(points, radius, 5, block=block)
    np.testing.assert_array_equal(found, by_brute_force(points, radius, 5))


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=12),
    radius=st.sampled_from([0.0, 1.0, 1.5, 9.0]),
    limit=st.integers(1, 13),
    block=st.integers(1, 6),
)
def test_ties_and_repeated_rows_are_ordered_by_index(
    points: list[tuple[int, int]], radius: float, limit: int, block: int
) -> None:
    array = np.array(points, dtype=np.float32)
    np.testing.assert_array_equal(nearest_rows(array, radius, limit, block=block), by_brute_force(array, radius, limit))


def test_far_from_the_origin_near_rows_are_told_apart() -> None:
    points = np.zeros((40, 3), dtype=np.float32)
    points[:, 0] = np.arange(40) * 2e-3
    points[20:, 1] = 3000.0
    np.testing.assert_array_equal(nearest_rows(points, 5e-3, 6, block=8), by_brute_force(points, 5e-3, 6))


def test_rows_that_are_all_alike_and_a_single_row() -> None:
    alike = nearest_rows(np.ones((3, 2), dtype=np.float32), 0.0, 4)
    assert alike.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [0, 1, -1, -1]]
    assert nearest_rows(np.ones((1, 2), dtype=np.float32), 1.0, 2).tolist() == [[-1, -1]]


def test_memory_is_that_of_a_block_and_far_blocks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    squared = neighbours._Products.squared

    def noted(self: neighbours._Products, query: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        sizes.append(len(query) * len(other))
        return squared(self, query, other)

    monkeypatch.setattr(neighbours._Products, "squared", noted)
    points = np.arange(4096, dtype=np.float32)[:, None]
    nearest_rows(points, 2.0, 4, block=16)
    assert max(sizes) <= 4 * 16 * 16
    assert sum(sizes) < 4096 * 4096 / 50


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    points = np.zeros((10, 1), dtype=np.float32)
    nearest_rows(points, 1.0, 1, block=4, report=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_the_nearest_row_of_another_episode() -> None:
    points = np.array([[0.0], [0.1], [5.0], [6.5]], dtype=np.float32)
    episodes = np.array([0, 0, 1, 1])
    distances = nearest_distances(points, episodes, np.arange(4), block=3)
    np.testing.assert_allclose(distances, [5.0, 4.9, 4.9, 6.4], rtol=1e-6)
    alone = nearest_distances(points, np.zeros(4, dtype=np.int64), np.arange(4))
    np.testing.assert_allclose(alone, [0.1, 0.1, 1.5, 1.5], rtol=1e-6)
    assert nearest_distances(points[:1], episodes[:1], np.array([0])).tolist() == [np.inf]
