"""Actors and twin critics of all agents of R teams, stacked: group g = r · N + i is agent i of team r."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.algorithms.joint import unit_actions
from methods.algorithms.training import named_tensors
from methods.data.batches import TransitionBatch
from methods.networks.agents import MLPAgent, ObservationScaler
from methods.networks.critics import TwinCritics, first_values, pushed_up, standardised, twin_values
from methods.networks.stacked import perceptron
from tasks.spec import ActionSpec

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Views:
    """A batch as the groups see it, G = R · N: observations (G, B, D) scaled, actions (G, B, A) in [−1, 1],
    rewards (G, B), terminals (G, B).
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminals: Tensor


class Scaled(Protocol):
    """Agents that see z-scored observations."""

    scaler: ObservationScaler


class Team:
    """Actors, twin critics and their targets of R teams, with the draws of each replica.

    Args:
        agent: the actors, on the device.
        critics: twin critics, on the device.
        generators: R, of all noise.
        batch_norm: whether critics see actions standardised within their batch.
    """

    def __init__(
        self,
        agent: MLPAgent,
        critics: TwinCritics,
        generators: Sequence[np.random.Generator],
        *,
        batch_norm: bool = False,
    ) -> None:
        self.agent, self.generators, self.batch_norm = agent, generators, batch_norm
        self.actor_parameters = list(agent.net.parameters())
        self.critic_parameters = list(critics.parameters())
        self.target_actor = [p.detach().clone() for p in self.actor_parameters]
        self.target_critic = [p.detach().clone() for p in self.critic_parameters]
        self.groups = self.actor_parameters[0].shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Weights, statistics and targets by name, as a checkpoint holds them."""
        rest: dict[str, Sequence[Tensor]] = {
            "critics": self.critic_parameters,
            "target_actor": self.target_actor,
            "target_critics": self.target_critic,
        }
        numbered = {f"{name}.{i}": tensor for name, tensors in rest.items() for i, tensor in enumerate(tensors)}
        return {**named_tensors(agent=self.agent), **numbered}

    def outputs(self, observations: Tensor) -> Tensor:
        """What the actors give of scaled observations (G, B, D), their tanh being the actions: (G, B, A)."""
        return perceptron(self.actor_parameters, observations)

    def act(self, observations: Tensor) -> Tensor:
        """π(o) in [−1, 1] of scaled observations (G, B, D): (G, B, A)."""
        return self.outputs(observations).tanh()

    def target_act(self, observations: Tensor) -> Tensor:
        """π̄(o), like `act`."""
        return perceptron(self.target_actor, observations).tanh()

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q^1 and Q^2: (G, B, D), (G, B, K, A) -> (2, G, B, K)."""
        return twin_values(self.critic_parameters, observations, self._seen(actions))

    def first_q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q^1 without a gradient to its weights: (G, B, D), (G, B, K, A) -> (G, B, K)."""
        fixed = [p.detach() for p in self.critic_parameters]
        return twin_values(fixed, observations, self._seen(actions), first=True)[0]

    def searched_q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q^1 of many candidates without any gradient: (G, B, D), (G, B, K, A) -> (G, B, K)."""
        return first_values(self.critic_parameters, observations, self._seen(actions))

    def pushed_up(self, observations: Tensor, actions: Tensor, log_density: Tensor) -> Tensor:
        """(G,) of both twins; see `methods.networks.critics.pushed_up`."""
        return pushed_up(self.critic_parameters, observations, self._seen(actions), log_density)

    def target_q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q̄^1 and Q̄^2 of one action each: (G, B, D), (G, B, A) -> (2, G, B)."""
        return twin_values(self.target_critic, observations, self._seen(actions.unsqueeze(2))).squeeze(-1)

    def _seen(self, actions: Tensor) -> Tensor:
        """Actions (G, B, K, A) as the critics get them."""
        return standardised(actions, (1, 2)) if self.batch_norm else actions

    def normal(self, batch: int, *inner: int) -> Tensor:
        """Standard normal values (G, B, *inner), those of replica r from generator r."""
        return self._drawn(lambda g, shape: g.standard_normal(shape, dtype=np.float32), batch, *inner)

    def uniform(self, batch: int, *inner: int) -> Tensor:
        """Values in U(−1, 1), (G, B, *inner), those of replica r from generator r."""
        return self._drawn(lambda g, shape: g.random(shape, dtype=np.float32), batch, *inner).mul_(2).sub_(1)

    def _drawn(self, draw: Draw, *inner: int) -> Tensor:
        shape = (self.groups // len(self.generators), *inner)  # (N, B, ...)
        values = np.concatenate([draw(generator, shape) for generator in self.generators])
        return torch.from_numpy(values).to(self.actor_parameters[0])  # device and precision


def views(batch: TransitionBatch, agent: Scaled, action: ActionSpec) -> Views:
    """The batch by groups: observations scaled, actions mapped to [−1, 1]."""
    groups = batch.rewards.shape[0] * batch.rewards.shape[2]

    def by_group(x: Tensor) -> Tensor:  # (R, B, N, ...) -> (G, B, ...)
        return x.transpose(1, 2).reshape(groups, x.shape[1], *x.shape[3:])

    return Views(
        by_group(agent.scaler(batch.observations)),
        by_group(unit_actions(batch.actions, action)),
        by_group(batch.rewards),
        by_group(agent.scaler(batch.next_observations)),
        batch.terminals.repeat_interleave(batch.rewards.shape[2], dim=0),
    )
