import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.base import UnsupportedError
from methods.synthesis.emit import (
    as_transitions,
    distinct_episodes,
    sampled_episodes,
    tiled_episodes,
    until_amount,
)
from tasks.common.seeding import make_generator


def test_until_amount_stops_at_the_episode_that_reaches_it() -> None:
    lengths = np.array([3, 2, 4])
    assert [until_amount(lengths, amount) for amount in (0, 1, 3, 4, 5, 6, 9)] == [0, 1, 1, 2, 2, 3, 3]


def test_tiling_repeats_whole_copies_in_order_then_a_random_rest() -> None:
    data = sample_dataset("continuous", episodes=10)  # 60 steps
    rng = make_generator("test", 0)
    assert tiled_episodes(data, None, 2, rng).tolist() == [*range(10), *range(10)]
    episodes = tiled_episodes(data, 60 * 2 + 7, 1, rng)
    assert episodes[:20].tolist() == [*range(10), *range(10)]
    rest = episodes[20:]
    assert len(rest) == 2  # 7 steps are two episodes of 6
    drawn = [tuple(tiled_episodes(data, 12, 1, make_generator("test", seed))) for seed in range(20)]
    assert len(set(drawn)) > 5  # not always the front
    assert all(len(set(pair)) == 2 for pair in drawn)  # no episode twice


def test_sampling_with_replacement_reaches_the_amount_and_no_more() -> None:
    data = sample_dataset("discrete", episodes=10)
    for amount in (1, 10, 500):
        episodes = sampled_episodes(data, amount, make_generator("test", amount))
        lengths = data.lengths[episodes]
        assert lengths.sum() >= amount > lengths[:-1].sum()
    assert len(sampled_episodes(data.take([]), 10, make_generator("test", 0))) == 0


def test_distinct_episodes_are_distinct_or_an_error() -> None:
    data = sample_dataset("continuous", episodes=10)
    episodes = distinct_episodes(data, 31, make_generator("test", 1), "oracle")
    assert len(episodes) == len(set(episodes.tolist())) == 6
    assert distinct_episodes(data, None, make_generator("test", 1), "oracle").tolist() == list(range(10))
    with pytest.raises(UnsupportedError, match=r"must return 61 transitions .* only 60 more"):
        distinct_episodes(data, 61, make_generator("test", 1), "oracle")


@pytest.mark.parametrize("shape", ["continuous", "states-and-deaths"])
def test_as_transitions_keeps_both_observations_of_each_step(shape: str) -> None:
    data = sample_dataset(shape, episodes=6)
    steps = np.array([0, data.n_steps - 1, 4, 4])
    single = as_transitions(data, steps)
    single.validate()
    rows = data.row_of_step()[steps]
    np.testing.assert_array_equal(single.observations[0::2], data.observations[rows])
    np.testing.assert_array_equal(single.observations[1::2], data.observations[rows + 1])
    np.testing.assert_array_equal(single.rewards, data.rewards[steps])
    np.testing.assert_array_equal(single.terminals, data.terminals[steps])
    assert not single.truncations.any()  # only a true end carries a flag
    assert single.lengths.tolist() == [1, 1, 1, 1]
    assert single.behaviour is None
