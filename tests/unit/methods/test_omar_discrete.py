"""OMAR and MA-CQL with discrete actions: numbers worked by hand, plain loops in float64, games with a known answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from benchmark.plugins import method_checks
from methods.algorithms.replica_adam import ReplicaAdam
from methods.base import Budget, Run, UnsupportedError
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.learners import LEARNERS
from methods.learners.omar import OMAR, OMARConfig
from methods.learners.omar.discrete import DiscreteOMAR, DiscreteOMARTrainer
from methods.networks.agents import GRUAgent
from methods.networks.dueling import DuelingTwins
from methods.networks.stacked import clip_each_replica
from methods.objectives.discrete_actor import (
    counterfactual_advantage,
    explored_log_softmax,
    imitation_loss,
    policy_gradient_loss,
)
from methods.objectives.discrete_critic import conservative_gap, twin_td_loss
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods import problems
from tests.unit.methods.plain import acted_along, in_float64, padded_further, perceptron, poisoned_behind

REPLICAS, AGENTS, ACTIONS = 2, 3, 5
SMALL: dict[str, Any] = {
    "hidden": 7,
    "critic_hidden": 6,
    "conservatism": 2.0,
    "tau": 0.3,
    "discount": 0.9,
    "exploration": 0.2,
}
EVERYTHING = slice(None)


# -- equations --------------------------------------------------------------------------------------------------------


def one_step(*values: Any) -> Tensor:
    """(1, 1, 1, ...): of one replica, time step, sequence."""
    return torch.tensor(values)[None, None]


def test_the_squared_errors_of_the_twins_are_summed_and_the_target_is_fixed() -> None:
    """One step, two agents: twin 1 (1² + 3²) / 2, twin 2 (0² + 2²) / 2, in sum 7; padding has no part, even as NaN."""
    recorded = torch.tensor([[[2.0, 5.0], [math.nan] * 2], [[1.0, 4.0], [math.nan] * 2]])
    recorded = recorded[:, None].requires_grad_()  # (2, 1, T = 2, N = 2)
    target = torch.tensor([[[1.0, 2.0], [math.nan] * 2]], requires_grad=True)
    loss = twin_td_loss(recorded, target, torch.tensor([[True, False]]))
    assert loss.tolist() == [7.0]
    loss.sum().backward()
    assert recorded.grad is not None
    assert recorded.grad[0, 0].tolist() == [[1.0, 3.0], [0.0, 0.0]]
    assert target.grad is None


def test_the_gap_of_constant_values_is_twice_the_logarithm_of_the_number_of_available_actions() -> None:
    q = torch.full((2, 1, 1, 1, 1, 4), -7.0)
    available, valid = one_step([[True, True, True, False]]), one_step(True)
    found = conservative_gap(q, q[..., 0], available, valid)
    assert float(found) == pytest.approx(2 * math.log(3))


def test_the_gap_on_numbers_is_masked_and_never_negative() -> None:
    """Twin 1: log(e^1 + e^2) − 2 = 0.313262, twin 2: log(e^0 + e^0) − 0 = 0.693147; padding has no part."""
    q = torch.tensor([[[1.0, 2.0, 9.0], [math.nan] * 3], [[0.0, 0.0, 9.0], [math.nan] * 3]])
    q = q[:, None, :, None, None]  # (2, 1, T = 2, 1, 1, 3)
    recorded = q[..., 1]
    available = torch.tensor([True, True, False]).expand(1, 2, 1, 1, 3)
    valid = torch.tensor([True, False]).view(1, 2, 1)
    assert float(conservative_gap(q, recorded, available, valid)) == pytest.approx(1.006409, abs=1e-6)
    draw = torch.Generator().manual_seed(0)
    values = 10 * torch.randn(2, 500, 1, 1, 2, 4, generator=draw)
    legal = torch.ones(500, 1, 1, 2, 4) > 0
    assert (conservative_gap(values, values[..., 3], legal, torch.ones(500, 1, 1) > 0) >= 0).all()


def test_an_advantage_is_over_what_the_policy_expects() -> None:
    """π = (¼, ¾): 4 − (¼ · 4 + ¾ · 2) = 1.5 and −0.5; its mean under π is 0."""
    q, log_p = torch.tensor([[4.0, 2.0]]), torch.tensor([[0.25, 0.75]]).log()
    assert counterfactual_advantage(q, torch.tensor([0]), log_p).tolist() == pytest.approx([1.5])
    assert counterfactual_advantage(q, torch.tensor([1]), log_p).tolist() == pytest.approx([-0.5])


def test_a_policy_that_explores_on_numbers() -> None:
    """π = (¼, ¾, 0) and two available actions: 0.6 π + 0.2; the third stays out, and so does ε = 0."""
    logits, available = torch.tensor([0.0, math.log(3), 50.0]), torch.tensor([True, True, False])
    assert explored_log_softmax(logits, available, 0.4).exp().tolist() == pytest.approx([0.35, 0.65, 0.0])
    assert explored_log_softmax(logits, available, 0.0).exp().tolist() == pytest.approx([0.25, 0.75, 0.0])


def test_an_action_that_is_unlikely_enough_is_pushed_no_further() -> None:
    """Q = (0, 1), the data hold the bad one, π_ε = (0.2, 0.8): A = −0.8, loss 0.8 log 0.2; with ε = 0 about −L."""
    loss = {}
    for exploration in (0.4, 0.0):
        logits = torch.tensor([-30.0, 0.0]).view(1, 1, 1, 1, 2).requires_grad_()
        q, actions = one_step([[0.0, 1.0]]), torch.zeros(1, 1, 1, 1, dtype=torch.int64)
        found = policy_gradient_loss(logits, q, actions, torch.ones_like(q) > 0, one_step(True), exploration)
        (slope,) = torch.autograd.grad(found.sum(), logits)
        loss[exploration] = found.item(), slope[..., 0].item()
    assert loss[0.4] == pytest.approx((0.8 * math.log(0.2), 0.0), abs=1e-5)
    assert loss[0.0] == pytest.approx((-30.0, 1.0), abs=1e-5)


def test_the_policy_gradient_on_numbers() -> None:
    """π = (½, ½, 0), A = 4 − 3 = 1: loss −log ½, gradient −A (1h − π). What is unavailable or padding has no part."""
    logits = torch.zeros(1, 2, 1, 1, 3, requires_grad=True)
    q = torch.tensor([[4.0, 2.0, 100.0], [math.nan] * 3]).view(1, 2, 1, 1, 3).requires_grad_()
    available = torch.tensor([[True, True, False], [False] * 3]).view(1, 2, 1, 1, 3)
    valid, actions = torch.tensor([True, False]).view(1, 2, 1), torch.zeros(1, 2, 1, 1, dtype=torch.int64)
    loss = policy_gradient_loss(logits, q, actions, available, valid, 0.0)
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].flatten().tolist() == [-0.5, 0.5, 0.0]
    assert logits.grad[0, 1].flatten().tolist() == [0.0, 0.0, 0.0]
    assert q.grad is None


def test_imitation_on_numbers() -> None:
    """The best available action is the first, and π = (¼, ¾, 0): log 4."""
    logits, q = one_step([[0.0, math.log(3), 50.0]]), one_step([[4.0, 2.0, 100.0]])
    found = imitation_loss(logits, q, one_step([[True, True, False]]), one_step(True))
    assert float(found) == pytest.approx(math.log(4))


# -- against plain loops ----------------------------------------------------------------------------------------------


def datasets(shape: str) -> list[OfflineDataset]:
    return [sample_dataset(shape, episodes=6, seed=seed).without_privileged() for seed in range(REPLICAS)]


def batches(
    learner: DiscreteOMAR, data: Sequence[OfflineDataset], updates: int, batch_size: int = 4
) -> list[SequenceBatch]:
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    own = [np.random.default_rng(r) for r in range(len(data))]
    return list(draw(data, own, batch_size=batch_size, updates=updates, device="cpu"))


def made(learner: DiscreteOMAR, data: Sequence[OfflineDataset]) -> tuple[DiscreteOMARTrainer, SequenceBatch]:
    """A trainer in float64 whose targets differ from what they follow, and a batch of four episodes or steps."""
    first = learner.new_trainer(data, Run(seeds=tuple(range(len(data)))))
    trainer = DiscreteOMARTrainer(learner.config, first.agent.double(), first.critics.double())
    shift = torch.Generator().manual_seed(3)
    for target in (trainer.target_agent, trainer.target_critics):
        for parameter in target.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    return trainer, in_float64(batches(learner, data, 1)[0])


def value_of(critics: DuelingTwins, r: int, k: int, state: Tensor, seen: Tensor, i: int) -> Tensor:
    """(A,) of twin k."""
    x = torch.cat([state, seen, torch.eye(AGENTS, dtype=torch.float64)[i]])
    hidden = perceptron(critics.net.trunk, 2 * r + k, x).relu()
    return perceptron(critics.net.value, 2 * r + k, hidden) + perceptron(critics.net.advantage, 2 * r + k, hidden)


def legal(batch: SequenceBatch, r: int, t: int, b: int, i: int) -> list[int]:
    assert batch.available is not None
    return [a for a in range(ACTIONS) if batch.available[r, t, b, i, a]]


def plain_losses(
    trainer: DiscreteOMARTrainer, batch: SequenceBatch, r: int, steps: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Of critics and actors of one replica; of all steps, or of the time steps given."""
    of_critics, of_actors = [], []
    for b in range(batch.valid.shape[2]):
        length = int(batch.valid[r, :, b].sum())
        rows = batch.observations[r, : length + 1, b]
        states = rows.flatten(1) if batch.states is None else batch.states[r, : length + 1, b]
        last = None if batch.last_actions is None else batch.last_actions[r, : length + 1, b]
        logits, target_logits = (acted_along(a, r, rows, last) for a in (trainer.agent, trainer.target_agent))
        for i in range(AGENTS):
            returns = []
            for k in range(2):
                g = torch.zeros((), dtype=torch.float64)
                along = []
                for t in reversed(range(length)):
                    best = max(legal(batch, r, t + 1, b, i), key=lambda a: float(target_logits[t + 1][i][a]))
                    following = value_of(trainer.target_critics, r, k, states[t + 1], rows[t + 1, i], i)[best]
                    if t + 1 < length:
                        following = 0.4 * following + 0.6 * g
                    g = batch.rewards[r, t, b, i] + (0.0 if batch.terminals[r, t, b] else 0.9) * following
                    along.append(g.detach())
                returns.append(along[::-1])
            for t in range(length) if steps is None else [t for t in steps if t < length]:
                may, action = legal(batch, r, t, b, i), int(batch.actions[r, t, b, i])
                q = [value_of(trainer.critics, r, k, states[t], rows[t, i], i) for k in range(2)]
                y, loss = min(returns[0][t], returns[1][t]), torch.zeros((), dtype=torch.float64)
                for own in q:
                    gap = torch.stack([own[a].exp() for a in may]).sum().log() - own[action]
                    loss = loss + (own[action] - y) ** 2 + 2.0 * gap
                of_critics.append(loss)
                p = torch.stack([logits[t][i][a] for a in may]).softmax(0)
                values = q[0].detach()
                explored = 0.8 * p + 0.2 / len(may)
                expected = sum(float(explored[j].detach()) * float(values[a]) for j, a in enumerate(may))
                advantage, surprise = float(values[action]) - expected, -explored[may.index(action)].log()
                best = max(may, key=lambda a: float(values[a]))
                of_actors.append(0.7 * advantage * surprise - 0.3 * p[may.index(best)].log())
    return torch.stack(of_critics).mean(), torch.stack(of_actors).mean()


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made(DiscreteOMAR(OMARConfig(**SMALL, memory=memory)), datasets(shape))
    assert memory == "none" or not batch.valid.all()
    seen = trainer.view(batch)
    mine = trainer.critic_losses(seen, trainer.targets(batch, seen), EVERYTHING).loss, trainer.actor_loss(batch, seen)
    slow = zip(*(plain_losses(trainer, batch, r) for r in range(REPLICAS)), strict=True)
    groups = list(trainer.critics.parameters()), list(trainer.agent.parameters())
    for fast, plain, group in zip(mine, map(torch.stack, slow), groups, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)
        gradients = [torch.autograd.grad(x.sum(), group, retain_graph=True) for x in (fast, plain)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    for loss, others in zip(mine, reversed(groups), strict=True):
        assert not any(torch.autograd.grad(loss.sum(), others, allow_unused=True, retain_graph=True))


def test_an_update_is_a_step_of_the_critics_and_then_one_of_the_actors_by_the_new_values() -> None:
    """The first step of Adam is −lr g / (|g| + ε)."""
    learner = DiscreteOMAR(OMARConfig(**SMALL, learning_rate=0.1, max_grad_norm=0.5))
    trainer, batch = made(learner, datasets("discrete"))
    plain = copy.deepcopy(trainer)

    def descend(loss: Tensor, group: list[Tensor]) -> None:
        for parameter, gradient in zip(group, torch.autograd.grad(loss.sum(), group), strict=True):
            parameter.grad = gradient
        clip_each_replica(group, REPLICAS, 0.5)
        for parameter in group:
            assert parameter.grad is not None
            parameter.data -= 0.1 * parameter.grad / (parameter.grad.abs() + 1e-8)

    seen = plain.view(batch)
    of_critics = plain.critic_losses(seen, plain.targets(batch, seen), EVERYTHING)
    descend(of_critics.loss, list(plain.critics.parameters()))
    of_actor = plain.actor_loss(batch, seen)
    descend(of_actor, list(plain.agent.parameters()))
    told = trainer.update(batch)
    torch.testing.assert_close(told["critic_loss"], of_critics.loss.detach())
    torch.testing.assert_close(told["actor_loss"], of_actor.detach())
    for net, other in ((trainer.critics, plain.critics), (trainer.agent, plain.agent)):
        for one, two in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)
    assert trainer.done == 1


