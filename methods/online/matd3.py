"""MATD3: per-agent actors with centralised twin critics (Ackermann et al. 2019), continuous or discrete actions.

The N actors and the 2 N critics are stacked: one batched product a layer serves all of them. Discrete actions go
through straight-through Gumbel-softmax (Jang et al. 2017). Needs transitions, not an environment: whoever runs the
environment calls `act` and `update`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.networks.stacked import StackedMLP, perceptron
from methods.objectives.td3 import smoothed, td3_target
from tasks.spec import ActionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MATD3Config:
    """Settings that reach OMAR's expert level on spread in minutes, found by measurement (docs/tasks.md)."""

    hidden: int = 64  # OMAR, two hidden layers
    learning_rate: float = 1e-3  # inferred, by measurement; OMAR uses 1e-2
    discount: float = 0.95  # OMAR
    polyak: float = 0.01  # OMAR
    exploration_noise: float = 0.1  # TD3 (Fujimoto et al. 2018), OMAR's `gaussian_noise_std`
    target_noise: float = 0.2  # TD3
    target_noise_clip: float = 0.5  # TD3
    policy_delay: int = 2  # TD3
    gradient_clip: float = 0.5  # OMAR, L2 norm of one agent's networks
    output_penalty: float = 1e-3  # MATD3's repository (Ackermann et al. 2019), on the raw output of the actor
    temperature: float = 1.0  # OffPyMARL, of the Gumbel-softmax


