"""ICQ's critic: values of single agents, and the mixer that makes them the team's, of R teams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.agents import with_agent_id
from methods.networks.mixers import ICQMixer
from methods.networks.stacked import StackedLinear, StackedMLP
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
        self.discrete, (k, h) = spec.action.discrete, sizes
        own = spec.obs_dim + spec.n_agents
        self.trunk = StackedMLP((k + own if self.discrete else own + spec.action.size, h, h), generators)
        self.value = StackedLinear(h, 1, generators)
        self.advantage = StackedLinear(h, spec.action.size, generators) if self.discrete else None
        self.mixer = ICQMixer(k, mixer_hidden, spec.n_agents, generators)

    def values(self, states: Tensor, observations: Tensor) -> Tensor:
        """Q_i of all choices: (R, B, K), scaled (R, B, N, D) -> (R, B, N, A)."""
        of_team = states.unsqueeze(2).expand(-1, -1, observations.shape[2], -1)  # (R, B, N, K)
        return self._heads(torch.cat([of_team, with_agent_id(observations)], dim=-1))

    def q(self, states: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Q_i of one action each: (R, B, K), (R, B, N, D), (R, B, N) or (R, B, N, A) -> (R, B, N)."""
        if self.discrete:
            return self.values(states, observations).gather(-1, actions[..., None])[..., 0]
        return self._heads(torch.cat([with_agent_id(observations), actions], dim=-1))[..., 0]

    def total(self, states: Tensor, q: Tensor) -> Tensor:
        """Σ_i k_i(s) Q_i: (R, B, K), (R, B, N) -> (R, B)."""
        total: Tensor = (self.mixer(states) * q).sum(dim=-1)
        return total

    def _heads(self, x: Tensor) -> Tensor:
        """(R, B, N, F) -> (R, B, N, A or 1)."""
        y = self.trunk(x.flatten(1, 2)).relu()  # (R, B · N, H)
        q: Tensor = self.value(y)
        if self.advantage is not None:
            q = q + self.advantage(y)
        return q.view(*x.shape[:3], -1)
