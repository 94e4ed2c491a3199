"""DAgger: actors that learn what a teacher would do in the states they visit (Ross et al. 2011)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.networks.stacked import StackedMLP, perceptron
from methods.online.matd3 import ReplayBatch

Teacher = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitationConfig:
    """Settings of the imitation (inferred: no paper names any)."""

    hidden: int = 64  # as MATD3's actors, so that both learners ship the same network
    learning_rate: float = 1e-3
    exploration_noise: float = 0.1  # as MATD3's


class Imitation:
    """The learner's state: stacked actors and their optimiser. Continuous actions only.

    Args:
        teacher: joint actions (B, N, A) in [-1, 1] for joint observations (B, N, D); may use all agents' at once.
    """

    def __init__(
        self,
        config: ImitationConfig,
        n_agents: int,
        obs_dim: int,
        action_size: int,
        teacher: Teacher,
        generator: torch.Generator,
        weights: np.random.Generator,
    ) -> None:
        self.config, self._teacher, self._generator = config, teacher, generator
        sizes = (obs_dim, config.hidden, config.hidden, action_size)
        self.actors: list[Tensor] = list(StackedMLP(sizes, [weights], n_agents).parameters())
        self._optimiser = torch.optim.Adam(self.actors, lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def act(self, observations: Tensor) -> Tensor:
        """Noisy actions (B, N, A) for observations (B, N, D)."""
        action = self._policy(observations)
        noise = torch.randn(action.shape, generator=self._generator)
        return (action + self.config.exploration_noise * noise).clamp(-1.0, 1.0)

    def update(self, batch: ReplayBatch) -> None:
        """One step on Σ_i mean |π_i(o_i) − teacher_i(o)|²; rewards and recorded actions are not used."""
        error = self._policy(batch.observations) - self._teacher(batch.observations)  # (B, N, A)
        loss = error.square().sum(dim=-1).mean(dim=0).sum()
        for parameter, gradient in zip(self.actors, torch.autograd.grad(loss, self.actors), strict=True):
            parameter.grad = gradient
        self._optimiser.step()

    def _policy(self, observations: Tensor) -> Tensor:
        return perceptron(self.actors, observations.transpose(0, 1)).tanh().transpose(0, 1)
