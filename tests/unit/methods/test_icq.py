"""MA-ICQ: next actions, losses against plain loops in float64, and games with a known answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from benchmark.checks import sample_dataset
from methods.base import Budget, Run, UnsupportedError
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.icq import CHOICES, ICQ, LOCOMOTION, PARTICLES, ICQConfig, ICQTrainer
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ScoreReferences
from tests.strategies import datasets
from tests.unit.methods.problems import PAYOFF, first_choice, game

REPLICAS = 2


def generators(count: int = REPLICAS) -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(count)]


# -- next actions -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=datasets(min_episodes=1))
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


def single_steps(terminal: bool) -> OfflineDataset:
    """Transitions as episodes of one step each, of a task of six steps."""
    whole = sample_dataset("continuous", episodes=2).without_privileged()
    step, row = np.arange(whole.n_steps), whole.row_of_step()
    ends = np.full(len(step), terminal)
    return whole.replace(
        observations=whole.observations[np.stack([row, row + 1], axis=1).ravel()],
        terminals=ends,
        truncations=~ends,
        episode_starts=np.arange(len(step) + 1),
    )


def test_single_transitions_are_refused_unless_they_end_truly() -> None:
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4))
    with pytest.raises(UnsupportedError, match="of 12 transitions none has one"):
        ICQ().fit([single_steps(terminal=False)], run)
    assert ICQ().fit([single_steps(terminal=True)], run).diagnosis(0)["final_used"] == 1.0


# -- against plain loops ----------------------------------------------------------------------------------------------


def made(shape: str) -> tuple[ICQTrainer, TransitionBatch]:
    data = [sample_dataset(shape, episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
    learner = ICQ(ICQConfig(hidden=8, critic_hidden=8, mixer_hidden=6, reward_scale=2.0, alpha=0.5, beta=0.7))
    trainer = learner.new_trainer(data, Run(seeds=(0, 1)))
    for module in (trainer.agent, trainer.critic, trainer.target):
        module.double()
    shift = torch.Generator().manual_seed(3)
    for parameter in trainer.target.parameters():  # a target that differs from what it follows
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    batch = next(joint_transitions(data, generators(), batch_size=16, updates=1, device="cpu", next_actions=True))
    floats = {
        name: value.double()
        for name in TransitionBatch.__slots__
        if isinstance(value := getattr(batch, name), Tensor) and value.is_floating_point()
    }
    return trainer, replace(batch, **floats)


def perceptron(net: nn.Module, r: int, x: Tensor) -> Tensor:
    """One replica's slice by plain products: x (F,)."""
    parameters = list(net.parameters())
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        x = x @ weight[r] + bias[r, 0]
        if weight is not parameters[-2]:
            x = x.relu()
    return x


class Slow:
    """Values of one transition of one replica, agent by agent."""

    def __init__(self, critic: Any, r: int, state: Tensor, rows: Tensor) -> None:
        self.critic, self.r, self.state, self.rows, self.n = critic, r, state, rows, len(rows)

    def choices(self, i: int) -> Tensor:
        y = self._trunk(torch.cat([self.state, self.rows[i], self._id(i)]))
        return perceptron(self.critic.value, self.r, y) + perceptron(self.critic.advantage, self.r, y)

    def q(self, i: int, action: Tensor) -> Tensor:
        if self.critic.discrete:
            return self.choices(i)[action]
        return perceptron(self.critic.value, self.r, self._trunk(torch.cat([self.rows[i], self._id(i), action])))[0]

    def k(self) -> list[Tensor]:
        last = perceptron(self.critic.mixer.last, self.r, self.state).abs()
        first = perceptron(self.critic.mixer.by_agent, self.r, self.state).abs()
        h = len(last)
        products = [(first[i * h : (i + 1) * h] * last).sum() for i in range(self.n)]
        return [product / sum(products) for product in products]

    def total(self, actions: Tensor) -> Tensor:
        terms = [share * self.q(i, actions[i]) for i, share in enumerate(self.k())]
        return torch.stack(terms).sum()

    def _id(self, i: int) -> Tensor:
        return torch.eye(self.n, dtype=torch.float64)[i]

    def _trunk(self, x: Tensor) -> Tensor:
        return perceptron(self.critic.trunk, self.r, x).relu()