def test_what_is_told_of_the_critics() -> None:
    """`q` is the mean Q^1 of recorded actions over valid steps and agents, `cql_gap` the penalty of one twin."""
    trainer, batch = made(DiscreteOMAR(OMARConfig(**SMALL)), datasets("discrete"))
    seen = trainer.view(batch)
    plain = trainer.critics(seen.states[:, :-1], seen.observations[:, :-1])  # (2, R, T, B, N, A)
    first = plain[0].gather(-1, batch.actions[..., None])[..., 0].detach()
    assert batch.available is not None
    every = plain.masked_fill(~batch.available[:, :-1], -math.inf).logsumexp(-1)
    gap = (every - plain.gather(-1, batch.actions[None, ..., None].expand(2, *batch.actions.shape, 1))[..., 0]).mean(0)
    told = trainer.update(batch)
    for name, values in (("q", first), ("cql_gap", gap.detach())):
        expected = [values[r][batch.valid[r]].mean() for r in range(REPLICAS)]
        torch.testing.assert_close(told[name], torch.stack(expected))


# -- what must not matter ---------------------------------------------------------------------------------------------


def both_losses(trainer: DiscreteOMARTrainer, batch: SequenceBatch) -> list[Tensor]:
    """Of critics and actors, and all their gradients."""
    seen, found = trainer.view(batch), []
    losses = trainer.critic_losses(seen, trainer.targets(batch, seen), EVERYTHING).loss, trainer.actor_loss(batch, seen)
    for loss, net in zip(losses, (trainer.critics, trainer.agent), strict=True):
        found += [loss, *torch.autograd.grad(loss.sum(), list(net.parameters()))]
    return found


