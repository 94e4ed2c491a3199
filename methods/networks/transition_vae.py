"""A variational autoencoder of tokens, G of them side by side (MBTS' repository, CVAE.py, without its condition)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP
from methods.networks.token_groups import TokenGroups
from methods.objectives.behaviour_vae import vae_loss


class TransitionVAE(nn.Module):
    """Encoder F - W - W - (μ, ln σ) and decoder Z - W - W - F with ReLU; a network told whose token it is where shared.

    Args:
        groups: which network computes which token.
        features: F.
        latent: Z.
        width: W.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self,
        groups: TokenGroups,
        features: int,
        latent: int,
        width: int,
        generators: Sequence[np.random.Generator],
    ) -> None:
        super().__init__()
        self.groups, self.latent = groups, latent
        self.encoder = StackedMLP((features + groups.extra, width, width, 2 * latent), generators, groups.copies)
        self.decoder = StackedMLP((latent + groups.extra, width, width, features), generators, groups.copies)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, B, T, F) -> μ and ln σ, (R, B, T, Z) each."""
        mean, log_std = self.groups.split(self.encoder(self.groups.join(x))).chunk(2, dim=-1)
        return mean, log_std.clamp(-4, 15)  # MBTS' repository, CVAE.py

    def decode(self, z: Tensor) -> Tensor:
        """(R, B, T, Z) -> (R, B, T, F)."""
        return self.groups.split(self.decoder(self.groups.join(z)))

    def losses(self, x: Tensor, noise: Tensor) -> Tensor:
        """(G,) ½ (MSE + KL), means over rows and dimensions, of x (R, B, T, F) and noise (R, B, T, Z)."""
        mean, log_std = self.encode(x)
        rebuilt = self.decode(mean + log_std.exp() * noise)
        join = self.groups.join_rows
        return 0.5 * vae_loss(join(rebuilt), join(x), join(mean), join(log_std), kl_weight=1.0)
