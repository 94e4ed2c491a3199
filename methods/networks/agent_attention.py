"""Attention between the agents of a window, R replicas side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import StackedLinear

HEADS = 4


class AgentAttention(nn.Module):
    """x + g · attention over agents; g starts at 0, so that agents start independent.

    Keys and queries have C / 16 channels a head, values C / 4, of four heads. Channels and rows of an agent are one
    vector: softmax(q kᵀ / √(L · C / 16)) over agents.
    """

    def __init__(self, channels: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.query_size = HEADS * (channels // 16)
        self.condition_size, self.condition_index = 2 * self.query_size + channels, 0
        self.projection = StackedLinear(channels, self.condition_size, generators)
        self.gate = nn.Parameter(torch.zeros(len(generators), 1, 1, 1))

    def forward(self, x: Tensor, condition: Tensor, agents: int) -> Tensor:
        """Rows x (R, B · N, L, C), condition (R, B · N, C_q + C_k + C_v) -> (R, B · N, L, C)."""
        replicas, m, rows, channels = x.shape
        mapped = self.projection(x.flatten(1, 2)).view(replicas, m, rows, -1) + condition.unsqueeze(2)
        mapped = mapped.view(replicas * (m // agents), agents, rows, -1)  # (R · B, N, L, C_q + C_k + C_v)
        q, k, v = (_by_head(part) for part in mapped.split((self.query_size, self.query_size, channels), dim=-1))
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)  # (R · B, heads, N, N)
        out = (weights @ v).view(*weights.shape[:3], rows, -1).permute(0, 2, 3, 1, 4)  # (R · B, N, L, heads, C / 4)
        return torch.addcmul(x, self.gate, out.reshape(x.shape))


def _by_head(part: Tensor) -> Tensor:
    """(B, N, L, heads · C) -> (B, heads, N, L · C)."""
    return part.view(*part.shape[:-1], HEADS, -1).permute(0, 3, 1, 2, 4).flatten(3)
