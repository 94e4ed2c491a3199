"""ICQ's weights, targets and losses (Yang et al. 2021): implicit constraint Q-learning for teams. All are pure.

Time before batch: B sequences of T steps at most; single transitions have T = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.objectives.cloning import masked_mean
from methods.objectives.returns import lambda_return


def batch_weights(values: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """ω_b = n softmax_b(x_b / τ) over the n valid entries b of a replica's batch at each time; 0 elsewhere.

    It stands for exp(x / τ) / Z with Z the mean of exp(x / τ) over the batch (Yang et al. 2021 and their repository):
    weights have mean 1 and depend on who is in the batch. A shift of all values changes nothing.

    Deviation: in all sources padding is part of the softmax.

    Args:
        values: (R, T, B, ...) of a team or of each agent; further axes have a softmax each.
        valid: (R, T, B) bool.
        temperature: τ; infinite: all weights are 1.

    Returns:
        Like `values`; where a replica has no valid entry, zeros.
    """
    invalid = ~valid.view(*valid.shape, *(1,) * (values.ndim - 3)).expand(values.shape)
    scaled = (values / temperature).masked_fill(invalid, torch.finfo(values.dtype).min)
    return scaled.softmax(dim=2).masked_fill(invalid, 0.0) * (~invalid).sum(dim=2, keepdim=True)


def q_target(
    reward: Tensor, ends: Tensor, next_total: Tensor, weights: Tensor, known: Tensor, *, discount: float, trace: float
) -> Tensor:
    """λ-returns of g = w Q̄_tot(s', a') with the recorded a'; of one step, y = r + γ (1 − e) g.

    The last step of a cut sequence has no recorded a', so nothing tells its return, and it is not among the `known`
    ones. The step before it has: its a' is the action of that last step, and it bootstraps there, G = r + γ g, whatever
    λ is. So the horizon of all returns of a cut sequence is the last step whose action is recorded. To go on from there
    would take a value of the final row; 0 in its place would be a true end that never was, and λ would carry it to all
    earlier steps.

    Args:
        reward: (R, T, B).
        ends: (R, T, B) bool, nothing follows.
        next_total: (R, T, B) Q̄_tot(s', a'); anything where there is no a'.
        weights: (R, T, B) w, from `batch_weights` over the entries with an a'.
        known: (R, T, B) bool, valid steps that end or have an a': all of a sequence, or all but the last.
        discount: γ.
        trace: λ.

    Returns:
        (R, T, B); what is there outside `known` means nothing.
    """
    return lambda_return(reward, ends, weights * next_total, known, discount, trace)


def critic_loss(total: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """⟨(Q_tot − y)²⟩ over steps whose target is known: (R, T, B) each -> (R,)."""
    error = (total - target).masked_fill(~known, 0.0)  # before the square, whose gradient may be NaN
    return masked_mean(error.square(), known)


def expected_value(q: Tensor, log_p: Tensor) -> Tensor:
    """Σ_a π_i(a) Q_i(a), the baseline of discrete actions: (..., A) each -> (...)."""
    return (log_p.exp() * q).sum(dim=-1)


def policy_loss(log_p: Tensor, weights: Tensor, mixture: Tensor, known: Tensor) -> Tensor:
    """−⟨k_i ω_i log π_i(a_i)⟩ over known steps and agents; k and ω without a gradient.

    Args:
        log_p: (R, T, B, N) of the recorded actions.
        weights: (R, T, B, N) ω.
        mixture: (R, T, B, N) k(s).
        known: (R, T, B) bool.

    Returns:
        (R,).
    """
    return masked_mean(-(mixture.detach() * weights.detach() * log_p).mean(dim=-1), known)


def effective_share(weights: Tensor, known: Tensor) -> Tensor:
    """Effective sample size of the weights, Σ_t (Σ_b ω)² / Σ_b ω², as a share of the known steps; mean over agents.

    1: all count alike; 1 / n: of the n steps at each time, one has all the weight. (R, T, B, N), (R, T, B) -> (R,).
    """
    sizes = weights.sum(dim=2).square() / weights.square().sum(dim=2).clamp(min=1e-12)  # (R, T, N)
    return sizes.sum(dim=1).mean(dim=-1) / known.flatten(1).sum(dim=1).clamp(min=1)
