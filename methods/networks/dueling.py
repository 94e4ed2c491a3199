"""Values of all discrete actions of each agent, in two streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.agents import with_agent_id
from methods.networks.stacked import StackedLinear, StackedMLP, perceptron


class DuelingNet(nn.Module):
    """x -> H -> H -> V + Adv(a) with ReLU, of R · copies groups; dueling without a mean (ICQ's repository).

    Args:
        sizes: of x, a hidden layer, and A.
        generators: of the initial weights, one a replica.
        copies: groups a replica.
    """

    def __init__(self, sizes: tuple[int, int, int], generators: Sequence[np.random.Generator], copies: int = 1) -> None:
        super().__init__()
        n_in, hidden, n_actions = sizes
        self.trunk = StackedMLP((n_in, hidden, hidden), generators, copies)
        self.value = StackedLinear(hidden, 1, generators, copies)
        self.advantage = StackedLinear(hidden, n_actions, generators, copies)

    def forward(self, x: Tensor) -> Tensor:
        """(G, M, in) -> (G, M, A)."""
        y = self.trunk(x).relu()  # (G, M, H)
        q: Tensor = self.value(y) + self.advantage(y)
        return q


class DuelingTwins(nn.Module):
    """Q^1 and Q^2 of all actions: s ⊕ o_i ⊕ id -> H -> H -> V + Adv(a), shared by the agents; twins share nothing.

    In OffPyMARL and in CFCQL's repository the second twin goes through the last layers of the first; not here.

    Args:
        sizes: of a state K, an observation D, a hidden layer H.
        n_agents: N.
        n_actions: A.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self, sizes: tuple[int, int, int], n_agents: int, n_actions: int, generators: Sequence[np.random.Generator]
    ) -> None:
        super().__init__()
        k, d, hidden = sizes
        self.net = DuelingNet((k + d + n_agents, hidden, n_actions), generators, copies=2)

    def first(self, states: Tensor, observations: Tensor) -> Tensor:
        """Q^1 alone (R, ..., N, A) without a gradient, at half the cost of both."""
        x = seen_by_agents(states, observations)  # (R, ..., N, K + D + N)
        trunk, value, advantage = (  # the slices of a replica's twins lie side by side
            [weights.detach()[::2] for weights in part.parameters()]
            for part in (self.net.trunk, self.net.value, self.net.advantage)
        )
        y = perceptron(trunk, x.flatten(1, -2)).relu()  # (R, M, H)
        return (perceptron(value, y) + perceptron(advantage, y)).view(*x.shape[:-1], -1)

    def forward(self, states: Tensor, observations: Tensor) -> Tensor:
        """States (R, ..., K), scaled observations (R, ..., N, D) -> (2, R, ..., N, A)."""
        x = seen_by_agents(states, observations)  # (R, ..., N, K + D + N)
        both = x.flatten(1, -2).repeat_interleave(2, dim=0)  # (2 R, M, F), the twins of a replica side by side
        q: Tensor = self.net(both)  # (2 R, M, A)
        return q.view(len(x), 2, *x.shape[1:-1], -1).transpose(0, 1)


def seen_by_agents(states: Tensor, observations: Tensor) -> Tensor:
    """State, own observation and id, s ⊕ o_i ⊕ id, of each agent: (..., K), (..., N, D) -> (..., N, K + D + N)."""
    of_team = states.unsqueeze(-2).expand(*observations.shape[:-1], -1)  # (..., N, K)
    return torch.cat([of_team, with_agent_id(observations)], dim=-1)
