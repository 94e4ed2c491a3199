"""ICQ's critic: values of single agents, and the mixer that makes them the team's, of R teams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.agents import with_agent_id
from methods.networks.dueling import DuelingNet, seen_by_agents
from methods.networks.mixers import ICQMixer
from methods.networks.stacked import StackedMLP
from tasks.spec import TaskSpec


class ICQCritic(nn.Module):
    """Q_i and the mixer of R teams.

    Discrete: s ⊕ o_i ⊕ id -> H -> H -> V + Adv(a), dueling without a mean; continuous: o_i ⊕ id ⊕ a_i -> H -> H -> 1.

    Args:
        spec: the task.
        sizes: of a state, K, and a hidden layer, H.
        mixer_hidden: embedding of the mixer.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self,
        spec: TaskSpec,
        sizes: tuple[int, int],
        mixer_hidden: int,
        generators: Sequence[np.random.Generator],
    ) -> None:
        super().__init__()
        self.discrete, a, (k, h) = spec.action.discrete, spec.action.size, sizes
        own = spec.obs_dim + spec.n_agents
        self.net: nn.Module = (
            DuelingNet((k + own, h, a), generators) if self.discrete else StackedMLP((own + a, h, h, 1), generators)
        )
        self.mixer = ICQMixer(k, mixer_hidden, spec.n_agents, generators)

    def values(self, states: Tensor, observations: Tensor) -> Tensor:
        """Q_i of all choices: (R, ..., K), scaled (R, ..., N, D) -> (R, ..., N, A)."""
        return self._each(seen_by_agents(states, observations))

    def q(self, states: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Q_i of one action each: (R, ..., K), (R, ..., N, D), (R, ..., N) or (R, ..., N, A) -> (R, ..., N)."""
        if self.discrete:
            return self.values(states, observations).gather(-1, actions[..., None])[..., 0]
        return self._each(torch.cat([with_agent_id(observations), actions], dim=-1))[..., 0]

    def mixture(self, states: Tensor) -> Tensor:
        """k_i(s), at least 0 and of sum 1: (R, ..., K) -> (R, ..., N)."""
        k: Tensor = self.mixer(states.flatten(1, -2))  # (R, M, N)
        return k.view(*states.shape[:-1], -1)

    def total(self, states: Tensor, q: Tensor) -> Tensor:
        """Σ_i k_i(s) Q_i: (R, ..., K), (R, ..., N) -> (R, ...)."""
        return (self.mixture(states) * q).sum(dim=-1)

    def _each(self, x: Tensor) -> Tensor:
        """One network for all agents: (R, ..., N, F) -> (R, ..., N, A or 1)."""
        y: Tensor = self.net(x.flatten(1, -2))  # (R, M · N, out)
        return y.view(*x.shape[:-1], -1)
