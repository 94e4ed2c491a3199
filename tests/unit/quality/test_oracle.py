import numpy as np
import pytest

from benchmark.quality import oracle
from benchmark.quality.subject import UndefinedError
from tasks.common.errors import UsageError


def test_recorded_transitions_are_confirmed(subject, recorded):
    measured = oracle.measure(subject(recorded, recorded)).metrics
    assert measured["reward_mse"].value < 1e-9
    assert measured["dynamics_mse"].value < 1e-12
    assert measured["oracle_reward"].value == pytest.approx(float(recorded.team_rewards().mean()), rel=1e-5)


def test_wrong_rewards_are_found_and_the_true_ones_paid(subject, recorded):
    inflated = recorded.replace(rewards=recorded.rewards + np.float32(2.0))  # 6 for a team of three
    measured = oracle.measure(subject(recorded, inflated)).metrics
    assert measured["reward_mse"].value == pytest.approx(36.0, rel=1e-4)
    assert measured["oracle_reward"].value == pytest.approx(measured["oracle_reward"].original)
    assert measured["dynamics_mse"].value < 1e-12


def test_dynamics_error_is_in_standard_deviations(subject, recorded, spread):
    """One feature of one agent off by one standard deviation at every row: 1 of 54 entries, squared error 1."""
    column = spread.spec.observation_features.index("landmark_0_offset_x")
    start = recorded.row_of_step()
    scale = recorded.observations[start, 2, column].std(dtype=np.float64)
    moved = recorded.observations.copy()
    moved[:, 2, column] += np.float32(scale)  # agent 2's view of a landmark: `restore` reads agent 0's
    measured = oracle.measure(subject(recorded, recorded.replace(observations=moved)))
    assert measured.metrics["dynamics_mse"].value == pytest.approx(1 / 54, rel=1e-3)
    histogram = measured.histograms["dynamics_error"]
    assert sum(histogram.synthetic) == recorded.n_steps
    assert histogram.synthetic.index(max(histogram.synthetic)) == int((np.log10(1 / 54) / 2 + 8) / 10 * 40)
    assert histogram.original[0] + sum(histogram.original[:8]) > 0  # exact to rounding: the lowest bins


def test_an_engine_that_cannot_be_restored_is_no_oracle(recorded, subject, spread, monkeypatch):
    def refuse(self, observations):
        raise UsageError("a state cannot be rebuilt from observations")

    monkeypatch.setattr("tasks.mpe.env.MPEEnv.restore", refuse)
    with pytest.raises(UsageError, match="cannot be rebuilt"):
        oracle.measure(subject(recorded, recorded))
    assert issubclass(UndefinedError, UsageError)


def test_the_engine_is_asked_in_turns_of_what_a_task_can_hold(recorded, subject, spread, monkeypatch):
    at_once = oracle.measure(subject(recorded, recorded))
    made, make_env = [], type(spread).make_env

    def counted(self, num_envs, seed):
        made.append(num_envs)
        return make_env(self, num_envs, seed)

    monkeypatch.setattr(type(spread), "make_env", counted)
    monkeypatch.setattr(type(spread), "most_envs", 64)
    in_turns = oracle.measure(subject(recorded, recorded))
    assert in_turns == at_once
    assert max(made) == 64
    assert sum(made) == 2 * recorded.n_steps
