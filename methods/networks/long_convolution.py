"""Convolutions and residual blocks along a long time axis, stacked over replicas: rows (R, M, L, C), channels last.

The blocks are those of common DDPM networks: weight-standardised convolutions (Qiao et al. 2019), group norm, SiLU, and
the diffusion step as scale and shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from methods.networks.short_convolution import Form, StackedConvolution, as_image, as_rows, stacked
from methods.networks.stacked import StackedLinear
from methods.networks.tap_geometry import Geometry

GROUPS, EPSILON = 8, 1e-5


class LongConvolution(StackedConvolution):
    """R convolutions of one geometry, each one product over gathered neighbourhoods, whatever the length."""

    def form(self, training: bool) -> Form:
        """One product of many rows is faster here than one a row."""
        return "unfolded"


class StandardisedConvolution(LongConvolution):
    """The same with weights of mean 0 and variance 1 over the inputs of each output channel."""

    def effective(self) -> Tensor:
        """(w − mean) / √(variance + 1e-5)."""
        flat = self.weight.flatten(1, 2)  # (R, taps · C_in, C_out)
        centred = flat - flat.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)  # many times faster than torch.var_mean on a CPU
        return (centred * (variance + EPSILON).rsqrt()).view(self.weight.shape)


class GroupNorm(nn.Module):
    """Group norm with eight groups of R replicas, over (L, C / 8) of every row block."""

    def __init__(self, replicas: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(replicas, channels))
        self.shift = nn.Parameter(torch.zeros(replicas, channels))

    def forward(self, y: Tensor) -> Tensor:
        """(R, M, L, C) -> (R, M, L, C)."""
        if y.device.type == "cpu":  # torch's channels-last kernel, which other devices lack
            parts = zip(y.unbind(), self.scale.unbind(), self.shift.unbind(), strict=True)
            normal = [as_rows(nn.functional.group_norm(as_image(a), GROUPS, s, t, EPSILON)) for a, s, t in parts]
            return stacked(normal, y)
        return self.plain(y)

    def plain(self, y: Tensor) -> Tensor:
        """The same in plain operations, for all replicas at once."""
        groups = y.view(*y.shape[:-1], GROUPS, -1)  # (R, M, L, 8, C / 8)
        variance, mean = torch.var_mean(groups, dim=(2, 4), correction=0, keepdim=True)
        normalised = ((groups - mean) * (variance + EPSILON).rsqrt()).flatten(-2)
        return torch.addcmul(self.shift[:, None, None], normalised, self.scale[:, None, None])


class StepBlock(nn.Module):
    """SiLU(GN(conv(SiLU(GN(conv(x)) · (1 + scale) + shift)))) + x, convolutions of kernel 3.

    The last term passes through a 1 × 1 convolution where the channels differ.

    Attributes:
        condition_size: 2 C_out numbers, scale and shift, that each signal is given from outside.
        condition_index: the block's place in the network, for its caller.
    """

    def __init__(self, rows: int, channels: tuple[int, int], generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        n_in, n_out = channels
        self.condition_size, self.condition_index = 2 * n_out, 0
        geometry = Geometry.convolution(rows, 3)
        self.first = StandardisedConvolution(geometry, (n_in, n_out), generators)
        self.first_norm = GroupNorm(len(generators), n_out)
        self.second = StandardisedConvolution(geometry, (n_out, n_out), generators)
        self.second_norm = GroupNorm(len(generators), n_out)
        self.skip = StackedLinear(n_in, n_out, generators) if n_in != n_out else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Rows x (R, M, L, C_in), condition (R, M, 2 C_out) -> (R, M, L, C_out)."""
        scale, shift = condition.unsqueeze(2).chunk(2, dim=-1)  # (R, M, 1, C_out) each
        y = silu(torch.addcmul(shift, self.first_norm(self.first(x)), scale + 1))
        y = silu(self.second_norm(self.second(y)))
        return y + (x if self.skip is None else over_rows(self.skip, x))


def over_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer of (R, B, in) on rows (R, M, L, in) -> (R, M, L, out)."""
    y: Tensor = layer(x.flatten(1, 2))
    return y.view(*x.shape[:3], -1)
