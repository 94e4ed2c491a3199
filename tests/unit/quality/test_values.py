import numpy as np
import pytest

from benchmark.quality import values
from benchmark.quality.family import central_histogram
from benchmark.quality.values import distance, spread_of


def test_distance_by_hand():
    """[0, 1, 3] to [5, 6, 8] is 5; the uneven pair: |F - F'| is 1/2 from 0 to 1 and from 1 to 4."""
    assert distance(np.array([0.0, 1, 3]), np.array([8.0, 5, 6]), 2.0) == pytest.approx(2.5)
    assert distance(np.array([0.0, 1.0]), np.array([1.0, 4.0]), 1.0) == pytest.approx(2.0)
    assert (spread_of(np.array([1.0, 5.0])), spread_of(np.full(3, 4.0))) == (2.0, 1.0)


def ending(episodes, team):
    """One episode of two steps with a true end and these team rewards."""
    data = episodes(np.zeros((1, 3, 3, 18)))
    end = np.array([False, True])
    rewards = np.array(team, dtype=np.float32)[:, None] / np.full((1, 3), data.spec.fold_rewards(np.ones((1, 3)))[0])
    return data.replace(rewards=rewards.astype(np.float32), terminals=end, truncations=~end & False)


def test_rewards_and_values_by_hand(subject, episodes):
    """Rewards 1, 2 against 0, 0. Values 1 + 0.99 · 2 = 2.98 and 2 against 0; what never varies has unit 1."""
    measured = values.measure(subject(ending(episodes, [0, 0]), ending(episodes, [1, 2])))
    reward, value = measured.metrics["reward_distance"], measured.metrics["value_distance"]
    assert (reward.value, reward.details["unit"]) == (pytest.approx(1.5), 1.0)
    assert (value.value, value.details["mean"]) == (pytest.approx(2.49), pytest.approx(2.49))
    assert value.details["whole_share"] == 1.0
    assert (reward.original, value.original) == (None, None)  # one episode has no halves
    assert measured.histograms["return_to_go"].synthetic[-1] == 1  # 2.98


def test_what_every_step_pays_more_shifts_both(subject, recorded):
    """A team reward that is 3 higher: values are higher by 3 (1 - γ^k) / (1 - γ) at k steps from the end, k = 1..25."""
    more = recorded.replace(rewards=recorded.rewards + np.float32(1.0))
    measured = values.measure(subject(recorded, more)).metrics
    shift = float((more.team_rewards() - recorded.team_rewards()).mean(dtype=np.float64))
    reward, value = measured["reward_distance"], measured["value_distance"]
    assert reward.value == pytest.approx(shift / recorded.team_rewards().std(dtype=np.float64), rel=1e-4)
    expected = shift * np.mean((1 - 0.99 ** np.arange(1, 26)) / 0.01) / recorded.returns_to_go(0.99).std()
    assert value.value == pytest.approx(expected, rel=1e-4)
    assert 0 < reward.original < 0.5
    assert 0 < value.original < 0.5
    same = values.measure(subject(recorded, recorded)).metrics
    assert (same["reward_distance"].value, same["value_distance"].value) == (0.0, 0.0)


def test_cut_episodes_have_rewards_and_no_values(subject, recorded, episodes):
    segments = episodes(np.zeros((4, 8, 3, 18)), rewards=2.0)
    measured = values.measure(subject(recorded, segments))
    assert measured.metrics["value_distance"].value is None
    assert measured.metrics["value_distance"].reason.startswith("100% of the synthetic episodes are cut short")
    assert measured.metrics["reward_distance"].value > 0
    assert set(measured.histograms) == {"step_reward"}


def test_of_episodes_that_run_their_course_alone(subject, recorded, episodes):
    """24 whole episodes and 16 segments: the segments' rewards are in no value."""
    from tasks.datasets.offline import concatenate

    mixed = concatenate([recorded.take(range(24)), episodes(np.zeros((16, 8, 3, 18)), rewards=1e6)])
    value = values.measure(subject(recorded, mixed)).metrics["value_distance"]
    assert value.details["whole_share"] == 0.6
    assert value.value < 1


def test_the_central_histogram_keeps_tails_in_its_end_bins():
    many = np.concatenate([np.linspace(0, 10, 1001), [1e6]])
    histogram = central_histogram(many, many, bins=10)
    assert histogram.edges[-1] < 11
    assert sum(histogram.original) == sum(histogram.synthetic) == 1002
    flat = central_histogram(np.zeros(5), np.zeros(5), bins=4)  # nothing varies: edges around the value
    assert sum(flat.original) == 5
