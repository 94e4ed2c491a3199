"""Conservative Q-learning (Kumar et al. 2020) with sampled continuous actions."""

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


def conservative_gap(q: Tensor, log_density: Tensor | float, recorded: Tensor) -> Tensor:
    """mean_b [logsumexp_k (Q(o, a_k) − log p(a_k)) − Q(o, a)] (OMAR, Eq. 2; temperature 1).

    Args:
        q: (..., B, K) values of K sampled actions.
        log_density: of each sample, broadcast to `q`.
        recorded: (..., B) values of the actions of the data.

    Returns:
        (...), for constant Q and uniform samples log K + A log 2.
    """
    return ((q - log_density).logsumexp(dim=-1) - recorded).mean(dim=-1)