@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_padding_changes_nothing(shape: str) -> None:
    trainer, batch = made(DiscreteOMAR(OMARConfig(**SMALL)), datasets(shape))
    assert not batch.valid.all()
    expected = both_losses(trainer, batch)
    for other in (poisoned_behind(batch, ~batch.valid), padded_further(batch, 2)):
        for one, two in zip(expected, both_losses(trainer, other), strict=True):
            torch.testing.assert_close(one, two)


def test_unavailable_actions_change_nothing() -> None:
    """Whatever the last layers say of an action that is nowhere available, and whatever its logit is."""
    data = datasets("discrete")
    for i, d in enumerate(data):
        assert d.available_actions is not None
        mask = d.available_actions.copy()
        mask[..., 4] = False
        data[i] = d.replace(available_actions=mask, actions=np.where(d.actions == 4, 0, d.actions))
    trainer, batch = made(DiscreteOMAR(OMARConfig(**SMALL)), data)
    expected = both_losses(trainer, batch)
    with torch.no_grad():
        for net in (trainer.critics.net.advantage, trainer.target_critics.net.advantage):
            net.bias[..., 4] += 50.0
        for agent in (trainer.agent, trainer.target_agent):
            assert isinstance(agent, GRUAgent)
            agent.decoder.bias[..., 4] += 50.0
    for one, two in zip(expected, both_losses(trainer, batch), strict=True):
        torch.testing.assert_close(one, two)