def slow_losses(trainer: ICQTrainer, batch: TransitionBatch, r: int) -> tuple[Tensor, Tensor]:
    """Of critic and policy, of one replica."""
    spec, scaler, n = trainer._spec, trainer.agent.scaler, batch.rewards.shape[2]
    assert batch.has_next is not None
    assert batch.next_actions is not None
    mean, scale = scaler.mean[r, 0], scaler.scale[r, 0]
    known = [b for b in range(batch.rewards.shape[1]) if batch.terminals[r, b] or batch.has_next[r, b]]
    going_on = [b for b in known if batch.has_next[r, b]]

    def at(critic: Any, b: int, after: bool) -> Slow:
        rows = (batch.next_observations if after else batch.observations)[r, b]
        rows = (rows - mean) / scale
        states = batch.next_states if after else batch.states
        return Slow(critic, r, rows.flatten() if states is None else states[r, b], rows)

    following = {b: float(at(trainer.target, b, True).total(batch.next_actions[r, b])) for b in going_on}
    z = sum(math.exp(value / 0.7) for value in following.values())
    of_critic, log_all, adv_all, k_all = [], [], [], []
    for b in known:
        y = float(batch.rewards[r, b].sum()) / 2.0
        if b in following:
            y += 0.99 * len(going_on) * math.exp(following[b] / 0.7) / z * following[b]
        here = at(trainer.critic, b, False)
        of_critic.append((here.total(batch.actions[r, b]) - y) ** 2)
        logs, advantages = [], []
        for i in range(n):
            raw = perceptron(trainer.agent.net, r, torch.cat([here.rows[i], torch.eye(n, dtype=torch.float64)[i]]))
            action = batch.actions[r, b, i]
            if spec.action.discrete:  # as the source: softmax over all, mask, renormalise
                assert batch.available is not None
                p = raw.softmax(0) * batch.available[r, b, i]
                p = p / p.sum()
                logs.append(p[action].log())
                baseline = (p * here.choices(i)).sum()
            else:
                size = spec.action.size
                u = action.clamp(-1 + 1e-7, 1 - 1e-7).atanh()
                normal = torch.distributions.Normal(raw[:size].clamp(-9, 9), raw[size:].clamp(-5, 2).exp())
                logs.append((normal.log_prob(u) - (1 - u.tanh() ** 2).log()).sum())
                baseline = here.q(i, raw[:size].tanh())
            advantages.append(float((here.q(i, action) - baseline).detach()))
        log_all.append(logs)
        adv_all.append(advantages)
        k_all.append([float(share.detach()) for share in here.k()])
    of_policy = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        total = sum(math.exp(a[i] / 0.5) for a in adv_all)
        for logs, advantages, shares in zip(log_all, adv_all, k_all, strict=True):
            weight = len(known) * math.exp(advantages[i] / 0.5) / total
            of_policy = of_policy - shares[i] * weight * logs[i] / (n * len(known))
    return torch.stack(of_critic).mean(), of_policy


