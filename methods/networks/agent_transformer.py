"""INS' denoiser: a transformer whose tokens are the agents of one joint transition (INS, App. K.1, Tab. A4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import require
from methods.networks.embeddings import FourierFeatures
from methods.networks.sparsemax import sparsemax
from methods.networks.stacked import StackedLinear, StackedMLP, uniform_slices

ATTENTIONS = ("sparse", "dense", "none")
"""Sparsemax, softmax, or a perceptron that keeps the agents apart (INS, Sec. 5.3)."""
SCALES = ("post", "pre")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Sizes; tokens are of `features` values."""

    features: int
    embedding: int = 64  # d_e; INS, Tab. A4
    heads: int = 4  # INS, Tab. A4
    blocks: int = 2  # INS, Tab. A4; 4 in App. K.1
    feed_forward: int = 256  # inferred
    dropout: float = 0.1  # INS, Tab. A4
    frequencies: int = 8  # 16 Fourier features; INS, Tab. A4
    attention: str = "sparse"
    attn_scale: str = "post"  # P / √d_e after sparsemax, INS, Sec. 4.1; "pre": logits / √(d_e / heads)
    agent_ids: int = 0  # length of a one-hot index beside each token; 0: none, as INS

    def __post_init__(self) -> None:
        require(self.attention in ATTENTIONS, "ins", f"attention={self.attention}", " or ".join(ATTENTIONS))
        require(self.attn_scale in SCALES, "ins", f"attn_scale={self.attn_scale}", " or ".join(SCALES))
        for name in ("embedding", "heads", "blocks", "feed_forward"):
            value = getattr(self, name)
            require(value >= 1, "ins", f"{name}={value}", "a whole number, 1 or more")
        fits = self.embedding % self.heads == 0
        require(fits, "ins", f"embedding={self.embedding} with heads={self.heads}", "a multiple of the heads")
        require(0 <= self.dropout < 1, "ins", f"dropout={self.dropout}", "a share below 1")

    @property
    def kept_shape(self) -> tuple[int, int]:
        """Of the dropout of one token: sub-layers, and features of each."""
        return 2 * self.blocks, self.embedding


class AgentAttention(nn.Module):
    """Multi-head attention between tokens; weights by sparsemax or softmax."""

    def __init__(self, config: TransformerConfig, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        size = config.embedding
        self.config = config
        self.projections = uniform_slices(generators, 1, (size, 3 * size), size**-0.5)  # W^Q, W^K, W^V: no bias, INS
        self.out = StackedLinear(size, size, generators)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """P of queries and keys (..., heads, N, d): (..., heads, N, N), each row of sum 1."""
        logits = q @ k.mT
        if self.config.attn_scale == "pre":
            logits = logits * q.shape[-1] ** -0.5
        return sparsemax(logits) if self.config.attention == "sparse" else logits.softmax(dim=-1)

    def forward(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """(R, B, N, E) -> (R, B, N, E); the weights (R, B, heads, N, N) are appended to `seen`."""
        replicas, batch, n, size = x.shape
        heads = self.config.heads
        projected = torch.bmm(x.flatten(1, 2), self.projections).view(replicas, batch, n, 3, heads, size // heads)
        q, k, v = projected.permute(3, 0, 1, 4, 2, 5)  # (R, B, heads, N, d) each
        p = self.weights(q, k)
        if seen is not None:
            seen.append(p)
        if self.config.attn_scale == "post":
            p = p * size**-0.5
        mixed = (p @ v).transpose(2, 3).reshape(replicas, batch * n, size)
        out: Tensor = self.out(mixed)
        return out.view(x.shape)


class TokenPerceptron(nn.Module):
    """In place of attention: E - E - E with a ReLU, each token by itself (`ins-no-attention`)."""

    def __init__(self, size: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.layers = StackedMLP((size, size, size), generators)

    def forward(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """(R, B, N, E) -> (R, B, N, E)."""
        out: Tensor = self.layers(x.flatten(1, 2))
        return out.view(x.shape)


class StackedLayerNorm(nn.Module):
    """Layer normalisation over the last axis, gain and shift of each replica its own."""

    def __init__(self, size: int, replicas: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(replicas, 1, size))
        self.shift = nn.Parameter(torch.zeros(replicas, 1, size))

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, N, E) -> (R, B, N, E)."""
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.shift.unsqueeze(1), normal, self.gain.unsqueeze(1))


class AgentTransformer(nn.Module):
    """Blocks of attention and feed-forward, each with a residual and a layer norm behind it, between two Linears.

    The noise level's Fourier features stand beside each token. No order of the agents is told unless `agent_ids`, so
    the network is equivariant to their permutations. INS' text has no residual around the feed-forward part; it is
    included, as transformers have it (inferred).

    Args:
        config: sizes.
        generators: of the initial weights, one a replica.
    """

    def __init__(self, config: TransformerConfig, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.config, size, replicas = config, config.embedding, len(generators)
        self.level = FourierFeatures(config.frequencies, generators)
        self.embed = StackedLinear(config.features + config.agent_ids + self.level.size, size, generators)
        between: list[nn.Module] = [
            TokenPerceptron(size, generators) if config.attention == "none" else AgentAttention(config, generators)
            for _ in range(config.blocks)
        ]
        self.between = nn.ModuleList(between)
        self.feed_forward = nn.ModuleList(
            StackedMLP((size, config.feed_forward, size), generators) for _ in range(config.blocks)
        )
        self.norms = nn.ModuleList(StackedLayerNorm(size, replicas) for _ in range(2 * config.blocks))
        self.out = StackedLinear(size, config.features, generators)

    def forward(
        self, x: Tensor, c_noise: Tensor, kept: Tensor | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """Tokens to their estimates.

        Args:
            x: (R, B, N, D).
            c_noise: (R, B, N), or (R, B, 1) for all agents.
            kept: (R, B, N, 2 · blocks, E) bool, what dropout leaves after each sub-layer; None: everything, unscaled.
            seen: receives the attention weights of each block, (R, B, heads, N, N).

        Returns:
            (R, B, N, D).
        """
        replicas, batch, n, _ = x.shape
        level = self.level(c_noise.flatten(1)).view(replicas, batch, -1, self.level.size).expand(-1, -1, n, -1)
        parts = [x, level]
        if self.config.agent_ids:
            parts.append(torch.eye(n, device=x.device, dtype=x.dtype).expand(replicas, batch, n, n))
        x = self.embed(torch.cat(parts, dim=-1).flatten(1, 2)).view(replicas, batch, n, -1)
        for block, (mix, feed) in enumerate(zip(self.between, self.feed_forward, strict=True)):
            x = self.norms[2 * block](x + self._dropped(mix(x, seen), kept, 2 * block))
            fed = feed(x.flatten(1, 2)).view(x.shape)
            x = self.norms[2 * block + 1](x + self._dropped(fed, kept, 2 * block + 1))
        out: Tensor = self.out(x.flatten(1, 2))
        return out.view(replicas, batch, n, -1)

    def _dropped(self, x: Tensor, kept: Tensor | None, layer: int) -> Tensor:
        return x if kept is None else x * kept[..., layer, :] * (1 / (1 - self.config.dropout))
