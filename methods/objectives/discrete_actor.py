"""Losses of actors that choose among discrete actions, given the values of all of them. All are pure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from methods.networks.heads import greedy_choice, mask_unavailable, masked_log_softmax
from methods.objectives.cloning import masked_mean, negative_log_likelihood


def counterfactual_advantage(q: Tensor, actions: Tensor, log_p: Tensor) -> Tensor:
    """A_i = Q(a_i) − Σ_a π_i(a) Q(a), without a gradient (COMA, Foerster et al. 2018, Eq. 4).

    Args:
        q: (..., N, A).
        actions: (..., N) int64.
        log_p: (..., N, A) of the policy, very low where an action is unavailable.

    Returns:
        (..., N).
    """
    taken = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)  # (..., N)
    return (taken - (log_p.exp() * q).sum(dim=-1)).detach()


def explored_log_softmax(logits: Tensor, available: Tensor, exploration: float) -> Tensor:
    """Log π_ε (..., A), π_ε = (1 − ε) π + ε / n over the n available actions; very low where one is unavailable."""
    log_p = masked_log_softmax(logits, available)
    if exploration == 0:
        return log_p
    uniform = math.log(exploration) - available.sum(dim=-1, keepdim=True).clamp(min=1).to(log_p.dtype).log()
    return mask_unavailable(torch.logaddexp(log_p + math.log1p(-exploration), uniform), available)


def policy_gradient_loss(
    logits: Tensor, q: Tensor, actions: Tensor, available: Tensor, valid: Tensor, exploration: float
) -> Tensor:
    """−⟨A_i log π_{ε,i}(a_i)⟩ over valid steps and agents, a_i of the data; see `counterfactual_advantage`.

    COMA draws the actions from its policy. Those of the data go on being bad however unlikely they have become, and
    log π would fall for ever; log π_ε does not.

    Args:
        logits: (R, ..., N, A).
        q: (R, ..., N, A).
        actions: (R, ..., N) int64, available wherever `valid`.
        available: (R, ..., N, A) bool.
        valid: (R, ...) bool, False on padding.
        exploration: ε in [0, 1).

    Returns:
        (R,).
    """
    log_p = explored_log_softmax(logits, available, exploration)
    advantage = counterfactual_advantage(q, actions, log_p)  # (R, ..., N)
    advantage = advantage.masked_fill(~valid.unsqueeze(-1), 0.0)  # a NaN times the gradient 0 would be one
    recorded = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)  # (R, ..., N)
    return masked_mean(-(advantage * recorded).mean(dim=-1), valid)


def imitation_loss(logits: Tensor, q: Tensor, available: Tensor, valid: Tensor) -> Tensor:
    """−⟨log π_i(â_i)⟩ over valid steps and agents, â_i = argmax over available a of Q(a).

    It stands for OMAR's search, which over finitely many actions is exact. Deviation: OffPyMARL takes the argmax over
    all actions, feeds probabilities into a second softmax and averages over padding; CFCQL's repository has the squared
    distance between π_i and the one-hot â_i.

    Shapes: as of `policy_gradient_loss`.
    """
    return negative_log_likelihood(logits, greedy_choice(q, available), available, valid)