@pytest.mark.parametrize("shape", ["continuous", "discrete", "states-and-deaths"])
def test_losses_and_gradients_equal_plain_loops(shape: str) -> None:
    trainer, batch = made(shape)
    seen = trainer.view(batch)
    assert not seen.valid.all()  # an episode that was cut
    assert seen.ends.any() or shape == "continuous"
    slow = [slow_losses(trainer, batch, r) for r in range(REPLICAS)]
    for fast, plain, parameters in (
        (trainer.critic_loss(seen), torch.stack([s[0] for s in slow]), list(trainer.critic.parameters())),
        (trainer.policy_loss(seen)[0], torch.stack([s[1] for s in slow]), list(trainer.agent.net.parameters())),
    ):
        torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)
        gradients = torch.autograd.grad(fast.sum(), parameters, retain_graph=True)
        for mine, theirs in zip(gradients, torch.autograd.grad(plain.sum(), parameters), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


def test_a_step_without_a_next_action_changes_nothing() -> None:
    trainer, batch = made("states-and-deaths")
    seen = trainer.view(batch)
    other = replace(
        seen,
        observations=torch.where(seen.valid[..., None, None], seen.observations, 5.0),
        reward=torch.where(seen.valid, seen.reward, 1e3),
        next_states=torch.where(seen.valid[..., None], seen.next_states, -3.0),
    )
    assert not torch.equal(other.reward, seen.reward)
    torch.testing.assert_close(trainer.critic_loss(other), trainer.critic_loss(seen))
    torch.testing.assert_close(trainer.policy_loss(other)[0], trainer.policy_loss(seen)[0])


@pytest.mark.parametrize(("shape", "every", "share"), [("discrete", 2, 1.0), ("continuous", 1, 0.005)])
def test_targets_are_copies_now_and_then_or_follow_slowly(shape: str, every: int, share: float) -> None:
    data = [sample_dataset(shape).without_privileged()]
    trainer = ICQ(ICQConfig(target_every=2) if every == 2 else ICQConfig()).new_trainer(data, Run(seeds=(0,)))
    batches = joint_transitions(data, generators(1), batch_size=8, updates=every, device="cpu", next_actions=True)
    before = [p.clone() for p in trainer.target.parameters()]
    for done, batch in enumerate(batches, start=1):
        assert all(torch.equal(b, p) for b, p in zip(before, trainer.target.parameters(), strict=True)) or done > every
        trainer.update(batch)
    for old, new, target in zip(before, trainer.critic.parameters(), trainer.target.parameters(), strict=True):
        torch.testing.assert_close(target, torch.lerp(old, new.detach(), share))
        assert share < 1 or torch.equal(target, new)


# -- known answers ----------------------------------------------------------------------------------------------------


def chosen(data: OfflineDataset, seeds: Sequence[int] = (0,)) -> list[list[int]]:
    learner = ICQ(ICQConfig(hidden=32, critic_hidden=32, learning_rate=3e-3, critic_learning_rate=3e-3))
    run = Run(seeds=tuple(seeds), budget=Budget(updates=500, batch_size=64))
    policy = learner.fit([data] * len(seeds), run)
    return first_choice(policy, data)


def test_the_best_joint_action_of_a_matrix_game_is_found() -> None:
    """The best sum of row and column means, which is the best entry, 5."""
    assert chosen(game(PAYOFF), seeds=(0, 1)) == [[1, 2], [1, 2]]


def test_an_action_that_is_not_available_is_not_chosen() -> None:
    assert chosen(game(PAYOFF, masked=(0, 1))) == [[2, 2]]  # the best of what is left, 3


def test_a_reward_is_worth_its_discount_one_step_earlier() -> None:
    """Two steps, a reward of 1 at the second and last: Q_tot = 1 there and 0.9 before."""
    n, spec = 50, replace(sample_dataset("continuous").spec, episode_limit=2)
    observations = np.zeros((n, 3, 3, spec.obs_dim), np.float32)  # (E, T + 1, N, D)
    observations[:, 1:] = 1.0
    data = OfflineDataset(
        spec=spec,
        observations=observations.reshape(3 * n, 3, -1),
        actions=np.zeros((2 * n, 3, 2), np.float32),
        rewards=np.tile(np.array([[0.0] * 3, [1.0, 0.0, 0.0]], np.float32), (n, 1)),
        terminals=np.tile([False, True], n),
        truncations=np.zeros(2 * n, np.bool_),
        episode_starts=np.arange(0, 2 * n + 1, 2),
    )
    config = ICQConfig(discount=0.9, polyak=0.1, critic_learning_rate=3e-3, normalise=False)
    trainer = ICQ(config).new_trainer([data], Run(seeds=(0,)))
    for batch in joint_transitions([data], generators(1), batch_size=32, updates=300, device="cpu", next_actions=True):
        trainer.update(batch)
    seen = torch.tensor(observations[0, :2])[None]  # (1, 2, N, D)
    states = seen.flatten(2)
    total = trainer.critic.total(states, trainer.critic.q(states, seen, torch.zeros(1, 2, 3, 2)))
    assert total[0].tolist() == [pytest.approx(0.9, abs=0.03), pytest.approx(1.0, abs=0.03)]


# -- settings ---------------------------------------------------------------------------------------------------------


def test_sizes_follow_the_kind_of_task_unless_set() -> None:
    continuous, discrete = sample_dataset("continuous").spec, sample_dataset("discrete").spec
    assert ICQConfig().sizes(continuous) == PARTICLES
    assert ICQConfig().sizes(replace(continuous, family="mamujoco")) == LOCOMOTION
    assert ICQConfig().sizes(discrete) == CHOICES
    assert ICQConfig(hidden=7, polyak=0.5).sizes(discrete) == replace(CHOICES, hidden=7, polyak=0.5)


def test_rewards_are_scaled_by_the_task_alone_and_never_up() -> None:
    spec = sample_dataset("continuous").spec
    assert ICQConfig().scale(spec) == 1.0
    for expert, expected in ((-60.0, 10.0), (3.0, 1.0)):  # in six steps
        references = ScoreReferences(random_return=0.0, expert_return=expert, episodes=1, seed=0, provenance="")
        assert ICQConfig().scale(replace(spec, score_references=references)) == expected
    assert ICQConfig(reward_scale=3.0).scale(spec) == 3.0


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 0.0},
        {"beta": -1.0},
        {"polyak": 0.0},
        {"hidden": 0},
        {"target_every": 0},
        {"reward_scale": -1.0},
        {"discount": 1.1},
        {"max_grad_norm": -1.0},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        ICQConfig(**given)