def test_without_weight_on_the_best_action_it_is_cql_and_without_conservatism_plain_td() -> None:
    """`cql` is `omar` with τ = 0: the same critics, and actors by the policy gradient alone."""
    data = datasets("discrete")
    trainer, batch = made(DiscreteOMAR(OMARConfig(**SMALL)), data)
    seen = trainer.view(batch)
    target = trainer.targets(batch, seen)
    given = {**SMALL, **LEARNERS.entry("cql").params}
    cql, _ = made(DiscreteOMAR(OMARConfig(**given)), data)
    mine, theirs = (x.critic_losses(seen, target, EVERYTHING) for x in (trainer, cql))
    torch.testing.assert_close(theirs.loss, mine.loss)
    logits = cql.agent(batch.observations, batch.last_actions)[0][:, :-1]
    q = cql.critics(seen.states[:, :-1], seen.observations[:, :-1])[0]
    expected = policy_gradient_loss(logits, q, batch.actions, seen.available[:, :-1], batch.valid, 0.2)
    torch.testing.assert_close(cql.actor_loss(batch, seen), expected)
    plain, _ = made(DiscreteOMAR(OMARConfig(**{**SMALL, "conservatism": 0.0})), data)
    difference = mine.loss - plain.critic_losses(seen, target, EVERYTHING).loss
    torch.testing.assert_close(difference, 2.0 * 2 * mine.gap)  # α_cql = 2, two twins


