"""Densities of continuous policies: raw (..., 2 A) means and log standard deviations, actions (..., A) in [−1, 1]."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import softplus

DENSITIES = ("squashed", "centred")
_MEAN_LIMIT, _LOG_STD_LOW, _LOG_STD_HIGH = 9.0, -5.0, 2.0  # of the squashed one; OMIGA's repository
_EDGE = 1 - 1e-7  # actions are held within ±this before atanh; the same
_CENTRED_LOW = -6.0  # the smallest log standard deviation of the centred one, the largest being 0; ICQ's repository


def log_density(density: str, raw: Tensor, actions: Tensor) -> Tensor:
    """Log π(a), summed over A: (...,)."""
    return tanh_gaussian(raw, actions) if density == "squashed" else centred_gaussian(raw, actions)


def drawn_actions(density: str, raw: Tensor, noise: Tensor) -> Tensor:
    """Actions (..., A) in [−1, 1] of a policy, from standard normal noise (..., A).

    tanh(μ + σ ε) of the squashed Gaussian; tanh μ + σ ε of the centred one, held within the bounds.
    """
    if density == "squashed":
        mean, log_std = _squashed(raw)
        return (mean + log_std.exp() * noise).tanh()
    mean, log_std = _centred(raw)
    return (mean + log_std.exp() * noise).clamp(-1, 1)


def _squashed(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation before tanh."""
    mean, log_std = raw.chunk(2, dim=-1)
    return mean.clamp(-_MEAN_LIMIT, _MEAN_LIMIT), log_std.clamp(_LOG_STD_LOW, _LOG_STD_HIGH)


def _centred(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation."""
    mean, eta = raw.chunk(2, dim=-1)
    return mean.tanh(), _CENTRED_LOW * (-eta).sigmoid()


def tanh_gaussian(raw: Tensor, actions: Tensor) -> Tensor:
    """Log π(a) of a Gaussian that is squashed by tanh (OMIGA's repository).

    log N(u; μ, σ) − Σ 2 (log 2 − u − softplus(−2 u)) with u = atanh a, μ within ±9 and log σ in [−5, 2].
    """
    mean, log_std = _squashed(raw)
    u = actions.clamp(-_EDGE, _EDGE).atanh()
    gaussian = -0.5 * ((u - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    return (gaussian - 2 * (math.log(2) - u - softplus(-2 * u))).sum(dim=-1)


def centred_gaussian(raw: Tensor, actions: Tensor) -> Tensor:
    """Log π(a) of a Gaussian around tanh μ: Σ log N(a; tanh μ, σ), log σ = −6 sigmoid(−η) (ICQ's repository).

    It is finite where many recorded actions lie on their bounds, and those do not outweigh all others.
    """
    mean, log_std = _centred(raw)
    gaussian = -0.5 * ((actions - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    return gaussian.sum(dim=-1)
