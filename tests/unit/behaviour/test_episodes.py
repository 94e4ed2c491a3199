"""The online loop of episodes that end when they end, QMIX and MATD3 in it, on games of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.behaviour.episodes import EpisodesConfig, MATD3Player, QMIXPlayer, Replay, episode_rounds
from methods.online.matd3 import ReplayBatch
from methods.online.qmix import QMIX, JointTransitions, QMIXConfig
from tasks.base import ActionArray, Step
from tasks.spec import ActionSpec
from tests.unit.behaviour.game import PAYOFF, SPEC, Game


class Listener:
    """Acts with 1 and keeps every batch that it is trained on."""

    def __init__(self) -> None:
        self.actors: list[Tensor] = [torch.zeros(1, 3, 3), torch.zeros(1, 1, 3)]
        self.batches: list[JointTransitions] = []

    def act(self, observations: Tensor, available: Tensor) -> Tensor:
        return torch.ones(len(observations), 2, dtype=torch.int64)

    def update(self, batch: JointTransitions) -> None:
        self.batches.append(batch)


CONFIG = EpisodesConfig(
    num_envs=4, updates_per_step=2.0, warm_up_steps=10, epsilon_steps=20, epsilon=0.1, batch_size=256, reward_scale=0.5
)


def test_exploration_is_total_at_first_and_falls_to_its_share() -> None:
    steps = [0, 9, 10, 20, 30, 1000]
    assert [CONFIG.exploration(n) for n in steps] == pytest.approx([1.0, 1.0, 1.0, 0.55, 0.1, 0.1])


def test_only_steps_of_running_episodes_are_learned_from_and_true_ends_alone_are_terminal() -> None:
    env, learner = Game(4), Listener()
    rounds = list(
        islice(episode_rounds(env, CONFIG, QMIXPlayer(learner, env, CONFIG), torch.Generator().manual_seed(0)), 4)
    )  # type: ignore[arg-type]
    assert [r.env_steps for r in rounds] == [0, 10, 20, 30]  # 1 + 2 + 3 + 4 steps a round
    assert [r.uniform for r in rounds] == [True, True, False, False]
    assert [r.epsilon for r in rounds] == pytest.approx([1.0, 1.0, 0.55, 0.1])
    # Rounds 1 and 2, steps with 4, 3, 2 and 1 of 4 running: 2 (1 + ¾ + ½ + ¼) = 5 updates each; before, the last step
    # of the warm-up brings the tenth step, and half an update.
    assert len(learner.batches) == 10
    seen = set()
    for batch in learner.batches:
        for i in range(256):
            number, following = batch.observations[i, 0, 0].item(), batch.next_observations[i, 0, 0].item()
            episode, t = divmod(int(number), 10)
            assert following == number + 1 == batch.next_states[i, 0].item()
            assert batch.states[i, 0].item() == number
            assert t < 1 + episode % 4
            assert batch.terminals[i].item() == (t == episode % 4 and episode % 4 < 3)
            left, right = batch.actions[i].tolist()
            assert batch.rewards[i].item() == 0.5 * PAYOFF[left, right]
            assert batch.next_available[i].tolist() == [[True, True, False]] * 2
            seen.add((episode, t))
    # The very last step came after the last update.
    assert seen == {(e, t) for e in range(12) for t in range(1 + e % 4)} - {(11, 3)}
    assert max(actions.max() for actions in env.given) == 1  # what is not available is never explored
    assert len({tuple(row) for actions in env.given[:4] for row in actions.tolist()}) == 4


def test_the_replay_forgets_the_oldest_and_fits_into_memory() -> None:
    replay: Replay[JointTransitions] = Replay(3)
    for number in range(5):
        one = torch.full((1, 2, 1), float(number))
        replay.add(
            JointTransitions(
                one, one[:, 0], torch.zeros(1, 2, dtype=torch.int64), one[:, 0, 0], torch.zeros(1, dtype=torch.bool),
                one, one[:, 0], torch.ones(1, 2, 3, dtype=torch.bool),
            )
        )  # fmt: skip
    drawn = replay.sample(100, torch.Generator().manual_seed(0))
    assert set(drawn.rewards.tolist()) == {2.0, 3.0, 4.0}
    assert replay.count == 3


def random_batch(generator: torch.Generator) -> JointTransitions:
    available = torch.rand(6, 2, 3, generator=generator) < 0.6
    available[..., 0] = True
    return JointTransitions(
        observations=torch.rand(6, 2, 1, generator=generator),
        states=torch.rand(6, 1, generator=generator),
        actions=torch.randint(3, (6, 2), generator=generator),
        rewards=torch.rand(6, generator=generator),
        terminals=torch.rand(6, generator=generator) < 0.3,
        next_observations=torch.rand(6, 2, 1, generator=generator),
        next_states=torch.rand(6, 1, generator=generator),
        next_available=available,
    )


def test_the_loss_equals_plain_loops() -> None:
    learner = QMIX(QMIXConfig(hidden=5, mixing_embed=4, hypernet_hidden=6), (2, 1, 1, 3), np.random.default_rng(0))
    batch = random_batch(torch.Generator().manual_seed(1))
    with torch.no_grad():  # targets of their own
        for target in learner._targets:
            target.add_(0.1)

    def network(parameters: Sequence[Tensor], observation: Tensor, agent: int) -> Tensor:
        x = torch.cat([observation, torch.eye(2)[agent]])
        for layer in range(3):
            x = x @ parameters[2 * layer][0] + parameters[2 * layer + 1][0, 0]
            x = x.relu() if layer < 2 else x
        return x

    def mixed(mixer: torch.nn.Module, state: Tensor, values: list[Tensor]) -> Tensor:
        return mixer(state[None, None]).total(torch.stack(values)[None, None]).squeeze()  # type: ignore[no-any-return]

    errors = []
    for i in range(6):
        values, next_values = [], []
        for agent in range(2):
            values.append(network(learner.actors, batch.observations[i, agent], agent)[batch.actions[i, agent]])
            online = network(learner.actors, batch.next_observations[i, agent], agent)
            allowed = [a for a in range(3) if batch.next_available[i, agent, a]]
            best = max(allowed, key=lambda a: online[a].item())  # called at once
            next_values.append(network(learner._target_actors, batch.next_observations[i, agent], agent)[best])
        total = mixed(learner._mixer, batch.states[i], values)
        following = (
            0.0 if batch.terminals[i] else 0.99 * mixed(learner._target_mixer, batch.next_states[i], next_values)
        )
        errors.append((total - (batch.rewards[i] + following)) ** 2)
    expected = 0.5 * torch.stack(errors).mean()
    torch.testing.assert_close(learner.loss(batch), expected)


def test_the_best_joint_action_is_found() -> None:
    config = EpisodesConfig(num_envs=16, updates_per_step=4.0, warm_up_steps=100, epsilon_steps=400, batch_size=32)
    learner = QMIX(QMIXConfig(hidden=16, learning_rate=3e-3), (2, 1, 1, 3), np.random.default_rng(0))
    env = Game(16)
    scaled = env.show

    def small_numbers(rewards: np.ndarray) -> Step:
        shown = scaled(rewards)
        return Step(
            observations=np.zeros_like(shown.observations),
            rewards=shown.rewards,
            terminals=shown.terminals,
            truncations=shown.truncations,
            states=np.zeros_like(shown.states),
            available_actions=shown.available_actions,
        )

    env.show = small_numbers  # type: ignore[method-assign]  # what is seen tells nothing
    generator = torch.Generator().manual_seed(0)
    before = learner.act(torch.zeros(1, 2, 1), torch.tensor([[[True, True, False]] * 2])).tolist()
    list(islice(episode_rounds(env, config, QMIXPlayer(learner, env, config), generator), 40))
    found = learner.act(torch.zeros(1, 2, 1), torch.tensor([[[True, True, False]] * 2])).tolist()
    assert found == [[0, 0]], before
    assert learner.act(torch.zeros(1, 2, 1), torch.tensor([[[False, True, False]] * 2])).tolist() == [[1, 1]]


class Walk(Game):
    """The same lengths and numbers with continuous actions; agent i is paid its first action plus i."""

    spec = replace(SPEC, id="toy/walk", action=ActionSpec(kind="continuous", size=2, low=-1.0, high=1.0))

    def step(self, actions: ActionArray) -> Step:
        self.given.append(actions.copy())
        self.t += 1
        shown = self.show(np.zeros(self.num_envs))
        return replace(shown, rewards=(actions[..., 0] + np.arange(2)).astype(np.float32))


class Steady:
    """Acts with 0.25 and keeps every batch that it is trained on."""

    def __init__(self) -> None:
        self.actors: list[Tensor] = [torch.zeros(2, 1, 2), torch.zeros(2, 1, 2)]
        self.batches: list[ReplayBatch] = []

    def act(self, observations: Tensor) -> Tensor:
        return torch.full((*observations.shape[:2], 2), 0.25)

    def update(self, batch: ReplayBatch) -> None:
        self.batches.append(batch)


def test_robots_are_paid_one_by_one_and_start_uniformly() -> None:
    env, learner = Walk(4), Steady()
    player = MATD3Player(learner, env, CONFIG)  # type: ignore[arg-type]
    rounds = list(islice(episode_rounds(env, CONFIG, player, torch.Generator().manual_seed(0)), 4))
    assert [r.uniform for r in rounds] == [True, True, False, False]
    first = np.stack(env.given[:4])  # round 0; in round 1 the warm-up is over, and exploration still total
    assert np.unique(first).size == first.size
    assert np.abs(first).max() <= 1.0
    assert (np.stack(env.given[8:]) == 0.25).all()
    for batch in learner.batches:
        assert batch.rewards.shape == (256, 2)
        expected = 0.5 * (batch.actions[:, :, 0] + torch.arange(2))
        torch.testing.assert_close(batch.rewards, expected)
        number = batch.observations[:, 0, 0]
        assert (batch.next_observations[:, 1, 0] == number + 1).all()
        episode, t = number // 10, number % 10
        assert (batch.terminals == ((t == episode % 4) & (episode % 4 < 3))).all()
