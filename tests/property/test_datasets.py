"""What holds for every dataset of every task."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.datasets import store
from tasks.datasets.card import card_of_imported
from tasks.datasets.offline import OfflineDataset, concatenate
from tasks.datasets.subsample import Subsample, subsample, take_transitions
from tasks.datasets.views import segments, transitions
from tests.strategies import datasets

fast = settings(max_examples=60, deadline=None)


def assert_same(first: OfflineDataset, second: OfflineDataset) -> None:
    assert first.spec == second.spec
    assert first.columns().keys() == second.columns().keys()
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name], err_msg=name)
        assert column.dtype == second.columns()[name].dtype


@fast
@given(data=datasets())
def test_every_drawn_dataset_is_valid(data: OfflineDataset) -> None:
    data.validate()


@fast
@given(data=datasets())
def test_saving_and_loading_changes_nothing(data: OfflineDataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        card = store.save(data, card_of_imported(data, dataset="x", regime="x", origin="x"), path)
        assert_same(store.load(path), data)
        assert store.load_card(path) == card
        store.verify_checksum(path)


@fast
@given(data=datasets(min_episodes=1), source=st.data())
def test_taking_parts_and_joining_them_is_taking_all(data: OfflineDataset, source: st.DataObject) -> None:
    order = source.draw(st.lists(st.integers(0, data.n_episodes - 1), max_size=8))
    cut = source.draw(st.integers(0, len(order)))
    whole = data.take(order)
    whole.validate()
    assert_same(concatenate([data.take(order[:cut]), data.take(order[cut:])]), whole)
    np.testing.assert_allclose(whole.returns(), data.returns()[order], rtol=1e-4, atol=1e-3)


@fast
@given(data=datasets())
def test_taking_all_in_order_changes_nothing(data: OfflineDataset) -> None:
    assert_same(data.take(range(data.n_episodes)), data)
    assert_same(data.repeat(1), data)


@fast
@given(data=datasets(), discount=st.floats(0, 1))
def test_returns_to_go_agree_with_a_loop(data: OfflineDataset, discount: float) -> None:
    expected = np.zeros(data.n_steps)
    for start, end in zip(data.episode_starts[:-1], data.episode_starts[1:], strict=True):
        total = 0.0
        for step in reversed(range(start, end)):
            total = float(data.team_rewards()[step]) + discount * total
            expected[step] = total
    np.testing.assert_allclose(data.returns_to_go(discount), expected, rtol=1e-9, atol=1e-9)


@fast
@given(
    data=datasets(min_episodes=1), fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), seed=st.integers(0, 9)
)
def test_smaller_subsamples_lie_in_larger_ones(data: OfflineDataset, fractions: tuple[float, float], seed: int) -> None:
    numbered = data.replace(rewards=np.broadcast_to(np.float32(data.episode_of_step())[:, None], data.rewards.shape))
    small, large = (
        set(subsample(numbered, Subsample(fraction=fraction), seed).rewards[:, 0].tolist())
        for fraction in sorted(fractions)
    )
    assert small <= large
    assert len(small) == int(np.ceil(min(fractions) * data.n_episodes - 1e-9))


@fast
@given(data=datasets(min_episodes=1), source=st.data())
def test_the_shortest_prefix_reaches_the_transitions(data: OfflineDataset, source: st.DataObject) -> None:
    wanted = source.draw(st.integers(1, data.n_steps))
    kept = subsample(data, Subsample(transitions=wanted), 0)
    assert wanted <= kept.n_steps < wanted + data.lengths.max()
    exact = subsample(data, Subsample(transitions=wanted, unit="transition"), 0)
    assert (exact.n_steps, exact.n_episodes) == (wanted, wanted)
    exact.validate()


@fast
@given(data=datasets(min_episodes=1))
def test_independent_transitions_keep_both_observations(data: OfflineDataset) -> None:
    steps = np.arange(data.n_steps)[::-1].copy()
    single, batch = (
        transitions(take_transitions(data, steps)).gather(np.arange(data.n_steps)),
        transitions(data).gather(steps),
    )
    np.testing.assert_array_equal(single.observations, batch.observations)
    np.testing.assert_array_equal(single.next_observations, batch.next_observations)
    np.testing.assert_array_equal(single.terminals, batch.terminals)
    np.testing.assert_array_equal(single.truncations, ~batch.terminals)


@fast
@given(data=datasets(min_episodes=1), horizon=st.integers(1, 10))
def test_padded_segments_start_at_every_step(data: OfflineDataset, horizon: int) -> None:
    view = segments(data, horizon, padded=True)
    batch = view.gather(np.arange(len(view)))
    np.testing.assert_array_equal(batch.rewards[:, 0], data.rewards)
    np.testing.assert_array_equal(batch.observations[:, 0], data.observations[data.row_of_step()])
