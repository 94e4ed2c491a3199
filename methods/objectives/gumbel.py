"""Sampled discrete actions with a gradient (Jang et al. 2017; Maddison et al. 2017). All are pure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from methods.networks.heads import greedy_choice, mask_unavailable


def straight_through(logits: Tensor, available: Tensor, noise: Tensor) -> Tensor:
    """Actions drawn from the categorical over the available ones: forward 1h(argmax (ℓ + g)), backward softmax(ℓ + g).

    The temperature is 1, as in OffPyMARL. An unavailable action has neither a share nor a gradient.

    Args:
        logits: (..., A) ℓ.
        available: (..., A) bool; in a row without any, the draw means nothing.
        noise: (..., A) g, values of Gumbel(0, 1).

    Returns:
        (..., A) one-hot to the last bit.
    """
    disturbed = mask_unavailable(logits + noise, available)
    relaxed = disturbed.softmax(dim=-1)
    hard = one_hot(greedy_choice(disturbed.detach(), available), logits.shape[-1]).to(relaxed.dtype)
    return hard + (relaxed - relaxed.detach())


def gumbel(exponential: Tensor) -> Tensor:
    """−log E of values E of Exp(1), which is Gumbel(0, 1); finite also where a draw is 0."""
    return -exponential.clamp(min=torch.finfo(exponential.dtype).tiny).log()
