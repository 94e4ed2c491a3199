"""What tests of learners share: problems with a known answer, and stacked networks in torch's own modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.checks import sample_dataset
from methods.base import Budget, LearnedPolicy, Learner, Run
from methods.data.batches import TransitionBatch, joint_transitions
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec


def bandit(mean: float, width: float, low: float = -1.0, high: float = 1.0) -> OfflineDataset:
    """One step, nothing to see; agent i is paid −|a_i − 0.3|², with a in [−1, 1] before it is mapped to its bounds."""
    spec, n = sample_dataset("one-step-episodes").spec, 600
    unit = np.clip(np.random.default_rng(0).normal(mean, width, size=(n, spec.n_agents, 2)), -1, 1)
    return OfflineDataset(
        spec=replace(spec, action=ActionSpec(kind="continuous", size=2, low=low, high=high)),
        observations=np.zeros((2 * n, spec.n_agents, spec.obs_dim), np.float32),
        actions=(low + (unit + 1) / 2 * (high - low)).astype(np.float32),
        rewards=-np.square(unit - 0.3).sum(axis=-1).astype(np.float32),
        terminals=np.ones(n, np.bool_),
        truncations=np.zeros(n, np.bool_),
        episode_starts=np.arange(n + 1),
    )


PAYOFF = [[0.0, 1.0, 0.0], [1.0, 2.0, 5.0], [0.0, 1.0, 3.0]]
"""Of a two-agent game: the best joint action is (1, 2), and (2, 2) where agent 0 must not take 1."""

MONOTONE_PAYOFF = [[0.0, 1.0, 2.0], [1.0, 2.0, 5.0], [0.0, 1.0, 3.0]]
"""The same, of which a value that grows with those of the agents can tell all."""


def game(payoff: Any, masked: tuple[int, int] | None = None, *, shown: Any = None, ends: bool = True) -> OfflineDataset:
    """A two-agent matrix game of one step, whose payoff the agents share; `masked` (agent, action) is never available.

    Joint actions are all equally often, or those `shown`; `ends`: by a terminal, or else by the time limit.
    """
    payoff = np.asarray(payoff, dtype=np.float32)
    base, n, a = sample_dataset("discrete").spec, 900, payoff.shape[0]
    draw = np.random.default_rng(0)
    available = np.ones((2 * n, 2, a), np.bool_)
    if masked is not None:
        available[:, masked[0], masked[1]] = False
    actions = np.stack([draw.choice(np.flatnonzero(available[0, i]), size=n) for i in range(2)], axis=1)
    if shown is not None:
        actions = np.asarray(shown, dtype=np.int64)[draw.integers(len(shown), size=n)]
    return OfflineDataset(
        spec=replace(
            base, n_agents=2, agent_groups=((0, 1),), action=ActionSpec(kind="discrete", size=a), episode_limit=1
        ),
        observations=np.zeros((2 * n, 2, base.obs_dim), np.float32),
        actions=actions,
        rewards=np.repeat(payoff[actions[:, 0], actions[:, 1], None] / 2, 2, axis=1).astype(np.float32),
        terminals=np.full(n, ends),
        truncations=np.full(n, not ends),
        episode_starts=np.arange(n + 1),
        available_actions=available,
    )


def mean_game(payoff: Any, **given: Any) -> OfflineDataset:
    """See `game`; every agent is paid all of it, for learners that take the mean of the agents."""
    data = game(payoff, **given)
    return data.replace(rewards=2 * data.rewards)


def single_transitions() -> OfflineDataset:
    """Steps without a before and an after, of a task of 25 steps an episode."""
    data = game(PAYOFF)
    return data.replace(spec=replace(data.spec, episode_limit=25))


def first_choice(policy: LearnedPolicy, data: OfflineDataset) -> list[list[int]]:
    """The joint action of each replica in the first row of a discrete dataset."""
    rows = np.repeat(data.observations[None, :1], policy.replicas, axis=0)
    assert data.available_actions is not None
    mask = np.repeat(data.available_actions[None, :1], policy.replicas, axis=0)
    action, _ = policy.act(rows, mask)
    found: list[list[int]] = action[:, 0].tolist()
    return found


def acted(learner: Learner[Any], data: Sequence[OfflineDataset], updates: int, batch_size: int = 32) -> list[list[int]]:
    """What the policy of each discrete dataset does at its first row, all trained together."""
    run = Run(seeds=tuple(range(len(data))), budget=Budget(updates=updates, batch_size=batch_size))
    policy = learner.fit(data, run)
    return [first_choice(policy, d)[r] for r, d in enumerate(data)]


def own_generators(purpose: int, count: int = 2) -> list[np.random.Generator]:
    """One a replica, other ones for every purpose."""
    return [np.random.default_rng([purpose, r]) for r in range(count)]


def precise_transitions(
    data: Sequence[OfflineDataset], batch_size: int, *, random_ends: bool = False
) -> TransitionBatch:
    """A batch in float64; `random_ends`: three steps in ten are true ends."""
    drawn = next(joint_transitions(data, own_generators(4), batch_size=batch_size, updates=1, device="cpu"))
    terminals = drawn.terminals
    if random_ends:
        terminals = torch.rand(terminals.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    precise = {name: getattr(drawn, name).double() for name in ("observations", "actions", "rewards")}
    return replace(drawn, **precise, next_observations=drawn.next_observations.double(), terminals=terminals)


def network(parameters: Sequence[Tensor], g: int) -> nn.Sequential:
    """The perceptron of slice g of stacked weights and biases, in torch's own modules and float64."""
    layers: list[nn.Module] = []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[2], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(weight[g].T)
            layer.bias.copy_(bias[g, 0])
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def require_same_gradients(mine: Sequence[Tensor], loss: Tensor, nets: Sequence[nn.Sequential], first: int) -> None:
    """Gradients of `loss` in torch's modules against slices `first`, `first` + 1, ... of the stacked ones."""
    for offset, net in enumerate(nets):
        gradients = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
        for stacked, own in zip(mine, gradients, strict=True):
            theirs = own.T if own.dim() == 2 else own[None]
            torch.testing.assert_close(stacked[first + offset], theirs, atol=1e-8, rtol=1e-6)
