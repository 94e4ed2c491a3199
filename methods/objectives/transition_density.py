"""Densities of next observations, and the rule that says which other next observation is within reach. All are pure."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def diagonal_log_density(y: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log N(y; μ, diag σ²) of (..., X) -> (...)."""
    z = (y - mean) * (-log_std).exp()
    return -0.5 * z.square().sum(dim=-1) - log_std.sum(dim=-1) - 0.5 * y.shape[-1] * math.log(2 * math.pi)


def log_mean_density(log_densities: Tensor) -> Tensor:
    """Log of the mean density over members, (M, ...) -> (...), without leaving log space."""
    return torch.logsumexp(log_densities, dim=0) - math.log(len(log_densities))


def within_reach(candidates: Tensor, real: Tensor) -> Tensor:
    """min_m p_m(o'_c | o) > mean_m p_m(o' | o): each finds c likelier than all find o' on average (MBTS).

    Args:
        candidates: (M, ...) ln p_m(o'_c | o) of M members.
        real: (M, ...) ln p_m(o' | o), o' being what did follow.

    Returns:
        (...) bool.
    """
    reached: Tensor = candidates.amin(dim=0) > log_mean_density(real)
    return reached
