"""OMIGA's losses (Wang et al. 2023): implicit global-to-local value regularisation. All are pure."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from methods.objectives.cloning import masked_mean

_CLIP = 10.0  # of z; OMIGA's repository
_LOWEST_MAXIMUM = -1.0  # of M; the same


class Mixture(NamedTuple):
    """State-dependent linear weights w ≥ 0 (R, ..., N) and bias b (R, ...) that Q_tot and V_tot share."""

    weights: Tensor
    bias: Tensor

    def total(self, values: Tensor) -> Tensor:
        """Σ_i w_i x_i + b: (R, ..., N) -> (R, ...)."""
        return (self.weights * values).sum(dim=-1) + self.bias


def q_target(reward: Tensor, terminal: Tensor, next_values: Tensor, mixture: Mixture, discount: float) -> Tensor:
    """R + γ (1 − e) (Σ_i w̄_i(s') V̄_i(o'_i) + b̄(s')): reward, terminal (R, ...), values (R, ..., N) -> (R, ...)."""
    return reward + torch.where(terminal, 0.0, discount * mixture.total(next_values))


def q_loss(total: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """⟨(Q_tot − y)²⟩ over valid steps: (R, ...) each -> (R,); no gradient to y."""
    error = (total - target.detach()).masked_fill(~valid, 0.0)  # before the square, whose gradient may be NaN
    return masked_mean(error.square(), valid)


def scaled_advantage(q: Tensor, v: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """z_i = clip(w̄_i / α (Q̄_i − V_i), −10, 10), of any one shape."""
    return (weights / alpha * (q - v)).clamp(-_CLIP, _CLIP)


def at_limit(z: Tensor) -> Tensor:
    """Where `scaled_advantage` has clipped: bool like z."""
    return z.detach().abs() >= _CLIP


def value_loss(z: Tensor, v: Tensor, weights: Tensor, alpha: float, valid: Tensor) -> Tensor:
    """⟨exp(z − M) + exp(−M) w̄ V / α⟩ over valid steps and agents, M = max(−1, max z) of the replica, no gradient.

    M scales the loss of all steps of a replica, so that padding must have no part in it either.

    Args:
        z: (R, ..., N) with a gradient to V.
        v: (R, ..., N) V_i(o_i).
        weights: (R, ..., N) w̄_i(s), without a gradient.
        alpha: temperature.
        valid: (R, ...) bool, False on padding.

    Returns:
        (R,). Without clipping its minimum is where mean exp(z) = 1.
    """
    found = z.detach().masked_fill(~valid[..., None], -torch.inf).flatten(1)
    largest = found.amax(dim=1).clamp(min=_LOWEST_MAXIMUM).view(-1, *(1,) * (z.ndim - 1))  # (R, 1, ...)
    terms = (z - largest).exp() + (-largest).exp() * weights * v / alpha
    return masked_mean(terms.mean(dim=-1), valid)


def policy_loss(z: Tensor, log_p: Tensor, valid: Tensor) -> Tensor:
    """−⟨exp(z_i) log π_i(a_i | o_i)⟩, exp(z) without a gradient: (R, ..., N) twice, (R, ...) -> (R,)."""
    return masked_mean(-(z.detach().exp() * log_p).mean(dim=-1), valid)
