"""How the outputs of an actor become a distribution of actions, for learners that need its density."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Normal

from methods.networks.heads import masked_log_softmax


class PolicyHead(Protocol):
    """Outputs are (..., N, A), of N agents; so is `available`, for discrete actions.

    Attributes:
        parameters: what is learned besides the actor.
    """

    parameters: list[Tensor]

    @property
    def noise(self) -> float:
        """Deviation of what is drawn from the action that the outputs stand for; 0 where actions are discrete."""

    def draw(self, outputs: Tensor, available: Tensor | None, generator: torch.Generator) -> Tensor:
        """An action each."""

    def log_probability(self, outputs: Tensor, available: Tensor | None, actions: Tensor) -> Tensor:
        """(..., N)."""

    def entropy(self, outputs: Tensor, available: Tensor | None) -> Tensor:
        """(..., N)."""


class CategoricalHead:
    """A softmax over the available actions (..., N) int64."""

    noise = 0.0

    def __init__(self) -> None:
        self.parameters: list[Tensor] = []

    def draw(self, outputs: Tensor, available: Tensor | None, generator: torch.Generator) -> Tensor:
        """By the largest of log π + Gumbel noise."""
        log_policy = self._log_policy(outputs, available)
        noise = -torch.empty(log_policy.shape).exponential_(generator=generator).log()
        return (log_policy + noise).argmax(dim=-1)

    def log_probability(self, outputs: Tensor, available: Tensor | None, actions: Tensor) -> Tensor:
        """Log π(a)."""
        return self._log_policy(outputs, available).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, outputs: Tensor, available: Tensor | None) -> Tensor:
        """−Σ π log π."""
        log_policy = self._log_policy(outputs, available)
        return -(log_policy.exp() * log_policy).sum(dim=-1)

    @staticmethod
    def _log_policy(outputs: Tensor, available: Tensor | None) -> Tensor:
        assert available is not None
        return masked_log_softmax(outputs, available)


class GaussianHead:
    """N(tanh u, σ²) for actions (..., N, A), σ being one learned number; the environment clips what leaves [−1, 1].

    Args:
        sigma: σ at first.
    """

    def __init__(self, sigma: float) -> None:
        self._log_sigma = torch.full((1,), math.log(sigma), requires_grad=True)
        self.parameters: list[Tensor] = [self._log_sigma]

    @property
    def noise(self) -> float:
        """σ."""
        return float(self._log_sigma.detach().exp())

    def draw(self, outputs: Tensor, available: Tensor | None, generator: torch.Generator) -> Tensor:
        """The action tanh u + σ ε."""
        noise = torch.empty(outputs.shape).normal_(generator=generator)
        return outputs.tanh() + self._log_sigma.exp() * noise

    def log_probability(self, outputs: Tensor, available: Tensor | None, actions: Tensor) -> Tensor:
        """Of an agent's whole action, before it is clipped."""
        each: Tensor = self._distribution(outputs).log_prob(actions)  # type: ignore[no-untyped-call]  # torch's
        return each.sum(dim=-1)

    def entropy(self, outputs: Tensor, available: Tensor | None) -> Tensor:
        """A (log σ + ½ log 2πe), the same everywhere."""
        each: Tensor = self._distribution(outputs).entropy()  # type: ignore[no-untyped-call]  # torch's
        return each.sum(dim=-1)

    def _distribution(self, outputs: Tensor) -> Normal:
        return Normal(outputs.tanh(), self._log_sigma.exp(), validate_args=False)
