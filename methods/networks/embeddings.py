"""What a denoiser is told besides its input: the diffusion step, the return asked for, and labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mish

from methods.networks.stacked import StackedLinear


def sinusoidal(steps: Tensor, size: int) -> Tensor:
    """Diffusion steps (...) as sines, then cosines (..., size) of the frequencies 10000^(−j / (size/2 − 1))."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half, device=steps.device) * (-math.log(10_000) / (half - 1)))  # (size / 2,)
    angles = steps.unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class FourierFeatures(nn.Module):
    """Random Fourier features of a number: [c, sin 2πfc, cos 2πfc], F fixed normal frequencies (SynthER's repository).

    The frequencies of group g come from its replica's generator and are no parameters, but part of the state.
    """

    frequencies: Tensor

    def __init__(self, count: int, generators: Sequence[np.random.Generator], copies: int = 1) -> None:
        super().__init__()
        drawn = [generator.standard_normal((copies, 1, count), dtype=np.float32) for generator in generators]
        self.register_buffer("frequencies", torch.from_numpy(np.concatenate(drawn)))  # (G, 1, F)
        self.size = 1 + 2 * count

    def forward(self, c: Tensor) -> Tensor:
        """(G, M) -> (G, M, 1 + 2F)."""
        c = c.unsqueeze(-1)
        angles = c * self.frequencies * (2 * math.pi)
        return torch.cat([c, angles.sin(), angles.cos()], dim=-1)


class MishPerceptron(nn.Module):
    """R perceptrons with Mish between the layers: (R, B, in) -> (R, B, out)."""

    def __init__(self, sizes: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList(StackedLinear(n_in, n_out, generators) for n_in, n_out in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, sizes[0]) -> (R, B, sizes[-1])."""
        for index, layer in enumerate(self.layers):
            x = layer(mish(x) if index else x)
        return x


class Conditions(nn.Module):
    """The embedding of step, return and (optionally) labels of every agent of every window, side by side.

    The null condition is a zero return embedding, not a zero return (MADiff's implementation).
    """

    def __init__(self, width: int, label_size: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.width, self.size = width, width * (3 if label_size else 2)
        self.time = MishPerceptron((width, 4 * width, width), generators)
        self.returns = MishPerceptron((1, width, 4 * width, width), generators)
        self.labels = MishPerceptron((label_size, width, 4 * width, width), generators) if label_size else None

    def forward(self, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None) -> Tensor:
        """Steps k (R, B), returns and keep (R, B, N), labels (R, B, N, L) -> (R, B, N, size)."""
        replicas, batch, n = returns.shape
        time = self.time(sinusoidal(k, self.width).to(returns.dtype))  # (R, B, W)
        wanted = self.returns(returns.reshape(replicas, batch * n, 1)).view(replicas, batch, n, -1)
        parts = [time.unsqueeze(2).expand(-1, -1, n, -1), wanted * keep.unsqueeze(-1)]
        if self.labels is not None and labels is not None:
            parts.append(self.labels(labels.flatten(1, 2)).view(replicas, batch, n, -1))
        return torch.cat(parts, dim=-1)
