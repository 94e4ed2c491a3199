"""The online loop and its replay on an arena whose numbers say where they come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.behaviour.loop import LoopConfig, Round, training_rounds
from benchmark.behaviour.recipes import loop_config
from benchmark.behaviour.replay import EpisodeReplay
from methods.online.matd3 import ReplayBatch
from tasks.base import FloatArray
from tasks.common.selector import Selector
from tasks.mpe.task import make_task
from tasks.spec import ActionSpec

LENGTH = 4


class Counter:
    """Episode e shows 100 e + t after t steps and pays e + t / 10 for step t; it keeps the actions it was given."""

    n_agents, obs_dim, episode_limit = 2, 1, LENGTH
    action = ActionSpec(kind="continuous", size=2, low=-1.0, high=1.0)

    def __init__(self) -> None:
        self.given: list[FloatArray] = []

    def reset(self, episode_ids: range) -> FloatArray:
        self.ids, self.t = np.asarray(episode_ids), 0
        return self.shown()

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray]:
        self.given.append(actions.copy())
        reward = self.ids + self.t / 10
        self.t += 1
        return self.shown(), np.repeat(reward[:, None], 2, axis=1).astype(np.float32)

    def shown(self) -> FloatArray:
        return np.repeat((100.0 * self.ids + self.t)[:, None, None], 2, axis=1).astype(np.float32)


class Listener:
    """Acts with 0.5 and keeps every batch that it is trained on."""

    def __init__(self) -> None:
        self.actors: list[Tensor] = [torch.zeros(2, 1, 2), torch.zeros(2, 1, 2)]
        self.batches: list[ReplayBatch] = []

    def act(self, observations: Tensor) -> Tensor:
        return torch.full((len(observations), 2, 2), 0.5)

    def update(self, batch: ReplayBatch) -> None:
        self.batches.append(batch)


CONFIG = LoopConfig(
    num_envs=3, updates_per_step=2, warm_up_steps=13, replay_steps=10 * LENGTH, reward_scale=0.5, batch_size=64
)


@pytest.fixture
def played() -> tuple[Counter, Listener, list[Round]]:
    arena, learner = Counter(), Listener()
    rounds = training_rounds(arena, CONFIG, learner, torch.Generator().manual_seed(0))
    return arena, learner, [next(rounds) for _ in range(5)]


def test_rounds_explore_uniformly_until_the_warm_up_is_over(played: tuple[Counter, Listener, list[Round]]) -> None:
    arena, learner, rounds = played
    assert [r.env_steps for r in rounds] == [0, 12, 24, 36, 48]
    assert [r.uniform for r in rounds] == [True, True, False, False, False]  # 12 < 13 <= 24
    uniform = np.stack(arena.given[: 2 * LENGTH])
    assert np.unique(uniform).size == uniform.size
    assert uniform.min() < -0.8
    assert uniform.max() > 0.8
    assert (np.stack(arena.given[2 * LENGTH :]) == 0.5).all()
    assert len(learner.batches) == 2 * LENGTH * 2  # two updates a step, in rounds 2 and 3 alone


def transitions_of(batches: list[ReplayBatch]) -> Iterator[tuple[float, float, float, float]]:
    for batch in batches:
        for row in range(len(batch.rewards)):
            observation, following = batch.observations[row, 0, 0].item(), batch.next_observations[row, 0, 0].item()
            yield observation, following, batch.rewards[row, 1].item(), batch.actions[row, 0, 0].item()


def test_learners_see_whole_transitions_with_scaled_rewards(played: tuple[Counter, Listener, list[Round]]) -> None:
    arena, learner, _ = played
    seen = set()
    for observation, following, reward, action in transitions_of(learner.batches):
        episode, t = divmod(int(observation), 100)
        assert t < LENGTH
        assert following == observation + 1  # also at the last step: never another episode's
        assert reward == pytest.approx(0.5 * (episode + t / 10))
        assert action == arena.given[episode // 3 * LENGTH + t][episode % 3, 0, 0]
        seen.add((episode, t))
    # Round 3 trains on rounds 0 to 2: nine episodes, every step of them, the last ones too.
    assert seen == {(episode, t) for episode in range(9) for t in range(LENGTH)}


def test_a_time_limit_is_no_terminal(played: tuple[Counter, Listener, list[Round]]) -> None:
    _, learner, _ = played
    assert not any(batch.terminals.any() for batch in learner.batches)


def test_the_oldest_episodes_make_room() -> None:
    replay = EpisodeReplay(4, 1, 1, 1, 1)
    for first in (0, 3):  # episodes 0 1 2, then 3 4 5: the ring of four keeps 2 3 4 5
        ids = torch.arange(first, first + 3.0).view(3, 1, 1, 1)
        replay.add(torch.cat([ids, ids + 0.5], dim=1), ids, ids[..., 0])
    batch = replay.sample(200, torch.Generator().manual_seed(0))
    assert sorted(set(batch.rewards.flatten().tolist())) == [2.0, 3.0, 4.0, 5.0]
    torch.testing.assert_close(batch.next_observations, batch.observations + 0.5)
    torch.testing.assert_close(batch.actions[..., 0], batch.rewards)


@pytest.mark.parametrize(
    ("task", "scale"),
    [
        ("mpe/spread", 0.05),
        ("mpe/spread-5", 0.05),
        ("mpe/spread[variant=mpe2]", 1.0),
        ("mpe/tag", 0.1),
        ("mpe/world", 0.1),
    ],
)
def test_rewards_are_scaled_by_scenario(task: str, scale: float) -> None:
    config = loop_config(make_task(Selector.parse(task)))
    assert config.reward_scale == scale
    # The recipe of docs/tasks.md.
    assert (config.num_envs, config.updates_per_step, config.batch_size) == (64, 4, 256)
    assert (config.warm_up_steps, config.replay_steps) == (20_000, 1_000_000)
