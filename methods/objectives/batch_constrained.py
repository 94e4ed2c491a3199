"""Batch-constrained Q-learning for continuous actions (BCQ, Fujimoto et al. 2019). All are pure."""

from __future__ import annotations

import torch
from torch import Tensor


def perturbed(action: Tensor, raw: Tensor, limit: float) -> Tensor:
    """clip(a + Φ tanh(ξ(o, a)), −1, 1), `raw` being what the network ξ gives before its tanh (BCQ, Sec. 4)."""
    return (action + limit * raw.tanh()).clamp(-1.0, 1.0)


def soft_clipped_target(
    reward: Tensor, terminal: Tensor, next_q: Tensor, discount: float, minimum_share: float
) -> Tensor:
    """The target r + γ (1 − e) max_j [λ min_k Q̄^k(o', a_j) + (1 − λ) max_k Q̄^k(o', a_j)] (BCQ, Eq. 13).

    Args:
        reward: (..., B).
        terminal: bool that broadcasts to it. A time limit is no terminal.
        next_q: (2, ..., B, S) of S candidates for the next action.
        discount: γ.
        minimum_share: λ.

    Returns:
        (..., B).
    """
    mixed = minimum_share * next_q.amin(dim=0) + (1 - minimum_share) * next_q.amax(dim=0)  # (..., B, S)
    return reward + torch.where(terminal, 0.0, discount * mixed.amax(dim=-1))
