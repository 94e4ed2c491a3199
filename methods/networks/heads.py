"""From the last layer of an actor to actions and log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.spec import ActionSpec


def mask_unavailable(logits: Tensor, available: Tensor) -> Tensor:
    """Logits (..., A) with a very low value where an action is unavailable.

    Finite, not −inf: padding has no available action, and logsumexp of all −inf has a NaN gradient.
    """
    return logits.masked_fill(~available, torch.finfo(logits.dtype).min / 1e3)


def masked_log_softmax(logits: Tensor, available: Tensor) -> Tensor:
    """Log-probabilities (..., A) over the available actions; 0 in a row that has none."""
    log_p = mask_unavailable(logits, available).log_softmax(dim=-1)
    return log_p.masked_fill(~available.any(dim=-1, keepdim=True), 0.0)


def greedy_choice(logits: Tensor, available: Tensor) -> Tensor:
    """The available action (...,) with the largest logit; some available action where logits are not finite."""
    return logits.nan_to_num().masked_fill(~available, -torch.inf).argmax(dim=-1)


def bounded(raw: Tensor, action: ActionSpec) -> Tensor:
    """tanh, stretched from [−1, 1] to the bounds of the action."""
    return stretched(raw.tanh(), action)


def stretched(unit: Tensor, action: ActionSpec) -> Tensor:
    """Values in [−1, 1] mapped to the bounds of the action."""
    middle, half = (action.high + action.low) / 2, (action.high - action.low) / 2
    return unit if (middle, half) == (0.0, 1.0) else (middle + half * unit).clamp(action.low, action.high)
