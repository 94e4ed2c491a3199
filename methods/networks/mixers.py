"""From the values of single agents to that of the team, with weights that depend on the state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from methods.networks.stacked import StackedLinear


class LinearMixer(nn.Module):
    """w = |W_w x + b_w| and b = W_b x + b_b with x = ReLU(W s): OMIGA's mixer for R teams."""

    def __init__(self, state_size: int, hidden: int, n_agents: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.encoder = StackedLinear(state_size, hidden, generators)
        self.weight = StackedLinear(hidden, n_agents, generators)
        self.bias = StackedLinear(hidden, 1, generators)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States (R, B, K) -> weights (R, B, N), at least 0, and bias (R, B)."""
        x = self.encoder(states).relu()
        return self.weight(x).abs(), self.bias(x).squeeze(-1)
