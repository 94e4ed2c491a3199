"""What the diffusion augmenters are timed against: MADiff's temporal U-Net written the obvious way.

`torch.nn.Conv1d`, `GroupNorm` and `Mish` on (B · N, C, L), eager and in float32, every module its own call; the same
function as `methods.networks.temporal_unet.TemporalUNet` of one replica (a test copies the weights).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

WIDTH, MULTIPLIERS, KERNEL, GROUPS, HEADS = 128, (1, 4, 8), 5, 8, 4


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear maps with Mish between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.Mish()]
    return nn.Sequential(*layers[:-1])


def conv_block(n_in: int, n_out: int) -> nn.Sequential:
    """Convolution, group norm, Mish."""
    return nn.Sequential(nn.Conv1d(n_in, n_out, KERNEL, padding=KERNEL // 2), nn.GroupNorm(GROUPS, n_out), nn.Mish())


class Residual(nn.Module):
    """Two convolution blocks with the condition between them, around a skip connection."""

    def __init__(self, n_in: int, n_out: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = conv_block(n_in, n_out), conv_block(n_out, n_out)
        self.condition = nn.Sequential(nn.Mish(), nn.Linear(condition, n_out))
        self.skip = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(M, C_in, L) and (M, E) -> (M, C_out, L)."""
        y: Tensor = self.second(self.first(x) + self.condition(condition).unsqueeze(-1)) + self.skip(x)
        return y


class Attention(nn.Module):
    """Multi-head attention over agents, added with a learned weight that starts at zero."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        sizes = {"query": HEADS * (channels // 16), "key": HEADS * (channels // 16), "value": channels}
        self.maps = nn.ModuleDict({name: nn.Conv1d(channels, size, 1) for name, size in sizes.items()})
        self.conditions = nn.ModuleDict(
            {name: nn.Sequential(nn.Mish(), nn.Linear(condition, size)) for name, size in sizes.items()}
        )
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, condition: Tensor, agents: int) -> Tensor:
        """(B · N, C, L) and (B · N, E) -> (B · N, C, L)."""
        split = {
            name: (self.maps[name](x) + self.conditions[name](condition).unsqueeze(-1))
            .view(-1, agents, HEADS, self.maps[name].out_channels // HEADS * x.shape[-1])  # type: ignore[operator]
            .transpose(1, 2)  # (B, heads, N, C' · L)
            for name in self.maps
        }
        scores = split["query"] @ split["key"].transpose(2, 3) / split["query"].shape[-1] ** 0.5
        out = (scores.softmax(dim=-1) @ split["value"]).transpose(1, 2).reshape(x.shape)
        y: Tensor = x + self.gate * out
        return y


def _through(blocks: nn.Module, y: Tensor, condition: Tensor) -> Tensor:
    for block in blocks:  # type: ignore[attr-defined]  # a ModuleList
        y = block(y, condition)
    return y


class Yardstick(nn.Module):
    """ε̂ of windows (B, H, N, D), sharing its weights among agents; 64 M parameters at the published width."""

    def __init__(self, features: int, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        condition = 2 * width
        self.time = perceptron(width, 4 * width, width)
        self.returns = perceptron(1, width, 4 * width, width)
        sizes = [width * factor for factor in MULTIPLIERS]

        def pair(n_in: int, n_out: int) -> nn.ModuleList:
            return nn.ModuleList([Residual(n_in, n_out, condition), Residual(n_out, n_out, condition)])

        levels = list(itertools.pairwise(sizes))
        self.down = nn.ModuleList([pair(features, sizes[0]), *(pair(*level) for level in levels)])
        self.shrink = nn.ModuleList(nn.Conv1d(size, size, 3, stride=2, padding=1) for size in sizes[:-1])
        self.middle = pair(sizes[-1], sizes[-1])
        self.up = nn.ModuleList(pair(2 * coarse, fine) for fine, coarse in reversed(levels))
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(fine, fine, 4, stride=2, padding=1) for fine, _ in reversed(levels)
        )
        self.attention = nn.ModuleList(Attention(size, condition) for size in (sizes[-1], *sizes[:0:-1]))
        self.last = nn.Sequential(conv_block(sizes[0], sizes[0]), nn.Conv1d(sizes[0], features, 1))

    def forward(self, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
        """Windows (B, H, N, D), steps (B,), returns and keep (B, N) -> (B, H, N, D)."""
        batch, horizon, n, features = x.shape
        half = self.width // 2
        angles = k[:, None] * 10_000 ** (-torch.arange(half, device=x.device) / (half - 1))
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1).to(x.dtype))  # (B, W)
        wanted = self.returns(returns.reshape(-1, 1)) * keep.reshape(-1, 1)  # (B · N, W)
        condition = torch.cat([time.repeat_interleave(n, dim=0), wanted], dim=-1)
        y = x.permute(0, 2, 3, 1).reshape(batch * n, features, horizon)
        skips = []
        for level, blocks in enumerate(self.down):
            y = _through(blocks, y, condition)
            skips.append(y)
            y = self.shrink[level](y) if level < len(self.shrink) else y
        y = self.attention[0](_through(self.middle, y, condition), condition, n)
        for index, blocks in enumerate(self.up):
            y = torch.cat([y, self.attention[index + 1](skips.pop(), condition, n)], dim=1)
            y = self.grow[index](_through(blocks, y, condition))
        noise: Tensor = self.last(y)  # (B · N, D, H)
        return noise.view(batch, n, features, horizon).permute(0, 3, 1, 2)
