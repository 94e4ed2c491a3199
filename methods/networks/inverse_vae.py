"""A conditional VAE of the joint action that leads from one joint observation to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.heads import bounded, greedy_choice, masked_log_softmax
from methods.networks.stacked import StackedMLP
from methods.objectives.behaviour_vae import vae_loss
from tasks.spec import ActionSpec

_LOWEST, _HIGHEST = -4.0, 15.0  # of the posterior's log standard deviation; MBTS' repository, CVAE.py


class InverseVAE(nn.Module):
    """q(a | o, o', z) of G teams, two hidden layers on either side (MBTS' repository, CVAE.py).

    The latent has twice the size of the joint action. Continuous actions leave by tanh; discrete ones as N softmaxes
    over what is available (inferred, like their cross entropy).

    Args:
        features: of o and o' together.
        action: of one agent. agents: N.
        hidden: width.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self,
        features: int,
        action: ActionSpec,
        agents: int,
        hidden: int,
        generators: Sequence[np.random.Generator],
    ) -> None:
        super().__init__()
        size = agents * action.size
        self.action, self.agents, self.latent = action, agents, 2 * size
        self.encoder = StackedMLP((features + size, hidden, hidden, 2 * self.latent), generators)
        self.decoder = StackedMLP((features + self.latent, hidden, hidden, size), generators)

    def losses(self, seen: Tensor, actions: Tensor, noise: Tensor, available: Tensor | None = None) -> Tensor:
        """½ (E + KL), E the squared error, or the cross entropy of the actions taken; means throughout.

        Args:
            seen: (G, B, features).
            actions: (G, B, N, A) in [−1, 1], or one-hot.
            noise: (G, B, Z) standard normal values.
            available: (G, B, N, A) for discrete tasks.

        Returns:
            (G,).
        """
        mean, log_std = self.encoder(torch.cat([seen, actions.flatten(2)], dim=-1)).chunk(2, dim=-1)
        log_std = log_std.clamp(_LOWEST, _HIGHEST)
        raw = self._decoded(seen, mean + log_std.exp() * noise)  # (G, B, N, A)
        if available is None:
            return 0.5 * vae_loss(raw.tanh().flatten(2), actions.flatten(2), mean, log_std, kl_weight=1.0)
        error = -(masked_log_softmax(raw, available) * actions).sum(dim=-1).mean(dim=(1, 2))
        nothing = torch.zeros_like(mean)
        return 0.5 * (error + vae_loss(nothing, nothing, mean, log_std, kl_weight=1.0))

    def decode(self, seen: Tensor, latents: Tensor, available: Tensor | None = None) -> Tensor:
        """Actions within bounds (G, B, N, A), or the likeliest available ones (G, B, N).

        Args:
            seen: (G, B, features).
            latents: (G, B, Z), standard normal.
            available: (G, B, N, A) for discrete tasks.
        """
        raw = self._decoded(seen, latents)
        return bounded(raw, self.action) if available is None else greedy_choice(raw, available)

    def _decoded(self, seen: Tensor, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(torch.cat([seen, latents], dim=-1))
        return raw.view(*raw.shape[:-1], self.agents, self.action.size)