class ReplayBatch(NamedTuple):
    """A batch of joint transitions. Discrete actions are one-hot.

    Shapes: observations, next_observations (B, N, D); actions (B, N, A); rewards (B, N); terminals (B,) bool.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminals: Tensor


def straight_through(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """One-hot argmax(logits + g) forward, the gradient of softmax((logits + g) / τ) backward. Shape (..., A)."""
    soft = ((logits + gumbel) / temperature).softmax(dim=-1)
    hard = torch.nn.functional.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())  # the bracket is exactly 0, so the sum is exactly one-hot


def own_action_replaced(actions: Tensor, own: Tensor) -> Tensor:
    """Joint actions (N, B, N, A): row i holds the batch's (B, N, A), with agent i's replaced by own (N, B, A).

    So the gradient of row i reaches agent i's actor alone.
    """
    n = own.shape[0]
    mine = torch.eye(n, dtype=torch.bool, device=own.device)[:, None, :, None]
    return torch.where(mine, own[:, :, None, :], actions[None])


def clip_by_agent(gradients: Sequence[Tensor], agents: int, limit: float) -> None:
    """Scales, in place, the gradients (k · N, ...) of each agent's networks to an L2 norm of at most `limit`."""
    square = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in gradients]).sum(dim=0)  # (k · N,)
    norm = square.view(-1, agents).sum(dim=0).sqrt()  # (N,)
    scale = (limit / norm.clamp(min=limit)).repeat(square.shape[0] // agents)[:, None, None]
    for gradient in gradients:
        gradient.mul_(scale)


class MATD3:
    """The learner's state: actors, critics, their targets and optimisers.

    Critics are ordered twin-major: rows 0..N-1 are the first critics, rows N..2N-1 the second. `generator` serves all
    noise, `weights` the initial networks.
    """

    def __init__(
        self,
        config: MATD3Config,
        n_agents: int,
        obs_dim: int,
        action: ActionSpec,
        generator: torch.Generator,
        weights: np.random.Generator,
    ) -> None:
        self.config, self._n, self._action, self._generator = config, n_agents, action, generator
        joint = n_agents * (obs_dim + action.size)
        h = config.hidden
        self.actors: list[Tensor] = list(StackedMLP((obs_dim, h, h, action.size), [weights], n_agents).parameters())
        self.critics: list[Tensor] = list(StackedMLP((joint, h, h, 1), [weights], 2 * n_agents).parameters())
        self._target_actors = [parameter.detach().clone() for parameter in self.actors]
        self._target_critics = [parameter.detach().clone() for parameter in self.critics]
        self._actor_optimiser = torch.optim.Adam(self.actors, lr=config.learning_rate, fused=True)
        self._critic_optimiser = torch.optim.Adam(self.critics, lr=config.learning_rate, fused=True)
        self._updates = 0

    @torch.no_grad()
    def act(self, observations: Tensor) -> Tensor:
        """Exploring actions (B, N, A) for observations (B, N, D): noisy, or one-hot samples where discrete."""
        raw = perceptron(self.actors, observations.transpose(0, 1)).transpose(0, 1)
        if self._action.discrete:
            return straight_through(raw, self._gumbel(raw), self.config.temperature)
        return (raw.tanh() + self.config.exploration_noise * self._normal(raw)).clamp(-1.0, 1.0)

    def update(self, batch: ReplayBatch) -> None:
        """One step on all critics; every second call one on all actors, then Polyak averaging of everything."""
        self._step(self.critics, self._critic_optimiser, self.critic_loss(batch))
        self._updates += 1
        if self._updates % self.config.policy_delay == 0:
            self._step(self.actors, self._actor_optimiser, self.actor_loss(batch))
            torch._foreach_lerp_(self._target_actors, [p.detach() for p in self.actors], self.config.polyak)
            torch._foreach_lerp_(self._target_critics, [p.detach() for p in self.critics], self.config.polyak)

    def critic_loss(self, batch: ReplayBatch) -> Tensor:
        """Σ over the 2 N critics of the mean squared TD error."""
        config = self.config
        with torch.no_grad():
            raw = perceptron(self._target_actors, batch.next_observations.transpose(0, 1))  # (N, B, A)
            if self._action.discrete:
                next_action = straight_through(raw, self._gumbel(raw), config.temperature)
            else:
                next_action = smoothed(raw.tanh(), config.target_noise * self._normal(raw), config.target_noise_clip)
            joint = _joint(batch.next_observations, next_action.transpose(0, 1))
            next_q = self._q(self._target_critics, joint)  # (2, N, B)
            target = td3_target(batch.rewards.T, batch.terminals, next_q, config.discount)
        q = self._q(self.critics, _joint(batch.observations, batch.actions))
        return (q - target).square().mean(dim=-1).sum()

    def actor_loss(self, batch: ReplayBatch) -> Tensor:
        """Σ_i −mean Q_i^1(s, a_{−i}, π_i(o_i)) + 1e-3 mean(raw output²); a_{−i} are the recorded actions."""
        raw = perceptron(self.actors, batch.observations.transpose(0, 1))  # (N, B, A)
        own = raw.tanh()
        if self._action.discrete:
            own = straight_through(raw, self._gumbel(raw), self.config.temperature)
        actions = own_action_replaced(batch.actions, own).flatten(2)  # (N, B, N·A)
        observations = batch.observations.flatten(1).expand(self._n, -1, -1)  # (N, B, N·D)
        first = [parameter[: self._n].detach() for parameter in self.critics]
        q = perceptron(first, torch.cat([observations, actions], dim=-1))
        return -q.mean(dim=(1, 2)).sum() + self.config.output_penalty * raw.square().mean(dim=(1, 2)).sum()

    def _q(self, critics: Sequence[Tensor], joint: Tensor) -> Tensor:
        q = perceptron(critics, joint.expand(2 * self._n, -1, -1))
        return q.view(2, self._n, -1)

    def _step(self, parameters: list[Tensor], optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, parameters)
        clip_by_agent(gradients, self._n, self.config.gradient_clip)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator)

    def _gumbel(self, like: Tensor) -> Tensor:
        return -torch.empty(like.shape).exponential_(generator=self._generator).log()


def _joint(observations: Tensor, actions: Tensor) -> Tensor:
    return torch.cat([observations.flatten(1), actions.flatten(1)], dim=-1)  # (B, N (D + A))