def test_targets_are_copied_every_so_many_updates_and_rest_between() -> None:
    data = datasets("discrete")
    learner = DiscreteOMAR(OMARConfig(**SMALL, target_every=3))
    trainer = learner.new_trainer(data, Run(seeds=(0, 1)))

    def weights(*nets: torch.nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])

    first = weights(trainer.target_agent, trainer.target_critics)
    assert torch.equal(first, weights(trainer.agent, trainer.critics))
    same = []
    for batch in batches(learner, data, 6):
        trainer.update(batch)
        for target, net in ((trainer.target_agent, trainer.agent), (trainer.target_critics, trainer.critics)):
            same.append(torch.equal(weights(target), weights(net)))
        if len(same) < 6:
            assert torch.equal(weights(trainer.target_agent, trainer.target_critics), first)
    assert same == [False] * 4 + [True] * 2 + [False] * 4 + [True] * 2


# -- a step of the critics a time step --------------------------------------------------------------------------------


def test_who_rests_keeps_weights_moments_and_count() -> None:
    """Against an Adam of its own for each replica, which alone knows of the steps that it made."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=draw)  # two replicas of two slices
    stacked = start.clone().requires_grad_()
    apart = [part.clone().requires_grad_() for part in start.chunk(2)]
    mine = ReplicaAdam([stacked], 2, 0.1)
    theirs = [torch.optim.Adam([part], lr=0.1, fused=True) for part in apart]
    for moving in ([True, True], [True, False], [False, True], [True, False], [True, True]):
        at = torch.randn(4, 3, generator=draw)
        mine.step((at * stacked.square()).view(2, -1).sum(dim=1), moving, 1.0)
        for r, (adam, part) in enumerate(zip(theirs, apart, strict=True)):
            adam.zero_grad()
            (at.chunk(2)[r] * part.square()).sum().backward()
            clip_each_replica([part], 1, 1.0)
            if moving[r]:
                adam.step()
        torch.testing.assert_close(stacked, torch.cat(apart))


def test_steps_by_time_equal_plain_loops() -> None:
    learner = DiscreteOMAR(OMARConfig(**SMALL, per_timestep_updates=True, learning_rate=0.05))
    trainer, batch = made(learner, datasets("discrete"))
    plain, _ = made(learner, datasets("discrete"))
    adam = torch.optim.Adam(plain.critics.parameters(), lr=0.05)
    assert batch.valid.any(dim=2).all()  # every replica has something at every time step
    for t in range(batch.valid.shape[1]):
        adam.zero_grad()
        torch.stack([plain_losses(plain, batch, r, steps=[t])[0] for r in range(REPLICAS)]).sum().backward()
        clip_each_replica(list(plain.critics.parameters()), REPLICAS, 10.0)
        adam.step()
    trainer.update(batch)
    for one, two in zip(trainer.critics.parameters(), plain.critics.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)


def test_a_replica_of_short_episodes_rests_while_others_go_on() -> None:
    data = datasets("discrete")
    data[0] = data[0].take(np.flatnonzero(data[0].lengths <= data[0].lengths.min()))
    assert data[0].lengths.max() < data[1].lengths.max()
    learner = DiscreteOMAR(OMARConfig(**SMALL, per_timestep_updates=True))
    together = learner.new_trainer(data, Run(seeds=(0, 1)))
    alone = learner.new_trainer(data[:1], Run(seeds=(0,)))
    for both, own in zip(batches(learner, data, 4), batches(learner, data[:1], 4), strict=True):
        told, told_alone = together.update(both), alone.update(own)
        for name, values in told.items():
            torch.testing.assert_close(values[:1], told_alone[name])
    for one, two in zip(together.critics.parameters(), alone.critics.parameters(), strict=True):
        torch.testing.assert_close(one[:2], two, atol=1e-6, rtol=1e-5)


# -- known answers ----------------------------------------------------------------------------------------------------

FAST: dict[str, Any] = {"learning_rate": 2e-2, "target_every": 5, "hidden": 16, "critic_hidden": 16}


@pytest.mark.parametrize("tau", [0.5, 0.0])
@pytest.mark.parametrize("memory", ["gru", "none"])
def test_the_best_joint_action_of_a_matrix_game_is_found_and_the_next_best_where_it_is_masked(
    memory: str, tau: float
) -> None:
    learner = DiscreteOMAR(OMARConfig(**FAST, memory=memory, tau=tau, conservatism=0.1))
    data = [problems.game(problems.PAYOFF), problems.game(problems.PAYOFF, masked=(0, 1))]
    policy = learner.fit(data, Run(seeds=(0, 1), budget=Budget(updates=120, batch_size=64)))
    mask = np.stack([d.available_actions[:1] for d in data if d.available_actions is not None])
    action, _ = policy.act(np.stack([d.observations[:1] for d in data]), mask)
    assert action[:, 0].tolist() == [[1, 2], [2, 2]]


def values(learner: DiscreteOMAR, data: OfflineDataset) -> Tensor:
    """(N, A) Q^1 at the first row after training."""
    trainer = learner.new_trainer([data], Run(seeds=(0,)))
    for batch in batches(learner, [data], 100, batch_size=32):
        trainer.update(batch)
    with torch.no_grad():
        seen = trainer.view(batch)
        found: Tensor = trainer.critics(seen.states[:, :1, :1], seen.observations[:, :1, :1])[0, 0, 0, 0]
        return found


def test_a_value_counts_what_follows_a_time_limit_and_nothing_behind_a_true_end() -> None:
    """Reward 1: at a true end the value is 1; at a time limit, with γ = 0.5, it is 1 / (1 − 0.5) = 2."""
    learner = DiscreteOMAR(OMARConfig(**FAST, memory="none", conservatism=0.0, discount=0.5))
    for ends, value in ((True, 1.0), (False, 2.0)):
        data = problems.game(np.full((2, 2), 2.0), ends=ends)  # each agent is paid half
        assert values(learner, data).flatten().tolist() == pytest.approx([value] * 4, abs=0.1)


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_a_conservative_critic_keeps_down_what_the_data_never_show(memory: str) -> None:
    data = problems.game(np.full((3, 3), 2.0), shown=[(0, 0), (1, 1)])
    careful = values(DiscreteOMAR(OMARConfig(**FAST, memory=memory)), data)
    plain = values(DiscreteOMAR(OMARConfig(**FAST, memory=memory, conservatism=0.0)), data)
    assert (careful[:, 2] < careful[:, :2].amin(dim=1) - 2).all()
    assert (plain[:, 2] > plain[:, :2].amin(dim=1) - 1).all()


# -- contracts and refusals -------------------------------------------------------------------------------------------

NAMES = ("R seeds", "a diverged", "a policy acts the same", "a training goes on")
CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in ("omar[memory=none]", "cql[per_timestep_updates=true,critic_hidden=8]")
    for check in method_checks(name)[1]
    if check.name.startswith(tuple(f"discrete: {start}" for start in NAMES))
]


@pytest.mark.parametrize("check", CHECKS)
def test_variants_keep_the_contract(check: Any) -> None:
    assert check.run() is None


def test_a_recurrent_actor_sees_its_last_action() -> None:
    agent = DiscreteOMAR().new_agent(sample_dataset("discrete").spec, [np.random.default_rng(0)])
    assert isinstance(agent, GRUAgent)
    assert agent.last_action
    assert not agent.relu_after


def test_defaults_follow_the_kind_of_actions() -> None:
    discrete, continuous = sample_dataset("discrete").spec, sample_dataset("continuous").spec
    own = DiscreteOMAR()
    assert own.own_budget(discrete) == (100_000, 32)
    assert DiscreteOMAR(OMARConfig(memory="none")).own_budget(discrete) == (100_000, 640)
    settings, sizes = OMARConfig().settings(), OMARConfig().sizes(continuous)
    assert (settings.hidden, settings.learning_rate, settings.max_grad_norm) == (64, 1e-3, 10.0)
    assert (sizes.hidden, sizes.learning_rate, sizes.max_grad_norm) == (64, 0.01, 0.5)
    assert (settings.normalise, sizes.normalise) == (False, True)
    assert OMARConfig(learning_rate=0.5).settings().learning_rate == 0.5
    assert OMARConfig(max_grad_norm=0.0).sizes(continuous).max_grad_norm == 0.0


def test_a_parameter_of_the_other_form_is_refused() -> None:
    discrete, continuous = (sample_dataset(shape).without_privileged() for shape in ("discrete", "continuous"))
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4))
    for given in ({"polyak": 0.1}, {"search": "elites"}, {"output_penalty": 0.2}):
        with pytest.raises(UsageError, match=f"{next(iter(given))}=.* no meaning for discrete"):
            OMAR.from_params(given).fit([discrete], run)  # type: ignore[arg-type]
    for given in ({"memory": "none"}, {"trace": 0.1}, {"per_timestep_updates": True}):
        with pytest.raises(UsageError, match=f"{next(iter(given))}=.* no meaning for continuous"):
            OMAR.from_params(given).fit([continuous], run)  # type: ignore[arg-type]
    for data in (discrete, continuous):
        OMAR.from_params({"tau": 0.0, "conservatism": 1.0, "hidden": 4}).fit([data], run)


def test_single_transitions_need_an_actor_without_memory() -> None:
    single = problems.game(problems.PAYOFF)
    single = single.replace(spec=replace(single.spec, episode_limit=25))
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=8))
    with pytest.raises(UnsupportedError, match=r"Use omar\[memory=none\]"):
        DiscreteOMAR().fit([single], run)
    DiscreteOMAR(OMARConfig(memory="none")).fit([single], run)


@pytest.mark.parametrize(
    "given",
    [
        {"tau": "x"},
        {"tau": -0.1},
        {"conservatism": math.nan},
        {"learning_rate": "x"},
        {"hidden": 1.5},
        {"critic_hidden": 0},
        {"target_every": 0},
        {"trace": 1.1},
        {"memory": "lstm"},
        {"max_grad_norm": -1.0},
        {"normalise": "x"},
        {"per_timestep_updates": "x"},
        {"polyak": 0.0},
        {"exploration": 1.0},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"omar: {next(iter(given))}="):
        OMARConfig(**given)
