import numpy as np
import pytest

from benchmark.quality import novelty
from benchmark.quality.novelty import nearest_distances
from benchmark.quality.novelty import recorded as is_recorded


def test_nearest_distance_by_hand():
    reference = np.array([[0, 0], [3, 4], [10, 0]], dtype=np.float32)
    queries = np.array([[3, 3], [0, 0], [8, 0]], dtype=np.float32)
    assert nearest_distances(queries, reference).tolist() == [1.0, 0.0, 4.0]


def test_strangers_alone_are_neighbours():
    points = np.array([[0], [1], [5], [6]], dtype=np.float32)
    groups = np.array([0, 0, 1, 1])
    assert nearest_distances(points, points, (groups, groups)).tolist() == [25.0, 16.0, 16.0, 25.0]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    reference, queries = rng.normal(size=(300, 4)), rng.normal(size=(20, 4))
    expected = ((queries[:, None] - reference) ** 2).sum(-1).min(1)
    monkeypatch.setattr(novelty, "BLOCK", 20 * 7)
    found = nearest_distances(queries.astype(np.float32), reference.astype(np.float32))
    assert found == pytest.approx(expected, rel=1e-4)


def test_copies_are_not_new_and_shifted_actions_are(subject, recorded):
    assert novelty.measure(subject(recorded, recorded)).metrics["novelty"].value == 0.0
    shifted = recorded.replace(actions=recorded.actions * np.float32(0.5))
    measured = novelty.measure(subject(recorded, shifted)).metrics
    assert 0 < measured["novelty"].value < measured["novelty"].original  # the original: another episode's nearest
    assert measured["new_row_share"].value == 0.0  # observations are as they were


def test_rows_count_as_recorded_up_to_rounding():
    reference = np.random.default_rng(0).uniform(-1, 1, (500, 6)).astype(np.float32)
    rounded = reference + np.random.default_rng(1).uniform(-2e-5, 2e-5, reference.shape).astype(np.float32)
    assert is_recorded(rounded, reference).mean() > 0.985
    assert not is_recorded(reference + np.float32(0.002), reference).any()


def test_share_of_new_rows_by_agent(subject, recorded):
    moved = recorded.observations.copy()
    moved[:, 1] += np.float32(0.01)  # one agent of three
    assert novelty.measure(subject(recorded, recorded.replace(observations=moved))).metrics[
        "new_row_share"
    ].value == pytest.approx(1 / 3)
