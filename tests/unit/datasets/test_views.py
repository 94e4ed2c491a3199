"""Batches against plain loops over the episodes."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.base import Task
from tasks.common.errors import DataError
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import padded_episodes, segments, transitions


def test_transitions_are_those_of_the_episodes(collected: OfflineDataset) -> None:
    batch = transitions(collected).gather(np.arange(collected.n_steps))
    step = 0
    for episode in collected.episodes():
        for t in range(len(episode["rewards"])):
            np.testing.assert_array_equal(batch.observations[step], episode["observations"][t])
            np.testing.assert_array_equal(batch.next_observations[step], episode["observations"][t + 1])
            np.testing.assert_array_equal(batch.actions[step], episode["actions"][t])
            np.testing.assert_array_equal(batch.rewards[step], episode["rewards"][t])
            assert batch.next_states is not None
            np.testing.assert_array_equal(batch.next_states[step], episode["states"][t + 1])
            assert batch.next_alive is not None
            np.testing.assert_array_equal(batch.next_alive[step], episode["alive"][t + 1])
            if batch.next_available_actions is not None:
                np.testing.assert_array_equal(batch.next_available_actions[step], episode["available_actions"][t + 1])
            assert batch.terminals[step] == episode["terminals"][t]
            step += 1
    assert step == len(transitions(collected))


def test_a_sample_is_uniform_and_repeats_with_its_seed(collected: OfflineDataset) -> None:
    marked = collected.replace(
        rewards=np.broadcast_to(np.arange(collected.n_steps, dtype=np.float32)[:, None], collected.rewards.shape)
    )
    view = transitions(marked)
    first, second = (view.sample(20_000, np.random.Generator(np.random.PCG64(1))) for _ in range(2))
    np.testing.assert_array_equal(first.rewards, second.rewards)
    counts = np.bincount(first.rewards[:, 0].astype(int), minlength=marked.n_steps)
    expected = 20_000 / marked.n_steps
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


@pytest.mark.parametrize(("horizon", "padded"), [(1, False), (3, False), (13, False), (1, True), (5, True), (30, True)])
def test_segments_are_windows_of_the_episodes(collected: OfflineDataset, horizon: int, padded: bool) -> None:
    view = segments(collected, horizon, padded=padded)
    window = 0
    for e, episode in enumerate(collected.episodes()):
        T = len(episode["rewards"])
        for offset in range(T if padded else max(0, T + 2 - horizon)):
            batch = view.gather(np.array([window]))
            assert (batch.episodes[0], batch.offsets[0]) == (e, offset)
            rows, steps = min(horizon, T + 1 - offset), min(horizon, T - offset)
            assert batch.row_valid[0].tolist() == [True] * rows + [False] * (horizon - rows)
            assert batch.step_valid[0].tolist() == [True] * steps + [False] * (horizon - steps)
            np.testing.assert_array_equal(batch.observations[0, :rows], episode["observations"][offset : offset + rows])
            np.testing.assert_array_equal(batch.actions[0, :steps], episode["actions"][offset : offset + steps])
            np.testing.assert_array_equal(batch.rewards[0, :steps], episode["rewards"][offset : offset + steps])
            assert not batch.observations[0, rows:].any()
            assert not batch.actions[0, steps:].any()
            assert not batch.terminals[0, steps:].any()
            window += 1
    assert window == len(view)


def test_no_window_crosses_an_episode(collected: OfflineDataset) -> None:
    batch = segments(collected, 4).sample(500, np.random.Generator(np.random.PCG64(0)))
    assert batch.row_valid.all()
    np.testing.assert_array_equal(
        batch.episodes, np.searchsorted(collected.row_starts[1:], _rows(collected, batch), "right")
    )


def _rows(data: OfflineDataset, batch: object) -> np.ndarray:
    return data.row_starts[batch.episodes] + batch.offsets + 3  # type: ignore[attr-defined]


def test_padded_episodes_hold_whole_episodes(collected: OfflineDataset) -> None:
    order = np.argsort(collected.lengths)[[0, -1]]
    batch = padded_episodes(collected, order)
    short, long = (int(collected.lengths[e]) for e in order)
    assert batch.observations.shape[1] == long + 1
    assert batch.row_valid.sum(axis=1).tolist() == [short + 1, long + 1]
    assert batch.step_valid.sum(axis=1).tolist() == [short, long]
    assert batch.rewards.sum() == pytest.approx(collected.take(order).rewards.sum(), rel=1e-5)


def test_what_is_not_there_is_refused(collected: OfflineDataset, task: Task) -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    with pytest.raises(DataError, match=f"no transition {collected.n_steps};"):
        transitions(collected).gather(np.array([0, collected.n_steps]))
    with pytest.raises(DataError, match="no transition -1;"):
        transitions(collected).gather(np.array([-1]))
    with pytest.raises(DataError, match=r"no episode has 99 observation rows; the longest has 13"):
        segments(collected, 99).sample(1, generator)
    with pytest.raises(DataError, match="segment of 0 rows"):
        segments(collected, 0)
    empty = OfflineDataset.empty(task.spec)
    assert (len(transitions(empty)), len(segments(empty, 2))) == (0, 0)
    with pytest.raises(DataError, match="is empty"):
        transitions(empty).sample(1, generator)
