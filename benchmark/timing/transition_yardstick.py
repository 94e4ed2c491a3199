"""What models of transitions are timed against: the networks of SynthER and INS written the obvious way.

`torch.nn.Linear`, `LayerNorm` and `Dropout`, one network at a time, eager and in float32; sparsemax by a sort, with
autograd's gradient. The same functions as those of `methods.networks` of one replica (tests copy the weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.diffusion.edm import EDMProcess

WIDTH, EMBEDDED, LAYERS, FREQUENCIES = 2048, 128, 6, 8  # SynthER's repository
SIZE, HEADS, BLOCKS, FEED_FORWARD, DROPOUT = 64, 4, 2, 256, 0.1  # INS, Tab. A4


class Fourier(nn.Module):
    """[c, sin 2πfc, cos 2πfc] of fixed normal frequencies."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(FREQUENCIES, generator=torch.Generator().manual_seed(0)))

    def forward(self, c: Tensor) -> Tensor:
        """(...) -> (..., 17)."""
        angles = 2 * math.pi * c.unsqueeze(-1) * self.frequencies
        return torch.cat([c.unsqueeze(-1), angles.sin(), angles.cos()], dim=-1)


class PlainResidualMLP(nn.Module):
    """SynthER's denoiser (denoiser_network.py): F of features and noise level."""

    def __init__(self, features: int, width: int = WIDTH) -> None:
        super().__init__()
        self.level = nn.Sequential(
            Fourier(), nn.Linear(1 + 2 * FREQUENCIES, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED)
        )
        self.token, self.widen = nn.Linear(features, EMBEDDED), nn.Linear(EMBEDDED, width)
        self.residual = nn.ModuleList(nn.Linear(width, width) for _ in range(LAYERS))
        self.out = nn.Linear(width, features)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, F) and (B,) -> (B, F)."""
        x = self.widen(self.token(x) + self.level(c_noise))
        for layer in self.residual:
            x = x + layer(x.relu())
        out: Tensor = self.out(x.relu())
        return out


def plain_sparsemax(z: Tensor) -> Tensor:
    """INS, Eq. 3 to 6, over the last axis: [z − τ(z)]₊."""
    ordered = z.sort(dim=-1, descending=True).values
    partial = ordered.cumsum(dim=-1) - 1
    ranks = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    support = (ranks * ordered > partial).sum(dim=-1, keepdim=True)
    return (z - partial.gather(-1, support - 1) / support).clamp(min=0)


class PlainAttention(nn.Module):
    """Multi-head attention with sparsemax, or softmax, in place of the weights' usual scaling (INS, Sec. 4.1)."""

    def __init__(self, size: int = SIZE, heads: int = HEADS, *, sparse: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.out, self.heads, self.sparse = nn.Linear(size, size), heads, sparse

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        batch, n, size = x.shape
        q, k, v = (
            layer(x).view(batch, n, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        logits = q @ k.transpose(-1, -2)
        p = plain_sparsemax(logits) if self.sparse else logits.softmax(dim=-1)
        out: Tensor = self.out((p / size**0.5 @ v).transpose(1, 2).reshape(batch, n, size))
        return out


class PlainTransformer(nn.Module):
    """INS' denoiser (App. K.1): F of the tokens of all agents and one noise level."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.level = Fourier()
        self.embed, self.out = nn.Linear(features + 1 + 2 * FREQUENCIES, SIZE), nn.Linear(SIZE, features)
        self.attention = nn.ModuleList(PlainAttention() for _ in range(BLOCKS))
        self.feed_forward = nn.ModuleList(
            nn.Sequential(nn.Linear(SIZE, FEED_FORWARD), nn.ReLU(), nn.Linear(FEED_FORWARD, SIZE))
            for _ in range(BLOCKS)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(SIZE) for _ in range(2 * BLOCKS))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(B, N, F) and (B, N) -> (B, N, F)."""
        x = self.embed(torch.cat([x, self.level(c_noise)], dim=-1))
        for block in range(BLOCKS):
            x = self.norms[2 * block](x + self.dropout(self.attention[block](x)))
            x = self.norms[2 * block + 1](x + self.dropout(self.feed_forward[block](x)))
        out: Tensor = self.out(x)
        return out


def plain_updates(
    network: nn.Module, tokens: Tensor, batch_size: int, count: int, *, max_norm: float | None, **adam: float
) -> Callable[[], None]:
    """So many training steps: a batch of tokens (S, ..., F), noise, EDM's loss, its gradient clipped or not, AdamW."""
    optimiser, process = torch.optim.AdamW(network.parameters(), **adam), EDMProcess()  # type: ignore[arg-type]
    device = tokens.device
    generator = torch.Generator(device).manual_seed(0)

    def train() -> None:
        network.train()
        for _ in range(count):
            clean = tokens[torch.randint(len(tokens), (batch_size,), device=device, generator=generator)]
            level = torch.randn(batch_size, device=device, generator=generator)
            level = level.view(-1, *(1,) * (clean.dim() - 2)).expand(clean.shape[:-1])
            noise = torch.randn(clean.shape, device=device, generator=generator)
            loss = process.losses(network, clean, level, noise).mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            if max_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), max_norm)
            optimiser.step()

    return train
