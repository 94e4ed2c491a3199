"""MA-ICQ: which steps have a next action, what they are worth, and how targets follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.base import Run
from methods.data.batches import joint_transitions
from methods.data.sequences import SequenceBatch
from methods.learners.icq import ICQ
from methods.learners.icq.config import ICQConfig
from methods.learners.icq.trainer import ICQTrainer
from tasks.datasets.offline import OfflineDataset
from tests import strategies
from tests.unit.methods.problems import PAYOFF, game
from tests.unit.methods.small_trainers import generators, made


@settings(max_examples=40, deadline=None)
@given(data=strategies.datasets(min_episodes=1))
def test_next_actions_come_from_the_next_step_and_never_from_another_episode(data: OfflineDataset) -> None:
    rows = np.arange(len(data.observations), dtype=np.float32)
    data = data.replace(
        observations=np.ascontiguousarray(np.broadcast_to(rows[:, None, None], data.observations.shape))
    )
    episode, step_of_row = data.episode_of_step(), {int(row): s for s, row in enumerate(data.row_of_step())}
    arguments: dict[str, Any] = {"batch_size": 8, "updates": 3, "device": "cpu"}
    plain = joint_transitions([data, data], generators(), **arguments)
    for batch, without in zip(
        joint_transitions([data, data], generators(), **arguments, next_actions=True), plain, strict=True
    ):
        torch.testing.assert_close(batch.observations, without.observations)  # the same draws
        assert without.next_actions is None
        assert without.has_next is None
        assert batch.next_actions is not None
        assert batch.has_next is not None
        for r, b in np.ndindex(*batch.has_next.shape):
            step = step_of_row[int(batch.observations[r, b, 0, 0])]
            follows = step + 1 < data.n_steps and episode[step + 1] == episode[step]
            assert bool(batch.has_next[r, b]) == follows
            np.testing.assert_array_equal(batch.next_actions[r, b].numpy(), data.actions[step + follows])


def test_a_step_without_a_next_action_changes_nothing() -> None:
    trainer, batch = made("icq", "states-and-deaths", memory="none")
    seen = trainer.view(batch)
    steps = torch.stack([seen.known, torch.ones_like(seen.known)], dim=1)[:, :, 0]  # (R, T + 1, B), o and o'
    other = replace(
        seen,
        observations=torch.where(steps[..., None, None], seen.observations, 5.0),
        reward=torch.where(seen.known, seen.reward, torch.nan),
        states=torch.where(seen.known[..., None], seen.states, -3.0),
    )
    assert not torch.equal(other.states, seen.states)
    torch.testing.assert_close(trainer.critic_loss(other), trainer.critic_loss(seen))
    torch.testing.assert_close(trainer.policy_loss(batch, other)[0], trainer.policy_loss(batch, seen)[0])


def both_losses(trainer: ICQTrainer, batch: SequenceBatch) -> list[Tensor]:
    """Losses and all gradients."""
    seen = trainer.view(batch)
    of_critic, of_policy = trainer.critic_loss(seen), trainer.policy_loss(batch, seen)[0]
    return [
        of_critic,
        of_policy,
        *torch.autograd.grad(of_critic.sum(), list(trainer.critic.parameters())),
        *torch.autograd.grad(of_policy.sum(), list(trainer.agent.parameters())),
    ]


def test_of_the_last_step_of_a_cut_episode_only_the_action_and_what_is_seen_there_count() -> None:
    """Its reward and the final row have no influence, nor has any final row; its action has."""
    trainer, batch = made("icq")
    seen, step = trainer.view(batch), torch.arange(batch.valid.shape[1])[None, :, None]
    last = step == batch.valid.sum(dim=1, keepdim=True) - 1  # (R, T, B)
    cut = last & ~batch.terminals
    assert cut.flatten(1).any(dim=1).all()
    assert torch.equal(cut, batch.valid & ~seen.known)
    final = torch.cat([torch.zeros_like(last[:, :1]), last], dim=1)  # (R, T + 1, B)
    before = both_losses(trainer, batch)
    other = replace(
        batch,
        observations=batch.observations + 3.0 * final[..., None, None],
        rewards=batch.rewards.masked_fill(cut[..., None], torch.nan),
    )
    torch.testing.assert_close(both_losses(trainer, other), before)
    acting = replace(batch, actions=torch.where(cut[..., None], (batch.actions + 1) % 5, batch.actions))
    assert (both_losses(trainer, acting)[0] != before[0]).all()


def test_a_lambda_of_zero_is_one_step_and_other_lambdas_are_not() -> None:
    trainer, batch = made("icq")
    losses = []
    for trace in (0.6, 0.0):
        trainer._config = replace(trainer._config, trace=trace)
        losses.append(trainer.critic_loss(trainer.view(batch)))
    assert (losses[0] != losses[1]).all()
    single, steps = made("icq", memory="none")
    of_one = single.critic_loss(single.view(steps))
    single._config = replace(single._config, trace=0.0)
    assert torch.equal(single.critic_loss(single.view(steps)), of_one)  # no meaning without memory


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_in_a_task_of_one_step_a_time_limit_ends_like_anything_else(memory: str) -> None:
    learner, run = ICQ(ICQConfig(memory=memory)), Run(seeds=(0,))
    data = [game(PAYOFF, ends=False)]
    trainer = learner.new_trainer(data, run)
    seen = trainer.view(next(learner.batches(data, run, "icq/batches", 1, 8)))
    assert seen.known.all()
    assert seen.ends.all()


@pytest.mark.parametrize(("shape", "every", "share"), [("discrete", 2, 1.0), ("continuous", 1, 0.005)])
def test_targets_are_copies_now_and_then_or_follow_slowly(shape: str, every: int, share: float) -> None:
    data, run = [sample_dataset(shape).without_privileged()], Run(seeds=(0,))
    learner = ICQ(ICQConfig(target_every=2) if every == 2 else ICQConfig())
    trainer = learner.new_trainer(data, run)
    before = [p.clone() for p in trainer.target.parameters()]
    for done, batch in enumerate(learner.batches(data, run, "icq/batches", every, 8), start=1):
        assert all(torch.equal(b, p) for b, p in zip(before, trainer.target.parameters(), strict=True)) or done > every
        trainer.update(batch)
        assert trainer.done == done
    for old, new, target in zip(before, trainer.critic.parameters(), trainer.target.parameters(), strict=True):
        torch.testing.assert_close(target, torch.lerp(old, new.detach(), share))
        assert share < 1 or torch.equal(target, new)


@pytest.mark.parametrize("shape", ["continuous", "discrete"])
def test_a_reward_is_worth_its_discount_one_step_earlier(shape: str) -> None:
    """Two steps, a reward of 1 at the second and last: Q_tot = 1 there and 0.9 before."""
    n, spec = 50, replace(sample_dataset(shape).spec, episode_limit=2)
    observations = np.zeros((n, 3, 3, spec.obs_dim), np.float32)  # (E, T + 1, N, D)
    observations[:, 1:] = 1.0
    discrete = spec.action.discrete
    data = OfflineDataset(
        spec=spec,
        observations=observations.reshape(3 * n, 3, -1),
        actions=np.zeros((2 * n, 3), np.int64) if discrete else np.zeros((2 * n, 3, 2), np.float32),
        rewards=np.tile(np.array([[0.0] * 3, [1.0, 0.0, 0.0]], np.float32), (n, 1)),
        terminals=np.tile([False, True], n),
        truncations=np.zeros(2 * n, np.bool_),
        episode_starts=np.arange(0, 2 * n + 1, 2),
        available_actions=np.ones((3 * n, 3, 5), np.bool_) if discrete else None,
    )
    config = ICQConfig(
        discount=0.9, polyak=0.1, target_every=1, critic_learning_rate=1e-2, normalise=False, critic_hidden=32
    )
    learner, run = ICQ(config), Run(seeds=(0,))
    trainer = learner.new_trainer([data], run)
    for batch in learner.batches([data], run, "icq/batches", 120, 16):
        trainer.update(batch)
    seen = torch.tensor(observations[0, :2])[None]  # (1, 2, N, D)
    states, actions = seen.flatten(2), torch.tensor(data.actions[:2])[None]
    total = trainer.critic.total(states, trainer.critic.q(states, seen, actions))
    assert total[0].tolist() == [pytest.approx(0.9, abs=0.03), pytest.approx(1.0, abs=0.03)]
