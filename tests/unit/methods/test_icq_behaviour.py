"""MA-ICQ on transitions that stand alone: what is drawn behind them, and from whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from benchmark.checks.check import EveryCheckpoint
from methods.base import Budget, Run
from methods.data.batches import joint_transitions, lone_steps
from methods.learners.icq import ICQ
from methods.learners.icq.behaviour import has_lone_steps
from methods.learners.icq.config import ICQConfig
from methods.learners.icq.view import single_steps
from methods.networks.policy import AgentPolicy
from methods.synthesis.emit import as_transitions
from tasks.datasets.offline import OfflineDataset, concatenate
from tests.unit.methods.small_trainers import generators

KINDS = ["continuous", "discrete"]


def alone(shape: str, seed: int = 0) -> OfflineDataset:
    """All transitions of some episodes, each an episode."""
    data = sample_dataset(shape, episodes=4, seed=seed).without_privileged()
    return as_transitions(data, np.arange(data.n_steps))


def test_a_step_stands_alone_if_it_is_an_episode_and_no_true_end() -> None:
    data = sample_dataset("one-step-episodes", episodes=3).without_privileged()
    data = data.replace(terminals=np.array([False, True, False]), truncations=np.array([True, False, True]))
    assert data.lengths.tolist() == [1, 1, 1]
    many = replace(data, spec=replace(data.spec, episode_limit=4))
    assert lone_steps(many).tolist() == [True, False, True]
    assert not lone_steps(replace(data, spec=replace(data.spec, episode_limit=1))).any()
    whole = sample_dataset("continuous").without_privileged()
    assert not has_lone_steps([whole])
    assert has_lone_steps([whole, concatenate([whole, alone("continuous")])])


@pytest.mark.parametrize("shape", KINDS)
def test_only_transitions_that_stand_alone_are_completed(shape: str) -> None:
    whole = sample_dataset(shape, episodes=4).without_privileged()
    data = [concatenate([whole, alone(shape)]) for _ in range(2)]
    learner, run = ICQ(ICQConfig(memory="none", behaviour_updates=1)), Run(seeds=(0, 1))
    trainer = learner.new_trainer(data, run)
    assert trainer.behaviour is not None
    draw = joint_transitions(data, generators(2), batch_size=40, updates=1, device="cpu", next_actions=True)
    batch = next(single_steps(draw))
    done = trainer.behaviour.completed(batch)
    here = batch.alone
    assert here.any()
    assert (~here & ~batch.has_next).any()  # the last step of a longer episode stays without a next action
    assert torch.equal(done.has_next, batch.has_next | here)
    assert torch.equal(done.next_actions[~here], batch.next_actions[~here])
    assert not torch.equal(done.next_actions[here], batch.next_actions[here])
    if batch.available is not None:
        allowed = batch.available[:, 1:].gather(-1, done.next_actions[..., None])[..., 0]
        assert allowed[here].all()
    else:
        assert (done.next_actions.abs() <= 1).all()
    seen = trainer.view(batch)
    assert torch.equal(seen.known, batch.terminals | batch.has_next | here)


@pytest.mark.parametrize("shape", KINDS)
def test_the_clone_acts_as_the_data_do(shape: str) -> None:
    """In the data agent 0 does one thing, agent 1 another, agent 2 either of two."""
    data = alone(shape)
    coin = np.arange(data.n_steps) % 2
    chosen = np.stack([np.full(data.n_steps, 1), np.full(data.n_steps, 3), np.where(coin, 0, 2)], axis=1)
    if shape == "discrete":
        assert data.available_actions is not None
        data = data.replace(actions=chosen, available_actions=np.ones_like(data.available_actions))
    else:
        data = data.replace(actions=np.repeat((chosen[..., None] - 1.5) / 2, 2, axis=-1).astype(np.float32))
    config = ICQConfig(memory="none", behaviour_updates=400, learning_rate=1e-2, batch_size=32)
    behaviour = ICQ(config).cloned_behaviour([data], Run(seeds=(0,)))
    rows = torch.from_numpy(data.observations[:40])[None]
    mask = None if shape == "continuous" else torch.ones(1, len(rows[0]), 3, 5, dtype=torch.bool)
    acts = torch.cat([behaviour.actions(rows, mask) for _ in range(20)], dim=1)[0]  # (B', N[, 2])
    if shape == "discrete":
        assert (acts[:, 0] == 1).float().mean() > 0.9
        assert (acts[:, 1] == 3).float().mean() > 0.9
        assert 0.3 < (acts[:, 2] == 0).float().mean() < 0.7
        masked = mask.clone()  # type: ignore[union-attr]
        masked[..., 1] = False
        assert (behaviour.actions(rows, masked)[..., 0] != 1).all()
    else:
        torch.testing.assert_close(acts[:, 0].mean(dim=0), torch.full((2,), -0.25), atol=0.06, rtol=0)
        torch.testing.assert_close(acts[:, 1].mean(dim=0), torch.full((2,), 0.75), atol=0.06, rtol=0)
        assert acts[:, 2].std() > 3 * acts[:, 0].std()


@pytest.mark.parametrize("shape", KINDS)
def test_a_reward_is_worth_its_discount_one_transition_earlier(shape: str) -> None:
    """Two transitions that stand apart: (0, a) leads to 1 for nothing, (1, a) ends with a reward of 1."""
    n, spec = 50, replace(sample_dataset(shape).spec, episode_limit=2)
    discrete = spec.action.discrete
    observations = np.zeros((2 * n, 2, 3, spec.obs_dim), np.float32)  # (E, T + 1, N, D)
    observations[:n, 1] = observations[n:] = 1.0
    ends = np.arange(2 * n) >= n
    data = OfflineDataset(
        spec=spec,
        observations=observations.reshape(4 * n, 3, -1),
        actions=np.zeros((2 * n, 3), np.int64) if discrete else np.zeros((2 * n, 3, 2), np.float32),
        rewards=np.where(ends[:, None], np.array([[1.0, 0.0, 0.0]]), 0.0).astype(np.float32),
        terminals=ends,
        truncations=~ends,
        episode_starts=np.arange(2 * n + 1),
        available_actions=np.ones((4 * n, 3, 5), np.bool_) if discrete else None,
    )
    config = ICQConfig(
        memory="none", discount=0.9, polyak=0.1, target_every=1, critic_learning_rate=1e-2, learning_rate=1e-2
    )
    config = replace(config, normalise=False, critic_hidden=32, behaviour_updates=150)
    learner, run = ICQ(config), Run(seeds=(0,), budget=Budget(batch_size=16))
    trainer = learner.new_trainer([data], run)
    for batch in learner.batches([data], run, "icq/batches", 150, 16):
        trainer.update(batch)
    seen = torch.tensor(observations[[0, n], 0])[None]  # (1, 2, N, D)
    states, actions = seen.flatten(2), torch.tensor(data.actions[[0, n]])[None]
    total = trainer.critic.total(states, trainer.critic.q(states, seen, actions))
    assert total[0].tolist() == [pytest.approx(0.9, abs=0.05), pytest.approx(1.0, abs=0.05)]


def fitted(
    data: list[OfflineDataset], seeds: tuple[int, ...], checkpoint: EveryCheckpoint | None = None
) -> AgentPolicy:
    learner = ICQ.tiny({"memory": "none", "behaviour_updates": 6})
    budget = Budget(updates=5, batch_size=8)
    return learner.fit(data, Run(seeds=seeds, budget=budget, original=data[0], checkpoint=checkpoint))


@pytest.mark.parametrize("shape", KINDS)
def test_seeds_together_are_seeds_alone_whatever_the_others_learn_from(shape: str) -> None:
    data = [alone(shape), sample_dataset(shape, episodes=4, seed=1).without_privileged(), alone(shape, seed=2)]
    together = fitted(data, (3, 4, 5))
    for r, own in enumerate(data):
        learner = ICQ.tiny({"memory": "none", "behaviour_updates": 6})
        run = Run(seeds=((3, 4, 5)[r],), budget=Budget(updates=5, batch_size=8), original=data[0])
        single = learner.fit([own], run)
        for name, array in single.state(0).items():
            np.testing.assert_allclose(together.state(r)[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_training_goes_on_from_every_checkpoint_as_if_undisturbed() -> None:
    data, kept = [alone("discrete"), alone("discrete", seed=1)], EveryCheckpoint()
    undisturbed = fitted(data, (3, 4), kept)
    assert len(kept.states) >= 10
    for stored in kept.states:
        again = fitted(data, (3, 4), EveryCheckpoint(stored))
        for r in range(2):
            for name, array in undisturbed.state(r).items():
                np.testing.assert_array_equal(again.state(r)[name], array, err_msg=name)
