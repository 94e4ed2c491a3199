"""Updates of OMAR and MA-CQL with discrete actions: of all at once, or of the critics a time step after another."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.replica_adam import ReplicaAdam
from methods.base import Run
from methods.networks.stacked import clip_each_replica
from tests.unit.methods.small_trainers import REPLICAS, datasets, made, sequences, small

EVERYTHING = slice(None)


def test_an_update_is_a_step_of_the_critics_and_then_one_of_the_actors_by_the_new_values() -> None:
    """The first step of Adam is −lr g / (|g| + ε)."""
    trainer, batch = made("omar", learning_rate=0.1, max_grad_norm=0.5)
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
    trainer, batch = made("omar")
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


def test_a_replica_of_short_episodes_rests_while_others_go_on() -> None:
    data = datasets("discrete")
    data[0] = data[0].take(np.flatnonzero(data[0].lengths <= data[0].lengths.min()))
    assert data[0].lengths.max() < data[1].lengths.max()
    learner = small("omar", per_timestep_updates=True)
    together = learner.new_trainer(data, Run(seeds=(0, 1)))
    alone = learner.new_trainer(data[:1], Run(seeds=(0,)))
    for both, own in zip(sequences(learner, data, 4), sequences(learner, data[:1], 4), strict=True):
        told, told_alone = together.update(both), alone.update(own)
        for name, values in told.items():
            torch.testing.assert_close(values[:1], told_alone[name])
    for one, two in zip(together.critics.parameters(), alone.critics.parameters(), strict=True):
        torch.testing.assert_close(one[:2], two, atol=1e-6, rtol=1e-5)
