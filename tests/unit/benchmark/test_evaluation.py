from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.checks import sample_spec
from benchmark.evaluation import evaluate
from methods.base import Arrays, LearnedPolicy
from tasks.base import BatchedEnv, Step, Task
from tasks.common.errors import MethodError
from tasks.registry import make_task

EPISODES, SEED = 6, 11


class Steering(LearnedPolicy):
    """Replica r pushes every agent with `pushes[r]`; NaN from step `nan_from` on."""

    def __init__(self, pushes: Sequence[float], nan_from: Sequence[int] | None = None) -> None:
        self.pushes, self.replicas = np.asarray(pushes, dtype=np.float32), len(pushes)
        self.nan_from = nan_from or [99] * len(pushes)

    def act(
        self, observations: NDArray[np.float32], available_actions: NDArray[np.bool_] | None, memory: Any = None
    ) -> tuple[NDArray[np.float32], int]:
        step = memory or 0
        actions = np.broadcast_to(self.pushes[:, None, None, None], (*observations.shape[:3], 2)).copy()
        for replica, first in enumerate(self.nan_from):
            if step >= first:
                actions[replica] = np.nan
        return actions, step + 1

    def state(self, replica: int) -> Arrays:
        return {}


@pytest.fixture
def task() -> Task:
    return make_task("mpe/spread")


def test_returns_equal_those_of_a_plain_loop(task: Task) -> None:
    outcome = evaluate(Steering([0.3]), task, EPISODES, SEED, "steering")
    for episode in range(EPISODES):
        env = task.make_env(1, SEED)
        env.reset([episode])
        total = 0.0
        for _ in range(task.spec.episode_limit):
            step = env.step(np.full((1, task.spec.n_agents, 2), 0.3, dtype=np.float32))
            total += float(step.rewards.sum())
        assert outcome.returns[0, episode] == pytest.approx(total, rel=1e-5)


def test_policies_meet_the_same_episodes_and_do_not_disturb_each_other(task: Task) -> None:
    together = evaluate(Steering([0.3, -0.2, 0.3]), task, EPISODES, SEED, "steering")
    np.testing.assert_array_equal(together.returns[0], together.returns[2])
    alone = evaluate(Steering([-0.2]), task, EPISODES, SEED, "steering")
    np.testing.assert_allclose(together.returns[1], alone.returns[0], rtol=1e-6)
    assert not np.allclose(together.returns[0], together.returns[1])


def test_episodes_run_in_turns_are_the_same_episodes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(Steering([0.3, -0.2]), task, EPISODES, SEED, "steering")
    monkeypatch.setattr(type(task), "most_envs", 8)
    np.testing.assert_allclose(
        evaluate(Steering([0.3, -0.2]), task, EPISODES, SEED, "s").returns, whole.returns, rtol=1e-6
    )


def test_another_seed_gives_other_episodes(task: Task) -> None:
    first, second = (evaluate(Steering([0.3]), task, EPISODES, seed, "steering").returns for seed in (SEED, SEED + 1))
    assert not np.allclose(first, second)


def test_a_policy_that_acts_with_nan_has_diverged_and_the_others_have_not(task: Task) -> None:
    outcome = evaluate(Steering([0.3, 0.3], nan_from=[99, 20]), task, EPISODES, SEED, "steering")
    assert outcome.diverged.tolist() == [False, True]
    healthy = evaluate(Steering([0.3]), task, EPISODES, SEED, "steering")
    np.testing.assert_allclose(outcome.returns[0], healthy.returns[0], rtol=1e-6)


class Counting(BatchedEnv):
    """Episode i pays 1 a step and ends after i + 1 of them, won if i is odd; what follows an end means nothing."""

    def __init__(self, num_envs: int) -> None:
        self.spec, self.num_envs, self.t = SHORT, num_envs, 0

    def reset(self, episode_ids: Sequence[int]) -> Step:
        self.ids, self.t = np.asarray(episode_ids), 0
        return self.shown(0.0)

    def step(self, actions: Any) -> Step:
        self.t += 1
        return self.shown(1.0)

    def shown(self, reward: float) -> Step:
        shape = (self.num_envs, self.spec.n_agents)
        return Step(
            observations=np.zeros((*shape, self.spec.obs_dim), dtype=np.float32),
            rewards=np.full(shape, reward / self.spec.n_agents, dtype=np.float32),
            terminals=self.t > self.ids,  # and again at every later step
            truncations=np.zeros(self.num_envs, dtype=np.bool_),
            won=(self.ids % 2 == 1) ^ (self.t > self.ids + 1),
        )


SHORT = dataclasses.replace(sample_spec("continuous"), has_win=True, has_deaths=False, state_dim=None)


class CountingTask:
    most_envs = 8192
    spec = SHORT

    def make_env(self, num_envs: int, seed: int) -> BatchedEnv:
        return Counting(num_envs)


def test_nothing_counts_after_an_episode_has_ended() -> None:
    episodes = SHORT.episode_limit
    outcome = evaluate(Steering([0.1, 0.2]), CountingTask(), episodes, SEED, "steering")  # type: ignore[arg-type]
    np.testing.assert_allclose(outcome.returns, [np.arange(1, episodes + 1)] * 2)
    assert outcome.won is not None
    np.testing.assert_array_equal(outcome.won, [np.arange(episodes) % 2 == 1] * 2)


def test_actions_out_of_range_name_the_learner(task: Task) -> None:
    with pytest.raises(MethodError, match="steering"):
        evaluate(Steering([3.0]), task, EPISODES, SEED, "steering")
