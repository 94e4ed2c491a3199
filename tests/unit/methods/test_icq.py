"""MA-ICQ: next actions, losses against plain loops in float64, and games with a known answer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from benchmark.checks import sample_dataset
from benchmark.plugins import method_checks
from methods.algorithms.training import restore, stored_parts
from methods.base import Budget, Run, UnsupportedError
from methods.data.batches import joint_transitions
from methods.data.sequences import SequenceBatch
from methods.learners.icq import ICQ
from methods.learners.icq.config import CHOICES, LOCOMOTION, PARTICLES, SINGLE_CHOICES, ICQConfig
from methods.learners.icq.trainer import ICQTrainer
from methods.learners.icq.view import SingleSteps
from methods.networks.dueling import DuelingNet
from methods.networks.icq_critic import ICQCritic
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ScoreReferences
from tests.strategies import datasets
from tests.unit.methods.plain import acted_along, in_float64, one_hot, padded_further, perceptron, poisoned_behind
from tests.unit.methods.problems import PAYOFF, game

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


def single_steps(terminal: bool, shape: str = "continuous") -> OfflineDataset:
    """Transitions as episodes of one step each, of a task of six steps."""
    whole = sample_dataset(shape, episodes=2).without_privileged()
    step, row = np.arange(whole.n_steps), whole.row_of_step()
    ends, rows = np.full(len(step), terminal), np.stack([row, row + 1], axis=1).ravel()
    return whole.replace(
        observations=whole.observations[rows],
        available_actions=None if whole.available_actions is None else whole.available_actions[rows],
        terminals=ends,
        truncations=~ends,
        episode_starts=np.arange(len(step) + 1),
    )


def test_single_transitions_are_refused_unless_they_end_truly() -> None:
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4))
    with pytest.raises(UnsupportedError, match="of 12 transitions none has one"):
        ICQ().fit([single_steps(terminal=False)], run)
    assert ICQ().fit([single_steps(terminal=True)], run).diagnosis(0)["final_used"] == 1.0


def test_a_recurrent_policy_refuses_them_and_names_a_way_that_is_one() -> None:
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4))
    for ends, reason in ((False, "transitions none has one"), (True, r"Use icq\[memory=none\]")):
        with pytest.raises(UnsupportedError, match=reason):
            ICQ().fit([single_steps(terminal=ends, shape="discrete")], run)
    chosen = ICQ(ICQConfig(memory="none"))
    assert chosen.fit([single_steps(terminal=True, shape="discrete")], run).diagnosis(0)["final_used"] == 1.0


# -- against plain loops ----------------------------------------------------------------------------------------------

FORMS = [
    ("continuous", "none"),
    ("discrete", "none"),
    ("states-and-deaths", "none"),
    ("discrete", "gru"),
    ("states-and-deaths", "gru"),
]


def made(shape: str, memory: str = "gru", **given: Any) -> tuple[ICQTrainer, SequenceBatch]:
    """A trainer in float64 whose target differs from what it follows, and a batch of 16 steps or six episodes."""
    data = [sample_dataset(shape, episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
    small: dict[str, Any] = {"hidden": 8, "critic_hidden": 8, "mixer_hidden": 6, "memory": memory, **given}
    learner = ICQ(ICQConfig(**small, reward_scale=2.0, alpha=0.5, beta=0.7, trace=0.6))
    run = Run(seeds=(0, 1))
    trainer = learner.new_trainer(data, run)
    for module in (trainer.agent, trainer.critic, trainer.target):
        module.double()
    shift = torch.Generator().manual_seed(3)
    for parameter in trainer.target.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    batch = next(learner.batches(data, run, "icq/batches", 1, 6 if memory == "gru" else 16))
    return trainer, in_float64(batch)


class Slow:
    """Values of one row of one replica, agent by agent."""

    def __init__(self, critic: ICQCritic, r: int, state: Tensor, rows: Tensor) -> None:
        self.critic, self.r, self.state, self.rows, self.n = critic, r, state, rows, len(rows)

    def choices(self, i: int) -> Tensor:
        net = self.critic.net
        assert isinstance(net, DuelingNet)
        y = perceptron(net.trunk, self.r, torch.cat([self.state, self.rows[i], one_hot(i, self.n)])).relu()
        return perceptron(net.value, self.r, y) + perceptron(net.advantage, self.r, y)

    def q(self, i: int, action: Tensor) -> Tensor:
        if self.critic.discrete:
            return self.choices(i)[action]
        return perceptron(self.critic.net, self.r, torch.cat([self.rows[i], one_hot(i, self.n), action]))[0]

    def k(self) -> list[Tensor]:
        last = perceptron(self.critic.mixer.last, self.r, self.state).abs()
        first = perceptron(self.critic.mixer.by_agent, self.r, self.state).abs()
        h = len(last)
        products = [(first[i * h : (i + 1) * h] * last).sum() for i in range(self.n)]
        return [product / sum(products) for product in products]

    def total(self, actions: Tensor) -> Tensor:
        terms = [share * self.q(i, actions[i]) for i, share in enumerate(self.k())]
        return torch.stack(terms).sum()


class Episodes:
    """The sequences of one replica in a batch, each without its padding."""

    def __init__(self, trainer: ICQTrainer, batch: SequenceBatch, r: int) -> None:
        self.trainer, self.batch, self.r = trainer, batch, r
        self.lengths = batch.valid[r].sum(dim=0).tolist()

    def steps(self) -> list[list[int]]:
        """[t] -> the sequences that have a step then whose target is known."""
        known = [
            [
                b
                for b in range(len(self.lengths))
                if t < self.lengths[b] and (self.ends(t, b) or self.next(t, b) is not None)
            ]
            for t in range(max(self.lengths))
        ]
        return [bs for bs in known if bs]

    def ends(self, t: int, b: int) -> bool:
        return bool(self.batch.terminals[self.r, t, b])

    def next(self, t: int, b: int) -> Tensor | None:
        if isinstance(self.batch, SingleSteps):
            return self.batch.next_actions[self.r, t, b] if self.batch.has_next[self.r, t, b] else None
        return self.batch.actions[self.r, t + 1, b] if t + 1 < self.lengths[b] else None

    def rows(self, b: int) -> Tensor:
        scaler = self.trainer.agent.scaler
        return (self.batch.observations[self.r, : self.lengths[b] + 1, b] - scaler.mean[self.r]) / scaler.scale[self.r]

    def at(self, critic: ICQCritic, t: int, b: int) -> Slow:
        row, states = self.rows(b)[t], self.batch.states
        return Slow(critic, self.r, row.flatten() if states is None else states[self.r, t, b], row)


def slow_critic_loss(seen: Episodes) -> Tensor:
    trainer, batch, r, errors = seen.trainer, seen.batch, seen.r, []
    steps = seen.steps()
    g: dict[tuple[int, int], float] = {}
    for t, known in enumerate(steps):
        actions = {b: a for b in known if (a := seen.next(t, b)) is not None}
        q = {b: float(seen.at(trainer.target, t + 1, b).total(a)) for b, a in actions.items()}
        z = sum(math.exp(value / 0.7) for value in q.values())
        g |= {(t, b): len(q) * math.exp(value / 0.7) / z * value for b, value in q.items()}

    def returned(t: int, b: int) -> float:
        y = float(batch.rewards[r, t, b].sum()) / 2.0
        if (t, b) not in g:
            return y
        goes_on = t + 1 < len(steps) and b in steps[t + 1]
        return y + 0.99 * (0.4 * g[t, b] + 0.6 * returned(t + 1, b) if goes_on else g[t, b])

    for t, known in enumerate(steps):
        for b in known:
            total = seen.at(trainer.critic, t, b).total(batch.actions[r, t, b])
            errors.append((total - returned(t, b)) ** 2)
    return torch.stack(errors).mean()


def slow_policy_loss(seen: Episodes) -> Tensor:
    trainer, batch, r, n = seen.trainer, seen.batch, seen.r, seen.batch.rewards.shape[-1]
    action_spec, terms = trainer._spec.action, []
    acted = [
        acted_along(trainer.agent, r, seen.rows(b), None if batch.last_actions is None else batch.last_actions[r, :, b])
        for b in range(len(seen.lengths))
    ]
    for t, known in enumerate(seen.steps()):
        for i in range(n):
            logs, advantages = [], []
            for b in known:
                here, raw, action = seen.at(trainer.critic, t, b), acted[b][t][i], batch.actions[r, t, b, i]
                if action_spec.discrete:  # as the source: softmax over all, mask, renormalise
                    assert batch.available is not None
                    p = raw.softmax(0) * batch.available[r, t, b, i]
                    p = p / p.sum()
                    logs.append(p[action].log())
                    baseline = (p * here.choices(i)).sum()
                else:
                    size = action_spec.size
                    u = action.clamp(-1 + 1e-7, 1 - 1e-7).atanh()
                    normal = torch.distributions.Normal(raw[:size].clamp(-9, 9), raw[size:].clamp(-5, 2).exp())
                    logs.append((normal.log_prob(u) - (1 - u.tanh() ** 2).log()).sum())
                    baseline = here.q(i, raw[:size].tanh())
                advantages.append(float((here.q(i, action) - baseline).detach()))
            z = sum(math.exp(a / 0.5) for a in advantages)
            for b, log_p, advantage in zip(known, logs, advantages, strict=True):
                share = float(seen.at(trainer.critic, t, b).k()[i].detach())
                terms.append(-share * len(known) * math.exp(advantage / 0.5) / z * log_p)
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("shape", "memory"), FORMS)
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made(shape, memory)
    seen = trainer.view(batch)
    assert (batch.valid & ~seen.known).any()  # an episode that was cut
    assert (seen.ends & batch.valid).any() or shape == "continuous"
    every = [Episodes(trainer, batch, r) for r in range(REPLICAS)]
    for fast, plain, parameters in (
        (trainer.critic_loss(seen), torch.stack([slow_critic_loss(e) for e in every]), trainer.critic.parameters()),
        (
            trainer.policy_loss(batch, seen)[0],
            torch.stack([slow_policy_loss(e) for e in every]),
            trainer.agent.parameters(),
        ),
    ):
        torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)
        changed = list(parameters)
        gradients = torch.autograd.grad(fast.sum(), changed, retain_graph=True)
        for mine, theirs in zip(gradients, torch.autograd.grad(plain.sum(), changed), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


def test_a_step_without_a_next_action_changes_nothing() -> None:
    trainer, batch = made("states-and-deaths", "none")
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


@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_padding_changes_nothing(shape: str) -> None:
    trainer, batch = made(shape)
    assert (~batch.valid).any()
    for other in (poisoned_behind(batch, ~batch.valid), padded_further(batch, 3)):
        torch.testing.assert_close(both_losses(trainer, batch), both_losses(trainer, other))


def test_of_the_last_step_of_a_cut_episode_only_the_action_and_what_is_seen_there_count() -> None:
    """Its reward and the final row have no influence, nor has any final row; its action has."""
    trainer, batch = made("discrete")
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
    trainer, batch = made("discrete")
    losses = []
    for trace in (0.6, 0.0):
        trainer._config = replace(trainer._config, trace=trace)
        losses.append(trainer.critic_loss(trainer.view(batch)))
    assert (losses[0] != losses[1]).all()
    single, steps = made("discrete", "none")
    of_one = single.critic_loss(single.view(steps))
    single._config = replace(single._config, trace=0.0)
    assert torch.equal(single.critic_loss(single.view(steps)), of_one)  # no meaning without memory


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


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_stored_trainer_goes_on_as_the_one_it_was(memory: str) -> None:
    trainer, batch = made("discrete", memory, target_every=2)
    trainer.update(batch)
    other, _ = made("discrete", memory, target_every=2)
    restore(other, stored_parts(trainer))
    assert other.done == 1
    for each in (trainer, other):
        each.update(batch)
    mine, theirs = trainer.parts().tensors, other.parts().tensors
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


# -- known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_the_best_joint_action_of_a_game_is_found_and_the_next_best_where_it_is_masked(memory: str) -> None:
    """The best sum of row and column means, which is the best entry, 5; without it, the best of what is left, 3."""
    data = [game(PAYOFF), game(PAYOFF, masked=(0, 1))]
    fast: dict[str, Any] = {"hidden": 32, "critic_hidden": 32, "learning_rate": 1e-2, "critic_learning_rate": 1e-2}
    policy = ICQ(ICQConfig(**fast, memory=memory)).fit(
        data, Run(seeds=(0, 1), budget=Budget(updates=120, batch_size=32))
    )
    rows = np.stack([d.observations[:1] for d in data])
    mask = np.stack([d.available_actions[:1] for d in data if d.available_actions is not None])
    assert policy.act(rows, mask)[0][:, 0].tolist() == [[1, 2], [2, 2]]


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_in_a_task_of_one_step_a_time_limit_ends_like_anything_else(memory: str) -> None:
    learner, run = ICQ(ICQConfig(memory=memory)), Run(seeds=(0,))
    data = [game(PAYOFF, ends=False)]
    trainer = learner.new_trainer(data, run)
    seen = trainer.view(next(learner.batches(data, run, "icq/batches", 1, 8)))
    assert seen.known.all()
    assert seen.ends.all()


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


# -- settings ---------------------------------------------------------------------------------------------------------


def test_sizes_follow_the_kind_of_task_unless_set() -> None:
    continuous, discrete = sample_dataset("continuous").spec, sample_dataset("discrete").spec
    assert ICQConfig().sizes(continuous) == PARTICLES
    assert ICQConfig().sizes(replace(continuous, family="mamujoco")) == LOCOMOTION
    assert ICQConfig().sizes(discrete) == CHOICES
    assert ICQConfig(memory="none").sizes(discrete) == SINGLE_CHOICES
    assert ICQConfig(hidden=7, polyak=0.5).sizes(discrete) == replace(CHOICES, hidden=7, polyak=0.5)


def test_rewards_are_scaled_by_the_task_alone_and_never_up() -> None:
    spec = sample_dataset("continuous").spec
    assert ICQConfig().scale(spec) == 1.0
    for expert, expected in ((-60.0, 10.0), (3.0, 1.0)):  # in six steps
        references = ScoreReferences(random_return=0.0, expert_return=expert, episodes=1, seed=0, provenance="")
        assert ICQConfig().scale(replace(spec, score_references=references)) == expected
    assert ICQConfig(reward_scale=3.0).scale(spec) == 3.0


def test_a_memory_is_refused_where_actions_are_continuous() -> None:
    data, run = sample_dataset("continuous").without_privileged(), Run(seeds=(0,), budget=Budget(updates=1))
    with pytest.raises(UnsupportedError, match="memory=gru is for discrete actions"):
        ICQ(ICQConfig(memory="gru")).fit([data], run)
    ICQ(ICQConfig(memory="none")).fit([data], run)


CHECKS = [
    pytest.param(check, id=check.name)
    for check in method_checks("icq[memory=none]")[1]
    if check.name.startswith(("discrete", "states-and-deaths"))
]


@pytest.mark.parametrize("check", CHECKS)
def test_without_memory_it_keeps_the_contract(check: Any) -> None:
    assert check.run() is None


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "lstm"},
        {"trace": 1.1},
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
