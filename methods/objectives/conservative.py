"""Densities that conservative Q-learning (Kumar et al. 2020) corrects its sampled continuous actions by."""

from __future__ import annotations

import math

from torch import Tensor


def uniform_log_density(size: int) -> float:
    """Log p of a uniform action in [−1, 1]^size."""
    return size * math.log(0.5)


def gaussian_log_density(noise: Tensor, sigma: float) -> Tensor:
    """Log N(ξ; 0, σ² I) of noise (..., A) -> (...).

    OMAR's repository subtracts the density itself; CFCQL's takes the logarithm, which importance sampling asks for.
    """
    size = noise.shape[-1]
    return -0.5 * (noise / sigma).square().sum(dim=-1) - size * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
