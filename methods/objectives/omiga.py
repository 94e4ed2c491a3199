"""OMIGA's losses (Wang et al. 2023): implicit global-to-local value regularisation. All are pure."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

_CLIP = 10.0  # of z; OMIGA's repository
_LOWEST_MAXIMUM = -1.0  # of M; the same
_MEAN_LIMIT, _LOG_STD_LOW, _LOG_STD_HIGH = 9.0, -5.0, 2.0  # of the policy; the same
_EDGE = 1 - 1e-7  # actions are held within ±this before atanh


class Mixture(NamedTuple):
    """State-dependent linear weights w ≥ 0 (R, B, N) and bias b (R, B) that Q_tot and V_tot share."""

    weights: Tensor
    bias: Tensor

    def total(self, values: Tensor) -> Tensor:
        """Σ_i w_i x_i + b: (R, B, N) -> (R, B)."""
        return (self.weights * values).sum(dim=-1) + self.bias


def q_target(reward: Tensor, terminal: Tensor, next_values: Tensor, mixture: Mixture, discount: float) -> Tensor:
    """R + γ (1 − e) (Σ_i w̄_i(s') V̄_i(o'_i) + b̄(s')): reward, terminal (R, B), values (R, B, N) -> (R, B)."""
    return reward + torch.where(terminal, 0.0, discount * mixture.total(next_values))


def scaled_advantage(q: Tensor, v: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """z_i = clip(w̄_i / α (Q̄_i − V_i), −10, 10), of any one shape."""
    return (weights / alpha * (q - v)).clamp(-_CLIP, _CLIP)


def value_loss(z: Tensor, v: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Mean [exp(z − M) + exp(−M) w̄ V / α], M = max(−1, max z) of the replica and without a gradient.

    Args:
        z: (R, B, N) with a gradient to V.
        v: (R, B, N) V_i(o_i).
        weights: (R, B, N) w̄_i(s), without a gradient.
        alpha: temperature.

    Returns:
        (R,). Without clipping its minimum is where mean exp(z) = 1.
    """
    largest = z.detach().flatten(1).amax(dim=1).clamp(min=_LOWEST_MAXIMUM)[:, None, None]  # (R, 1, 1)
    return ((z - largest).exp() + (-largest).exp() * weights * v / alpha).mean(dim=(1, 2))


def policy_loss(z: Tensor, log_p: Tensor) -> Tensor:
    """−mean [exp(z_i) log π_i(a_i | o_i)], exp(z) without a gradient: (R, B, N) each -> (R,)."""
    return -(z.detach().exp() * log_p).mean(dim=(1, 2))


def tanh_gaussian_log_density(raw: Tensor, actions: Tensor) -> Tensor:
    """Log π(a) of a squashed Gaussian: raw (..., 2 A) means and log standard deviations, actions (..., A) in [−1, 1].

    log N(u; μ, σ) − Σ 2 (log 2 − u − softplus(−2 u)) with u = atanh a, μ within ±9 and log σ in [−5, 2].
    """
    mean, log_std = raw.chunk(2, dim=-1)
    mean, log_std = mean.clamp(-_MEAN_LIMIT, _MEAN_LIMIT), log_std.clamp(_LOG_STD_LOW, _LOG_STD_HIGH)
    u = actions.clamp(-_EDGE, _EDGE).atanh()
    gaussian = -0.5 * ((u - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    return (gaussian - 2 * (math.log(2) - u - softplus(-2 * u))).sum(dim=-1)
