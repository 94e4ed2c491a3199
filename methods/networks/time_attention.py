"""Attention along the time axis of rows (R, M, L, C), stacked over replicas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.long_convolution import over_rows
from methods.networks.stacked import StackedLinear

HEADS, HEAD_SIZE = 4, 32


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each row, with a learned gain and no shift."""

    def __init__(self, replicas: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(replicas, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(R, M, L, C) -> (R, M, L, C)."""
        normal: Tensor = nn.functional.layer_norm(x, x.shape[-1:]) * self.gain
        return normal


class TimeAttention(nn.Module):
    """x + out(softmax(q kᵀ / √d) v) over the L rows of a signal; four heads of 32."""

    def __init__(self, channels: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.norm = ChannelNorm(len(generators), channels)
        self.queries_keys_values = StackedLinear(channels, 3 * HEADS * HEAD_SIZE, generators)
        self.out = StackedLinear(HEADS * HEAD_SIZE, channels, generators)

    def forward(self, x: Tensor) -> Tensor:
        """(R, M, L, C) -> (R, M, L, C)."""
        heads = over_rows(self.queries_keys_values, self.norm(x)).view(*x.shape[:3], 3, HEADS, HEAD_SIZE)
        q, k, v = heads.transpose(2, 4).unbind(3)  # (R, M, heads, L, d) each
        mixed = self.mixed(q, k, v).transpose(2, 3).flatten(-2)  # (R, M, L, heads · d)
        added: Tensor = x + self.finished(over_rows(self.out, mixed))
        return added

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values (..., L, d) as the queries ask for them."""
        weights = (q @ k.mT * HEAD_SIZE**-0.5).softmax(dim=-1)  # (..., L, L)
        mixed: Tensor = weights @ v
        return mixed

    def finished(self, y: Tensor) -> Tensor:
        """What is added to x."""
        return y


class LinearTimeAttention(TimeAttention):
    """x + norm(out(q (kᵀ v))), q a softmax over its channels by √d, k one over the rows (Shen et al. 2021)."""

    def __init__(self, channels: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__(channels, generators)
        self.last_norm = ChannelNorm(len(generators), channels)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Linear in L."""
        context = k.softmax(dim=-2).mT @ v  # (..., d, d)
        mixed: Tensor = q.softmax(dim=-1) @ context * HEAD_SIZE**-0.5
        return mixed

    def finished(self, y: Tensor) -> Tensor:
        """Normalised over the channels."""
        normal: Tensor = self.last_norm(y)
        return normal
