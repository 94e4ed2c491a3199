"""A conditional variational autoencoder of recorded actions (BCQ, Fujimoto et al. 2019, Sec. 4). All are pure."""

from __future__ import annotations

import math

from torch import Tensor

from methods.objectives.conservative import gaussian_log_density


def vae_loss(rebuilt: Tensor, recorded: Tensor, mean: Tensor, log_std: Tensor, kl_weight: float = 0.5) -> Tensor:
    """The mean of (â − a)² + κ KL(N(μ, σ²) ‖ N(0, 1)) over batch and dimensions (BCQ's repository).

    Args:
        rebuilt: (..., B, A) â, decoded from a draw of the posterior.
        recorded: (..., B, A) a.
        mean: (..., B, Z) μ of the posterior.
        log_std: (..., B, Z) ln σ.
        kl_weight: κ.

    Returns:
        (...).
    """
    divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std  # (..., B, Z)
    return (rebuilt - recorded).square().mean(dim=(-2, -1)) + kl_weight * divergence.mean(dim=(-2, -1))


def importance_log_weight(z: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Of draws z = μ + σ ξ, all (..., Z): ln p(z) − ln q(z | s, a), (...)."""
    return gaussian_log_density(z, 1.0) - gaussian_log_density(noise, 1.0) + log_std.sum(dim=-1)


def importance_log_likelihood(errors: Tensor, log_weight: Tensor, sigma: float) -> Tensor:
    """An estimate of ln β_i(a_i | s) of each agent from L draws (CFCQL's repository).

    ln 1/L Σ_l N(a_i; μ_i(s, z_l), σ²) p(z_l) / q(z_l | s, a): the decoder's density is that of agent i's part alone.

    Args:
        errors: (L, ..., N, A) what the decoder makes of each draw, minus the actions.
        log_weight: (L, ...) of `importance_log_weight`.
        sigma: σ of the decoder.

    Returns:
        (..., N).
    """
    log_p = gaussian_log_density(errors, sigma) + log_weight.unsqueeze(-1)  # (L, ..., N)
    return log_p.logsumexp(dim=0) - math.log(len(errors))
