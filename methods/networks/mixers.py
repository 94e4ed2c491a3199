"""From the values of single agents to that of the team, with weights that depend on the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import elu

from methods.networks.stacked import StackedLinear, StackedMLP


class LinearMixer(nn.Module):
    """w = |W_w x + b_w| and b = W_b x + b_b with x = ReLU(W s): OMIGA's mixer for R teams.

    OffPyMARL's has x = W s (`relu` false): w is then the absolute value of an affine function of the state.
    """

    def __init__(
        self,
        state_size: int,
        hidden: int,
        n_agents: int,
        generators: Sequence[np.random.Generator],
        *,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.relu = relu
        self.encoder = StackedLinear(state_size, hidden, generators)
        self.weight = StackedLinear(hidden, n_agents, generators)
        self.bias = StackedLinear(hidden, 1, generators)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States (R, B, K) -> weights (R, B, N), at least 0, and bias (R, B)."""
        x = self.encoder(states)
        x = x.relu() if self.relu else x
        return self.weight(x).abs(), self.bias(x).squeeze(-1)


class ICQMixer(nn.Module):
    """k_i = κ_i / Σ_j κ_j, κ = |W_1 s + b_1| |W_2 s + b_2| over an embedding: ICQ's mixer for R teams.

    Q_tot = Σ_i k_i Q_i has no bias: a weighted mean of the agents' values (Yang et al. 2021 and their repository).
    """

    def __init__(self, state_size: int, hidden: int, n_agents: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.n_agents = n_agents
        self.by_agent = StackedLinear(state_size, n_agents * hidden, generators)
        self.last = StackedLinear(state_size, hidden, generators)

    def forward(self, states: Tensor) -> Tensor:
        """States (R, B, K) -> weights (R, B, N), at least 0 and of sum 1."""
        first: Tensor = self.by_agent(states).abs().unflatten(-1, (self.n_agents, -1))  # (R, B, N, H)
        products: Tensor = (first @ self.last(states).abs().unsqueeze(-1)).squeeze(-1)  # (R, B, N)
        return products / products.sum(dim=-1, keepdim=True)


class MixingNet(NamedTuple):
    """QMIX's mixing network of each state: first layer (R, ..., N, E) and (R, ..., E), second (R, ..., E) and (R, ...).

    No weight is negative, so that the team's value never falls when that of an agent rises.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def total(self, values: Tensor) -> Tensor:
        """Q_tot = elu(q W_1 + b_1) w_2 + V of one value an agent: (R, ..., N) -> (R, ...)."""
        return self.totals(values.unsqueeze(-2)).squeeze(-1)

    def totals(self, values: Tensor) -> Tensor:
        """`total` of C candidates in each state: (R, ..., C, N) -> (R, ..., C)."""
        hidden = elu(values @ self.first + self.first_bias.unsqueeze(-2))  # (R, ..., C, E)
        return (hidden @ self.second.unsqueeze(-1)).squeeze(-1) + self.second_bias.unsqueeze(-1)


class QMixer(nn.Module):
    """QMIX's monotonic mixer (Rashid et al. 2018, Sec. 4.1) for R teams: hypernetworks from the state to `MixingNet`.

    W_1 = |K -> H -> N · E|, b_1 = K -> E, w_2 = |K -> H -> E|, V = K -> E -> 1, ReLU inside.

    Args:
        state_size: K.
        n_agents: N.
        embed: E, width of the mixing network.
        hidden: H, of the two hypernetworks of weights.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self, state_size: int, n_agents: int, embed: int, hidden: int, generators: Sequence[np.random.Generator]
    ) -> None:
        super().__init__()
        self.n_agents, self.embed = n_agents, embed
        self.first = StackedMLP((state_size, hidden, n_agents * embed), generators)
        self.first_bias = StackedLinear(state_size, embed, generators)
        self.second = StackedMLP((state_size, hidden, embed), generators)
        self.second_bias = StackedMLP((state_size, embed, 1), generators)

    def forward(self, states: Tensor) -> MixingNet:
        """States (R, ..., K) -> the mixing network of each."""
        lead, flat = states.shape[:-1], states.flatten(1, -2)  # (R, M, K)
        return MixingNet(
            self.first(flat).abs().view(*lead, self.n_agents, self.embed),
            self.first_bias(flat).view(*lead, self.embed),
            self.second(flat).abs().view(*lead, self.embed),
            self.second_bias(flat).view(lead),
        )
