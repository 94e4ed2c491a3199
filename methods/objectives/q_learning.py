"""Q-learning of a team from offline data: targets, QMIX-CQL's penalty, BCQ's filter. All are pure.

Equations are those of OG-MARL's `qmix_cql` and `qmix_bcq`, with padding masked and actions that are truly legal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from methods.networks.heads import masked_log_softmax
from methods.objectives.cloning import masked_mean


def td_target(reward: Tensor, terminal: Tensor, next_total: Tensor, discount: float) -> Tensor:
    """The target r + γ (1 − e) Q̄_tot(s', a*), any one shape; a* is the online networks' choice (double Q-learning).

    A time limit is no terminal. What is behind a terminal has no influence, whatever it is.
    """
    return reward + torch.where(terminal, 0.0, discount * next_total)


def td_loss(total: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """½ ⟨(Q_tot(s, a) − y)²⟩ over valid steps: (R, ...) each -> (R,); no gradient to the target."""
    error = (total - target.detach()).masked_fill(~valid, 0.0)  # before the square, whose gradient may be NaN
    return 0.5 * masked_mean(error.square(), valid)


def joint_conservative_gap(sampled: Tensor, recorded: Tensor, valid: Tensor) -> Tensor:
    """⟨log Σ exp of {Q_tot(a_1), …, Q_tot(a_K), Q_tot(a)} − Q_tot(a)⟩: at least 0, log(K + 1) for a constant Q_tot.

    Args:
        sampled: (R, ..., K) values of K joint actions drawn at random.
        recorded: (R, ...) values of the joint actions of the data.
        valid: (R, ...) bool, False on padding.

    Returns:
        (R,).
    """
    every = torch.cat([sampled, recorded.unsqueeze(-1)], dim=-1)  # (R, ..., K + 1)
    return masked_mean(every.logsumexp(dim=-1) - recorded, valid)


def random_actions(uniform: Tensor, available: Tensor) -> Tensor:
    """Actions drawn uniformly among the available ones: the ⌊u · n⌋-th of n.

    Args:
        uniform: (..., K) values in [0, 1).
        available: (..., A) bool; in a row without any, the draws mean nothing.

    Returns:
        (..., K) int64.
    """
    order = available.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)  # (..., A), available ones first
    count = available.sum(dim=-1, keepdim=True)  # (..., 1)
    rank = (uniform * count).long().minimum(count - 1).clamp(min=0)  # rounding may give n itself
    return order.gather(-1, rank)


def likely_actions(logits: Tensor, available: Tensor, threshold: float) -> Tensor:
    """BCQ's filter: available actions with p(a) / max p ≥ ζ, p the categorical over available actions.

    The ratio is that of masked log-probabilities, so that no sum of probabilities can be 0. Where logits are not
    finite, nothing is filtered.

    Args:
        logits: (..., A) of the behaviour.
        available: (..., A) bool.
        threshold: ζ in [0, 1]; 0: all that are available, 1: the most likely alone.

    Returns:
        (..., A) bool; at least one wherever one is available.
    """
    log_p = masked_log_softmax(logits, available)
    log_ratio = log_p - log_p.amax(dim=-1, keepdim=True)
    limit = math.log(threshold) if threshold > 0 else -math.inf
    return available & ~(log_ratio < limit)
