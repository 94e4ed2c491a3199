"""Losses of actors of discrete actions that follow a critic and clone the data (TD3+BC). All are pure."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.objectives.cloning import masked_mean


def normalised_actor_loss(q: Tensor, cloning: Tensor, valid: Tensor, alpha: float) -> Tensor:
    """−λ ⟨Q^1⟩ + CE, λ = α / ⟨|Q^1|⟩ of each replica, without a gradient (TD3+BC, Eq. 5; OffPyMARL).

    Where every Q is 0, λ is 0. A positive factor on all values changes nothing.

    Args:
        q: (R, ..., N) Q^1 of what the policy did.
        cloning: (R,) ⟨−log π_i(a_i | τ_i)⟩.
        valid: (R, ...) bool.
        alpha: weight of the values.

    Returns:
        (R,).
    """
    magnitude = masked_mean(q.detach().abs().mean(dim=-1), valid)  # (R,)
    weight = torch.where(magnitude == 0, 0.0, alpha / magnitude)
    return cloning - weight * masked_mean(q.mean(dim=-1), valid)


def mixed_actor_loss(q: Tensor, cloning: Tensor, valid: Tensor, tau: float) -> Tensor:
    """τ CE − (1 − τ) ⟨Q^1⟩, without λ (the form of MASTARS, App. D.2). Arguments as in `normalised_actor_loss`."""
    return tau * cloning - (1 - tau) * masked_mean(q.mean(dim=-1), valid)
