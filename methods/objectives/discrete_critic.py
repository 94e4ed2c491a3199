"""Losses of twin critics of discrete actions. All are pure."""

from __future__ import annotations

from torch import Tensor

from methods.networks.heads import mask_unavailable
from methods.objectives.cloning import masked_mean


def twin_td_loss(recorded: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Σ_k ⟨(Q^k(a) − y)²⟩ over valid steps and agents; no gradient to the target.

    Args:
        recorded: (2, R, ..., N) values of the actions of the data.
        target: (R, ..., N), or broadcast to it.
        valid: (R, ...) bool, False on padding.

    Returns:
        (R,).
    """
    # Before the square, whose gradient may be NaN on padding.
    error = (recorded - target.detach()).masked_fill(~valid.unsqueeze(-1), 0.0)
    return masked_mean(error.square().sum(dim=0).mean(dim=-1), valid)


def conservative_gap(q: Tensor, recorded: Tensor, available: Tensor, valid: Tensor) -> Tensor:
    """Σ_k ⟨log Σ_a exp Q^k(a) − Q^k(a_i)⟩ over valid steps and agents, a available (CQL(H), Kumar et al. 2020, Eq. 4).

    At least 0, and 2 ln n where n actions have the same value. Deviation: OffPyMARL and CFCQL's repository sum over
    all actions.

    Args:
        q: (2, R, ..., N, A).
        recorded: (2, R, ..., N) values of the actions of the data, available wherever `valid`.
        available: (R, ..., N, A) bool.
        valid: (R, ...) bool, False on padding.

    Returns:
        (R,).
    """
    gap = mask_unavailable(q, available).logsumexp(dim=-1) - recorded  # (2, R, ..., N)
    return masked_mean(gap.sum(dim=0).mean(dim=-1), valid)
