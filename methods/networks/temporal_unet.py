"""The temporal U-Net of MADiff with attention between agents, R replicas side by side.

Zhu et al., "MADiff: Offline Multi-agent Learning with Diffusion Models", Sec. 3.2 and the published implementation,
whose widths these are; MADiTS, MASTARS and CODI use the same network. One set of weights serves all agents of a
replica; agents meet in attention alone. The fourth attention module and the skip of the first level, which the
published network builds and never uses, are left out.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mish

from methods.networks.agent_attention import AgentAttention
from methods.networks.convolution_block import GROUPS, ConvolutionBlock
from methods.networks.embeddings import Conditions
from methods.networks.short_convolution import StackedConvolution
from methods.networks.stacked import StackedLinear
from methods.networks.tap_geometry import Geometry
from tasks.common.errors import UsageError


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the network; the defaults are MADiff's.

    Attributes:
        horizon: H, rows of a window; divisible by 2^(levels − 1), which is 4.
        features: D, observation features of one agent.
        width: channels of the first level and of every embedding; a multiple of 8, for the group norm.
        multipliers: channels of each level in units of `width`.
        attention: False: agents never see each other (DoF).
        first_skip: the last block sees the first level's output beside what comes up. MADiff's network does without,
            so every value takes the way through the second level; with it a short training suffices (inferred option).
        label_size: L, length of the label vector of an agent with its mask; 0: no labels (CODI has them).
    """

    horizon: int
    features: int
    width: int = 128
    multipliers: tuple[int, ...] = (1, 4, 8)
    attention: bool = True
    label_size: int = 0
    first_skip: bool = False

    def __post_init__(self) -> None:
        factor = 2 ** (len(self.multipliers) - 1)
        if self.horizon < factor or self.horizon % factor:
            raise UsageError(f"The temporal U-Net needs a horizon divisible by {factor}, not {self.horizon} rows.")
        if self.width < GROUPS or self.width % GROUPS:
            raise UsageError(f"The temporal U-Net needs a width divisible by {GROUPS}, not {self.width}.")


