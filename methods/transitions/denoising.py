"""EDM on tokens of transitions: networks, objective, and D(x; σ) for a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.diffusion.edm import DenoiseAt, EDMProcess
from methods.networks.agent_transformer import AgentTransformer
from methods.networks.residual_mlp import ResidualMLP
from methods.networks.token_groups import TokenGroups
from methods.transitions.training import rows_of

PROCESS = EDMProcess()


class TokenDenoiser(Protocol):
    """F of R replicas: tokens (R, B, T, F) and noise levels (R, B, T) -> (R, B, T, F)."""

    def __call__(self, x: Tensor, c_noise: Tensor) -> Tensor: ...


class GroupedMLP(nn.Module):
    """SynthER's network on tokens: one for each, or one for all (`TokenGroups`).

    Args:
        groups: which network computes which token.
        features: F.
        width: W.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self, groups: TokenGroups, features: int, width: int, generators: Sequence[np.random.Generator]
    ) -> None:
        super().__init__()
        self.groups = groups
        self.network = ResidualMLP(features + groups.extra, features, width, generators, groups.copies)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(R, B, T, F), (R, B, T) -> (R, B, T, F)."""
        return self.groups.split(self.network(self.groups.join(x), self.groups.join_levels(c_noise)))


class DenoisingObjective:
    """The weighted error of D at random noise levels, of tokens that stay on the device.

    Args:
        module: F; an `AgentTransformer` has dropout while it is trained.
        groups: whose losses are told apart.
        tokens: (S, T, F) normalised.
        taught: R, the steps that each replica draws from.
        batch_size: transitions an update.
        one_level: all tokens of a transition have the same noise level; else each its own.
        dropout: whether to draw it.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: TokenGroups,
        tokens: Tensor,
        taught: Sequence[NDArray[np.int64]],
        batch_size: int,
        *,
        one_level: bool,
        dropout: bool = True,
    ) -> None:
        self.module, self.copies = module, groups.copies
        self._groups, self._tokens, self._taught, self._batch = groups, tokens, taught, batch_size
        self._levels = 1 if one_level else groups.tokens
        share = module.config.dropout if isinstance(module, AgentTransformer) else 0.0
        self._dropout = share if dropout else 0.0

    def draw(self, generator: np.random.Generator, replica: int) -> tuple[NDArray[Any], ...]:
        """Steps (B,), normal values of levels (B, T or 1) and of noise (B, T, F), what dropout leaves (B, T, ..)."""
        rows = rows_of(self._taught, generator, replica, self._batch)
        levels = generator.standard_normal((self._batch, self._levels), dtype=np.float32)
        noise = generator.standard_normal((self._batch, *self._tokens.shape[1:]), dtype=np.float32)
        if not self._dropout:
            return rows, levels, noise
        assert isinstance(self.module, AgentTransformer)  # nothing else has dropout
        shape = (self._batch, self._groups.tokens, *self.module.config.kept_shape)
        return rows, levels, noise, generator.random(shape, dtype=np.float32) >= self._dropout

    def losses(self, rows: Tensor, levels: Tensor, noise: Tensor, kept: Tensor | None = None) -> Tensor:
        """(R · copies,)."""
        clean = self._tokens.index_select(0, rows.flatten()).view(*rows.shape, *self._tokens.shape[1:])
        losses = PROCESS.losses(
            lambda x, c: self.module(x, c) if kept is None else self.module(x, c, kept),
            clean,
            levels.expand(*levels.shape[:-1], self._groups.tokens),
            noise,
        )  # (R, B, T)
        return self._groups.per_group(losses)

    def after_update(self) -> None:
        """Nothing follows."""


def denoiser_of(network: TokenDenoiser) -> DenoiseAt:
    """D(x; σ) of one replica's F for tokens (M, T, F)."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        levels = torch.full(x.shape[:-1], sigma, dtype=x.dtype, device=x.device)
        return PROCESS.denoised(lambda z, c: network(z[None], c[None])[0], x, levels)

    return denoise
