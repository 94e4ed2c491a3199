"""A one-dimensional U-Net over the time axis of whole episodes, R replicas side by side.

EAQ says "Conv1D-based DDPM" and gives no sizes (Sec. 4.4). This one has the usual parts of DDPM networks for signals,
all inferred: a stem of kernel 7, four levels with two residual blocks and linear attention each, full attention in the
middle, skips from every block, halving by strided convolutions, doubling by repeated rows.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from methods.networks.embeddings import sinusoidal
from methods.networks.long_convolution import GROUPS, LongConvolution, StepBlock, over_rows
from methods.networks.short_convolution import StackedConvolution
from methods.networks.stacked import StackedLinear
from methods.networks.tap_geometry import Geometry
from methods.networks.time_attention import LinearTimeAttention, TimeAttention
from tasks.common.errors import UsageError

STEM_KERNEL = 7


@dataclass(frozen=True)
class ConvUNetConfig:
    """Sizes of the network (inferred).

    Attributes:
        rows: L, time steps of a signal; divisible by 2^(levels − 1), which is 8.
        channels: F, of a signal.
        width: channels of the first level; a multiple of 8, for the group norm.
        multipliers: channels below each level in units of `width`.
    """

    rows: int
    channels: int
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        factor = self.factor(self.multipliers)
        if self.rows < factor or self.rows % factor:
            raise UsageError(f"The U-Net of episodes needs a length divisible by {factor}, not {self.rows} rows.")
        if self.width < GROUPS or self.width % GROUPS:
            raise UsageError(f"The U-Net of episodes needs a width divisible by {GROUPS}, not {self.width}.")

    @staticmethod
    def factor(multipliers: Sequence[int] = (1, 2, 4, 8)) -> int:
        """What a length must be divisible by."""
        return 1 << (len(multipliers) - 1)


class _Level(nn.Module):
    """Two residual blocks, linear attention, and the way to the next level."""

    def __init__(
        self,
        rows: int,
        channels: tuple[int, int],
        change: StackedConvolution,
        generators: Sequence[np.random.Generator],
    ) -> None:
        super().__init__()
        self.first = StepBlock(rows, channels, generators)
        self.second = StepBlock(rows, channels, generators)
        self.attention = LinearTimeAttention(channels[1], generators)
        self.change = change


class ConvUNet(nn.Module):
    """R networks f(x_k, k), weights of replica r drawn from generators[r] alone."""

    def __init__(self, config: ConvUNetConfig, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.config, self.replicas = config, len(generators)
        width, deepest = config.width, len(config.multipliers) - 1
        pairs = list(itertools.pairwise([width, *(width * factor for factor in config.multipliers)]))
        rows = [config.rows // 2**level for level in range(len(pairs))]
        self.stem = LongConvolution(Geometry.convolution(rows[0], STEM_KERNEL), (config.channels, width), generators)
        self.step = nn.ModuleList(StackedLinear(n, 4 * width, generators) for n in (width, 4 * width))

        def change(rows_in: int, channels: tuple[int, int], halved: bool = False) -> LongConvolution:
            geometry = Geometry(rows_in, rows_in // 2, 4, 2) if halved else Geometry.convolution(rows_in, 3)
            return LongConvolution(geometry, channels, generators)

        self.down = nn.ModuleList(
            _Level(rows[i], (n, n), change(rows[i], (n, below), i < deepest), generators)
            for i, (n, below) in enumerate(pairs)
        )
        bottom = pairs[-1][1]
        self.middle_first = StepBlock(rows[-1], (bottom, bottom), generators)
        self.middle_attention = TimeAttention(bottom, generators)
        self.middle_second = StepBlock(rows[-1], (bottom, bottom), generators)
        self.up = nn.ModuleList(
            _Level(rows[i], (below + n, below), change(rows[max(i - 1, 0)], (below, n)), generators)
            for i, (n, below) in reversed(list(enumerate(pairs)))
        )
        self.last = StepBlock(rows[0], (2 * width, width), generators)
        self.head = StackedLinear(width, config.channels, generators)
        # Scale and shift of all blocks as one product: Linear(SiLU(embedding)) of each, side by side.
        blocks = [module for module in self.modules() if isinstance(module, StepBlock)]
        self.condition_sizes = [block.condition_size for block in blocks]
        for index, block in enumerate(blocks):
            block.condition_index = index
        self.condition = StackedLinear(4 * width, sum(self.condition_sizes), generators)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """The clean signals that the network sees in x (R, B, L, F) at diffusion steps k (R, B): (R, B, L, F)."""
        first, second = self.step
        embedding = second(gelu(first(sinusoidal(k, self.config.width).to(x.dtype))))  # (R, B, 4 W)
        parts = self.condition(silu(embedding)).split(self.condition_sizes, dim=-1)  # (R, B, 2 C) each

        def block(module: StepBlock, y: Tensor) -> Tensor:
            z: Tensor = module(y, parts[module.condition_index])
            return z

        y = stem = self.stem(x)
        skips: list[Tensor] = []
        for level in cast("list[_Level]", list(self.down)):
            y = block(level.first, y)
            skips.append(y)
            y = level.attention(block(level.second, y))
            skips.append(y)
            y = level.change(y)
        y = block(self.middle_second, self.middle_attention(block(self.middle_first, y)))
        for index, level in enumerate(cast("list[_Level]", list(self.up))):
            y = block(level.first, torch.cat([y, skips.pop()], dim=-1))
            y = level.attention(block(level.second, torch.cat([y, skips.pop()], dim=-1)))
            y = level.change(y if index == len(self.up) - 1 else y.repeat_interleave(2, dim=2))
        return over_rows(self.head, block(self.last, torch.cat([y, stem], dim=-1)))

    def fix(self) -> None:
        """Makes the weights final: no gradients, and convolutions prepared once."""
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, StackedConvolution):
                module.fix()


Inference = Callable[[Tensor, Tensor], Tensor]
_SLICE_VALUES = 2**19
"""Floats of the largest activation of a slice on a CPU: small enough for the cache."""


def prepared(unet: ConvUNet) -> Inference:
    """The network with its weights as they are now, for sampling: `forward` without gradients, the same within 1e-5.

    Convolutions are prepared once, and on a CPU a large batch is taken in slices of bounded memory.
    """
    fixed = copy.deepcopy(unet)
    fixed.fix()
    config = unet.config
    per_signal = unet.replicas * config.rows * max(STEM_KERNEL * config.channels, 6 * config.width)

    @torch.no_grad()
    def denoise(x: Tensor, k: Tensor) -> Tensor:
        size = x.shape[1] if x.device.type != "cpu" else max(1, _SLICE_VALUES // per_signal)
        slices = zip(torch.split(x, size, dim=1), torch.split(k, size, dim=1), strict=True)
        return torch.cat([fixed(*one) for one in slices], dim=1)

    return denoise