class ResidualBlock(nn.Module):
    """block(block(x) + condition) + x, the last through a 1 × 1 convolution where the channels differ."""

    def __init__(self, rows: int, channels: tuple[int, int], generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        n_in, n_out = channels
        self.condition_size, self.condition_index = n_out, 0
        self.first = ConvolutionBlock(rows, channels, generators)
        self.second = ConvolutionBlock(rows, (n_out, n_out), generators)
        self.skip = StackedLinear(n_in, n_out, generators) if n_in != n_out else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Rows x (R, M, L, C_in), condition (R, M, C_out) -> (R, M, L, C_out)."""
        y = self.first(x, condition.unsqueeze(2))
        skip = x if self.skip is None else self.skip(x.flatten(1, 2)).view(y.shape)
        out: Tensor = self.second(y, skip)
        return out


class TemporalUNet(nn.Module):
    """R denoisers ε̂(x_k, k, return, labels), weights of replica r drawn from generators[r] alone."""

    def __init__(self, config: UNetConfig, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.config, self.replicas = config, len(generators)
        sizes = [config.width * factor for factor in config.multipliers]
        rows = [config.horizon // 2**level for level in range(len(sizes))]
        self.conditions = Conditions(config.width, config.label_size, generators)

        def pair(level: int, n_in: int, n_out: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(rows[level], channels, generators) for channels in ((n_in, n_out), (n_out, n_out))
            )

        def resample(geometry: Geometry, channels: int) -> StackedConvolution:
            return StackedConvolution(geometry, (channels, channels), generators)

        deepest = len(sizes) - 1
        self.down = nn.ModuleList(
            pair(level, n_in, n_out)
            for level, (n_in, n_out) in enumerate(itertools.pairwise([config.features, *sizes]))
        )
        self.shrink = nn.ModuleList(resample(Geometry.convolution(rows[i], 3, 2), sizes[i]) for i in range(deepest))
        self.middle = pair(deepest, sizes[-1], sizes[-1])
        self.up = nn.ModuleList(pair(i, 2 * sizes[i], sizes[i - 1]) for i in range(deepest, 0, -1))
        self.grow = nn.ModuleList(resample(Geometry.doubling(rows[i]), sizes[i - 1]) for i in range(deepest, 0, -1))
        attended = [sizes[-1], *sizes[:0:-1]] if config.attention else []
        self.attention = nn.ModuleList(AgentAttention(channels, generators) for channels in attended)
        self.last = ConvolutionBlock(rows[0], (sizes[0] * (1 + config.first_skip), sizes[0]), generators)
        self.head = StackedLinear(sizes[0], config.features, generators)
        # The conditions of all blocks as one product: Linear(Mish(embedding)) of each, side by side.
        conditioned = [module for module in self.modules() if isinstance(module, ResidualBlock | AgentAttention)]
        self.condition_sizes = [module.condition_size for module in conditioned]
        for index, module in enumerate(conditioned):
            module.condition_index = index
        self.condition = StackedLinear(self.conditions.size, sum(self.condition_sizes), generators)

    def forward(self, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None = None) -> Tensor:
        """The noise estimate ε̂.

        Args:
            x: (R, B, H, N, D) noisy windows.
            k: (R, B) diffusion steps, 0 the last.
            returns: (R, B, N) the return asked for.
            keep: (R, B, N) bool; False: the return embedding is zero.
            labels: (R, B, N, label_size) masked labels and their mask; None without labels.

        Returns:
            (R, B, H, N, D).
        """
        replicas, batch, horizon, n, features = x.shape
        embedding = mish(self.conditions(k, returns, keep, labels)).flatten(1, 2)  # (R, B · N, E)
        parts = self.condition(embedding).split(self.condition_sizes, dim=-1)  # (R, B · N, C) each

        def blocks(pair: nn.Module, y: Tensor) -> Tensor:
            for block in pair:  # type: ignore[attr-defined]  # a ModuleList
                y = block(y, parts[block.condition_index])
            return y

        def attend(index: int, y: Tensor) -> Tensor:
            if not self.config.attention:
                return y
            module = self.attention[index]
            attended: Tensor = module(y, parts[module.condition_index], n)
            return attended

        y = x.transpose(2, 3).reshape(replicas, batch * n, horizon, features)  # (R, M, H, D)
        skips = []
        for level, pair in enumerate(self.down):
            y = blocks(pair, y)
            skips.append(y)
            if level < len(self.shrink):
                y = self.shrink[level](y)
        y = attend(0, blocks(self.middle, y))
        for index, (pair, grow) in enumerate(zip(self.up, self.grow, strict=True)):
            y = torch.cat([y, attend(index + 1, skips.pop())], dim=-1)
            y = grow(blocks(pair, y))
        y = self.last(torch.cat([y, skips[0]], dim=-1) if self.config.first_skip else y)
        noise: Tensor = self.head(y.flatten(1, 2))  # (R, M · H, D)
        return noise.view(replicas, batch, n, horizon, features).transpose(2, 3)

    def arrays(self) -> list[dict[str, NDArray[np.float32]]]:
        """The weights of each replica by name, without the replica axis."""
        named = {name: p.detach().cpu().numpy() for name, p in self.named_parameters()}
        return [{name: values[r].copy() for name, values in named.items()} for r in range(self.replicas)]

    def load_arrays(self, arrays: Sequence[Mapping[str, NDArray[np.float32]]]) -> None:
        """Takes weights as `arrays` gives them. Raises UsageError for other names, shapes or replicas."""
        expected = {name: tuple(p.shape[1:]) for name, p in self.named_parameters()}
        if len(arrays) != self.replicas:
            raise UsageError(f"The weights are of {len(arrays)} replicas, expected {self.replicas}.")
        for given in arrays:
            if (found := {name: np.shape(values) for name, values in given.items()}) != expected:
                wrong = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
                raise UsageError(f"These weights are not of this network: {wrong[0]} differs.")
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(np.stack([given[name] for given in arrays])))

    @classmethod
    def from_arrays(cls, config: UNetConfig, arrays: Sequence[Mapping[str, NDArray[np.float32]]]) -> TemporalUNet:
        """The network of these weights. Raises UsageError where they do not fit."""
        unet = cls(config, [np.random.default_rng(0) for _ in arrays])  # drawn, and overwritten
        unet.load_arrays(arrays)
        return unet

    def fix(self) -> None:
        """Makes the weights final: no gradients, and convolutions prepared once."""
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, StackedConvolution):
                module.fix()

    def replica(self, index: int) -> TemporalUNet:
        """A copy of one replica, on the same device."""
        return self.from_arrays(self.config, [self.arrays()[index]]).to(next(self.parameters()).device)


Inference = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
_SLICE_VALUES, _WEIGHTS_A_VALUE = 2**19, 16
"""Floats of the largest activation of a slice on a CPU, and how many weights may come on one.

Every slice reads all weights once, so that wide networks want large ones, while those of narrow networks should still
fit into the cache.
"""


def folded(unet: TemporalUNet, dtype: torch.dtype = torch.float32) -> Inference:
    """The network with its weights as they are now, for sampling: `forward` without gradients, the same within 1e-5.

    Convolutions are prepared once, and on a CPU a large batch is taken in slices of bounded memory.

    Args:
        unet: later changes of its weights do not reach the result.
        dtype: bfloat16 computes weights and activations in it, which changes ε̂ by about a percent: an approximation
            to be named where it is used.

    Returns:
        A function with the arguments and the result of `TemporalUNet.forward`; float32 in and out.
    """
    fixed = copy.deepcopy(unet).to(dtype)
    fixed.fix()
    config, replicas = unet.config, unet.replicas
    per_agent = replicas * max(
        config.horizon // 2**level * config.width * factor for level, factor in enumerate(config.multipliers)
    )
    weights = sum(parameter.numel() for parameter in fixed.parameters())
    values = max(_SLICE_VALUES, weights // _WEIGHTS_A_VALUE)

    @torch.no_grad()
    def denoise(x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None = None) -> Tensor:
        size = x.shape[1] if x.device.type != "cpu" else max(1, values // (per_agent * x.shape[3]))
        given = (x.to(dtype), k, returns.to(dtype), keep, None if labels is None else labels.to(dtype))
        slices = zip(*(itertools.repeat(t) if t is None else torch.split(t, size, dim=1) for t in given), strict=False)
        return torch.cat([fixed(*one) for one in slices], dim=1).float()

    return denoise
