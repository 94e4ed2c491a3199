"""OMAR and MA-CQL with discrete actions: losses against plain loops in float64, and what has no part in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.data.sequences import SequenceBatch
from methods.learners import LEARNERS
from methods.learners.omar.discrete import DiscreteOMARTrainer
from methods.networks.agents import GRUAgent
from methods.networks.dueling import DuelingTwins
from methods.networks.stacked import clip_each_replica
from methods.objectives.discrete_actor import policy_gradient_loss
from tests.unit.methods.plain import acted_along, perceptron, require_equal_gradients
from tests.unit.methods.small_trainers import ACTIONS, AGENTS, REPLICAS, SHAPES, datasets, made

EVERYTHING = slice(None)


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
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made("omar", shape, memory=memory)
    assert memory == "none" or not batch.valid.all()
    seen = trainer.view(batch)
    mine = trainer.critic_losses(seen, trainer.targets(batch, seen), EVERYTHING).loss, trainer.actor_loss(batch, seen)
    slow = zip(*(plain_losses(trainer, batch, r) for r in range(REPLICAS)), strict=True)
    groups = list(trainer.critics.parameters()), list(trainer.agent.parameters())
    for fast, plain, group in zip(mine, slow, groups, strict=True):
        require_equal_gradients(fast, plain, group)
    for loss, others in zip(mine, reversed(groups), strict=True):
        assert not any(torch.autograd.grad(loss.sum(), others, allow_unused=True, retain_graph=True))


def test_steps_by_time_equal_plain_loops() -> None:
    config: dict[str, Any] = {"per_timestep_updates": True, "learning_rate": 0.05}
    trainer, batch = made("omar", **config)
    plain, _ = made("omar", **config)
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


def both_losses(trainer: DiscreteOMARTrainer, batch: SequenceBatch) -> list[Tensor]:
    """Of critics and actors, and all their gradients."""
    seen, found = trainer.view(batch), []
    losses = trainer.critic_losses(seen, trainer.targets(batch, seen), EVERYTHING).loss, trainer.actor_loss(batch, seen)
    for loss, net in zip(losses, (trainer.critics, trainer.agent), strict=True):
        found += [loss, *torch.autograd.grad(loss.sum(), list(net.parameters()))]
    return found


def test_unavailable_actions_change_nothing() -> None:
    """Whatever the last layers say of an action that is nowhere available, and whatever its logit is."""
    data = datasets("discrete")
    for i, d in enumerate(data):
        assert d.available_actions is not None
        mask = d.available_actions.copy()
        mask[..., 4] = False
        data[i] = d.replace(available_actions=mask, actions=np.where(d.actions == 4, 0, d.actions))
    trainer, batch = made("omar", data=data)
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
    trainer, batch = made("omar", data=data)
    seen = trainer.view(batch)
    target = trainer.targets(batch, seen)
    cql, _ = made("omar", data=data, **LEARNERS.entry("cql").params)
    mine, theirs = (x.critic_losses(seen, target, EVERYTHING) for x in (trainer, cql))
    torch.testing.assert_close(theirs.loss, mine.loss)
    logits = cql.agent(batch.observations, batch.last_actions)[0][:, :-1]
    q = cql.critics(seen.states[:, :-1], seen.observations[:, :-1])[0]
    expected = policy_gradient_loss(logits, q, batch.actions, seen.available[:, :-1], batch.valid, 0.2)
    torch.testing.assert_close(cql.actor_loss(batch, seen), expected)
    plain, _ = made("omar", data=data, conservatism=0.0)
    difference = mine.loss - plain.critic_losses(seen, target, EVERYTHING).loss
    torch.testing.assert_close(difference, 2.0 * 2 * mine.gap)  # α_cql = 2, two twins


def test_the_first_twin_alone_is_the_first_of_both() -> None:
    generators = [np.random.default_rng(seed) for seed in range(REPLICAS)]
    critics = DuelingTwins((5, 4, 16), AGENTS, ACTIONS, generators)
    states, observations = torch.randn(REPLICAS, 7, 5), torch.randn(REPLICAS, 7, AGENTS, 4)
    both, first = critics(states, observations), critics.first(states, observations)
    assert torch.equal(first, both[0])
    assert not torch.equal(first, both[1])
    assert not first.requires_grad
