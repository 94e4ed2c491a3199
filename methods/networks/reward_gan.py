"""A conditional Wasserstein GAN of the team's reward of a transition: a generator, and the critic that teaches it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP


class RewardGAN(nn.Module):
    """G pairs: r̃ = F(z, x) and the critic C(x, r), x = (o, a, o'), two hidden layers each (MBTS' repository).

    Args:
        features: X of x.
        latent: Z of z.
        hidden: width.
        generators: of the initial weights, one a replica.
    """

    def __init__(self, features: int, latent: int, hidden: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.generator = StackedMLP((latent + features, hidden, hidden, 1), generators)
        self.critic = StackedMLP((features + 1, hidden, hidden, 1), generators)

    def rewards(self, seen: Tensor, latents: Tensor) -> Tensor:
        """(G, B) rewards of transitions (G, B, X) with standard normal latents (G, B, Z)."""
        made: Tensor = self.generator(torch.cat([latents, seen], dim=-1))[..., 0]
        return made

    def judged(self, seen: Tensor, rewards: Tensor) -> Tensor:
        """(G, B) what the critic says of rewards (G, B) of transitions (G, B, X): low for real ones."""
        said: Tensor = self.critic(torch.cat([seen, rewards[..., None]], dim=-1))[..., 0]
        return said


def reward_critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """⟨C(x, r)⟩ − ⟨C(x, r̃)⟩, which is lowest where real rewards are told apart: (G, B), (G, B) -> (G,)."""
    return real.mean(dim=-1) - made.mean(dim=-1)


def reward_generator_loss(made: Tensor) -> Tensor:
    """⟨C(x, r̃)⟩, lowest where made rewards pass for real ones: (G, B) -> (G,)."""
    return made.mean(dim=-1)
