"""BCQ's model of recorded actions for G groups: encoder (x, a) -> z and decoder (x, z) -> a."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP
from methods.objectives.behaviour_vae import importance_log_likelihood, importance_log_weight, vae_loss

_DECODER_SIGMA = math.sqrt(0.5 / 4)  # √(κ / 4), the density of which the loss is the logarithm (CFCQL's repository)


class BehaviourVAE(nn.Module):
    """Conditional VAE with two hidden layers on either side; actions are in [−1, 1], the latent has twice their size.

    Args:
        sizes: of the condition, an action and a hidden layer.
        generators: of the initial weights, one a replica.
        copies: groups a replica, G = R · copies.
    """

    def __init__(self, sizes: tuple[int, int, int], generators: Sequence[np.random.Generator], copies: int = 1) -> None:
        super().__init__()
        n_in, n_act, hidden = sizes
        self.latent = 2 * n_act
        self.encoder = StackedMLP((n_in + n_act, hidden, hidden, 2 * self.latent), generators, copies)
        self.decoder = StackedMLP((n_in + self.latent, hidden, hidden, n_act), generators, copies)

    def encode(self, seen: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of z: (G, B, D), (G, B, A) -> (G, B, Z) each."""
        mean, log_std = self.encoder(torch.cat([seen, actions], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(-4, 15)  # BCQ's repository

    def loss(self, seen: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """(G,) of (G, B, D), (G, B, A) and standard normal values (G, B, Z); see `vae_loss`."""
        mean, log_std = self.encode(seen, actions)
        rebuilt = decode(self.decoder, seen, mean + log_std.exp() * noise)
        return vae_loss(rebuilt, actions, mean, log_std)

    def log_likelihoods(self, seen: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """Estimates of ln β_i(a_i | s); see `importance_log_likelihood`.

        Args:
            seen: (G, B, D) s.
            actions: (G, B, N, A) of N agents; this VAE is one of actions of size N · A.
            noise: (L, G, B, Z) standard normal values.

        Returns:
            (G, B, N).
        """
        mean, log_std = self.encode(seen, actions.flatten(2))
        z = mean + log_std.exp() * noise  # (L, G, B, Z)
        rebuilt = torch.stack([decode(self.decoder, seen, draw) for draw in z])  # one by one: L times the memory else
        errors = rebuilt.view(len(z), *actions.shape) - actions  # (L, G, B, N, A)
        return importance_log_likelihood(errors, importance_log_weight(z, noise, log_std), _DECODER_SIGMA)


def decode(decoder: nn.Module, seen: Tensor, latents: Tensor) -> Tensor:
    """Actions in [−1, 1]: (G, B, D), (G, B, Z) -> (G, B, A)."""
    raw: Tensor = decoder(torch.cat([seen, latents], dim=-1))
    return raw.tanh()
