"""Counterfactual conservative Q-learning (CFCQL, Shao et al. 2023), continuous actions. All are pure."""

from __future__ import annotations

import torch
from torch import Tensor


def counterfactual_actions(recorded: Tensor, candidates: Tensor) -> Tensor:
    """Joint actions in which one agent deviates: (a_1, ..., candidate_i^k, ..., a_N) for all i and k (CFCQL, Eq. 8).

    Args:
        recorded: (..., N, A) the actions of the data.
        candidates: (..., N, K, A) what each agent could have done.

    Returns:
        (..., N, K, N · A).
    """
    own = torch.eye(recorded.shape[-2], dtype=torch.bool, device=recorded.device)[:, None, :, None]  # (N, 1, N, 1)
    joint = torch.where(own, candidates.unsqueeze(-2), recorded[..., None, None, :, :])  # (..., N, K, N, A)
    return joint.flatten(-2)  # (..., N, K, N · A)


def divergence_weights(log_ratio: Tensor, temperature: float) -> Tensor:
    """w_i = softmax_i (τ ln (π_i / β_i)), how much each agent's penalty counts.

    Args:
        log_ratio: (..., N) ln π_i(a_i) − ln β_i(a_i) at the action a_i of each policy.
        temperature: τ. Above 0 those far from the behaviour count more; below 0 those near to it, which is the softmin
            of CFCQL's repository for continuous actions; 0: all alike.

    Returns:
        (..., N), of sum 1.
    """
    return (temperature * log_ratio).softmax(dim=-1)


def weighted_push(q: Tensor, log_density: float, weights: Tensor) -> Tensor:
    """Σ over the twins of mean_b Σ_i w_i logsumexp_k (Q^{i,k} − log p): CFCQL, Eq. 9, without its value of the data.

    Args:
        q: (2, ..., B, N, K) of joint actions in which agent i deviates.
        log_density: of every candidate.
        weights: (..., B, N).

    Returns:
        (...).
    """
    pushed = (q - log_density).logsumexp(dim=-1)  # (2, ..., B, N)
    return (weights * pushed).sum(dim=-1).mean(dim=-1).sum(dim=0)


def counterfactual_actor_loss(q: Tensor, policy: Tensor, output_penalty: float) -> Tensor:
    """−mean_{b,i} Q^1(s, a_{−i}, π_i(o_i)) + c Σ_i mean π_i² (CFCQL's repository).

    Args:
        q: (..., B, N) of the joint actions in which agent i alone follows its policy.
        policy: (..., B, N, A) π_i(o_i).
        output_penalty: c.

    Returns:
        (...).
    """
    return output_penalty * policy.square().mean(dim=(-3, -1)).sum(dim=-1) - q.mean(dim=(-2, -1))
