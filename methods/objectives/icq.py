"""ICQ's weights, targets and losses (Yang et al. 2021): implicit constraint Q-learning for teams. All are pure."""

from __future__ import annotations

import torch
from torch import Tensor


def batch_weights(values: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """ω_b = n softmax_b(x_b / τ) over the n valid entries b of a replica's batch; 0 elsewhere.

    It stands for exp(x / τ) / Z with Z the mean of exp(x / τ) over the batch (Yang et al. 2021 and their repository):
    weights have mean 1 and depend on who is in the batch. A shift of all values changes nothing.

    Args:
        values: (R, B, ...) of a team or of each agent; further axes have a softmax each.
        valid: (R, B) bool.
        temperature: τ; infinite: all weights are 1.

    Returns:
        Like `values`; a replica without a valid entry has zeros.
    """
    invalid = ~_like(valid, values)
    scaled = (values / temperature).masked_fill(invalid, torch.finfo(values.dtype).min)
    return scaled.softmax(dim=1).masked_fill(invalid, 0.0) * (~invalid).sum(dim=1, keepdim=True)


def q_target(reward: Tensor, terminal: Tensor, next_total: Tensor, weights: Tensor, discount: float) -> Tensor:
    """ICQ's y = r + γ (1 − e) w Q̄_tot(s', a') with the recorded a', one step in place of λ: (R, B) each -> (R, B)."""
    return reward + torch.where(terminal, 0.0, discount * weights * next_total)


def critic_loss(total: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """⟨(Q_tot − y)²⟩ over valid entries: (R, B) each -> (R,)."""
    return masked_mean((total - target).square(), valid)


def expected_value(q: Tensor, log_p: Tensor) -> Tensor:
    """Σ_a π_i(a) Q_i(a), the baseline of discrete actions: (..., A) each -> (...)."""
    return (log_p.exp() * q).sum(dim=-1)


def policy_loss(log_p: Tensor, weights: Tensor, mixture: Tensor, valid: Tensor) -> Tensor:
    """−⟨k_i ω_i log π_i(a_i | o_i)⟩ over valid entries and agents; k and ω without a gradient.

    Args:
        log_p: (R, B, N) of the recorded actions.
        weights: (R, B, N) ω.
        mixture: (R, B, N) k(s).
        valid: (R, B) bool.

    Returns:
        (R,).
    """
    return masked_mean(-mixture.detach() * weights.detach() * log_p, valid)


def effective_share(weights: Tensor, valid: Tensor) -> Tensor:
    """Effective sample size of the weights as a share of the batch, (Σ ω)² / (n Σ ω²), the mean over agents.

    1: all count alike; 1 / n: one transition has all the weight. Shapes: (R, B, N), (R, B) -> (R,).
    """
    n = valid.sum(dim=1, keepdim=True)  # (R, 1)
    return (weights.sum(dim=1).square() / (n * weights.square().sum(dim=1)).clamp(min=1e-12)).mean(dim=1)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """⟨x⟩ = Σ m x / Σ m within each replica, (R, B, ...), (R, B) -> (R,); 0 for a replica without a valid entry."""
    mask = _like(valid, values)
    return values.masked_fill(~mask, 0.0).flatten(1).sum(dim=1) / mask.flatten(1).sum(dim=1).clamp(min=1)


def _like(valid: Tensor, values: Tensor) -> Tensor:
    """(R, B) -> (R, B, ...)."""
    return valid.view(*valid.shape, *(1,) * (values.ndim - 2)).expand(values.shape)
