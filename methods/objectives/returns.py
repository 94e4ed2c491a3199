"""Returns along sequences. All are pure."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_return(
    reward: Tensor, terminal: Tensor, next_values: Tensor, valid: Tensor, discount: float, trace: float
) -> Tensor:
    """G_t = r_t + γ (1 − e_t) [(1 − λ) q_{t+1} + λ G_{t+1}], and at a sequence's last step G = r + γ (1 − e) q.

    Peng's λ-return without importance correction. A cut is no end: it bootstraps from its own final row. PyMARL's
    recursion agrees for sequences that end truly or are as long as the batch, and leaks padding into the others.

    Args:
        reward: (R, T, ...).
        terminal: bool that broadcasts to it, true ends.
        next_values: (R, T, ...) q_{t+1}, of the row behind each step; finite on valid steps.
        valid: bool that broadcasts to it, False on padding, which is behind all steps of a sequence.
        discount: γ.
        trace: λ; 0: one-step targets, 1: all rewards and the last value.

    Returns:
        (R, T, ...); what is there on padding means nothing.
    """
    valid, terminal = valid.expand_as(reward), terminal.expand_as(reward)
    following = next_values[:, -1]
    found: list[Tensor] = []
    for t in range(reward.shape[1] - 1, -1, -1):
        if found:
            mixed = (1 - trace) * next_values[:, t] + trace * found[-1]
            following = torch.where(valid[:, t + 1], mixed, next_values[:, t])
        found.append(reward[:, t] + torch.where(terminal[:, t], 0.0, discount * following))
    return torch.stack(found[::-1], dim=1)
