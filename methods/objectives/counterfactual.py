"""Counterfactual conservative Q-learning (CFCQL, Shao et al. 2023). All are pure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu

from methods.networks.heads import mask_unavailable, masked_log_softmax
from methods.networks.mixers import MixingNet
from methods.objectives.cloning import masked_mean

# -- continuous actions -----------------------------------------------------------------------------------------------


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


def counterfactual_actor_loss(q: Tensor, penalised: Tensor, output_penalty: float) -> Tensor:
    """−mean_{b,i} Q^1(s, a_{−i}, π_i(o_i)) + c Σ_i mean u_i² (CFCQL's repository, u_i = π_i).

    Args:
        q: (..., B, N) of the joint actions in which agent i alone follows its policy.
        penalised: (..., B, N, A) u_i: π_i(o_i), or what the actor gives before its tanh.
        output_penalty: c.

    Returns:
        (...).
    """
    return output_penalty * penalised.square().mean(dim=(-3, -1)).sum(dim=-1) - q.mean(dim=(-2, -1))


# -- discrete actions -------------------------------------------------------------------------------------------------

_EPSILON = 1e-5  # added to probabilities of which the distance is taken (CFCQL's repository)
_HIDDEN_VALUES = 2**25  # floats of the hidden layer of counterfactual mixes that are in memory at a time


def counterfactual_totals(mixing: MixingNet, q: Tensor, recorded: Tensor) -> Tensor:
    """Q_tot^{i,a} = Q_tot(a_1, …, a_i = a, …, a_N) for all agents and actions, the others' being those of the data.

    One agent's part of h = Σ_j q_j W_j + b is replaced at a time: elu(h + (Q_i(a) − q_i) W_i) w + V. Where the hidden
    layer is large it is computed by slices of the batch, and once more for the gradient, in place of being kept.

    Args:
        mixing: of (R, ...) states.
        q: (R, ..., N, A) values of single agents.
        recorded: (R, ..., N) int64, the actions of the data.

    Returns:
        (R, ..., N, A).
    """
    own = q.gather(-1, recorded.unsqueeze(-1))  # (R, ..., N, 1)
    hidden = (own * mixing.first).sum(dim=-2) + mixing.first_bias  # (R, ..., E)
    operands = [x.flatten(1, q.ndim - 3) for x in (hidden, q - own, mixing.first, mixing.second)]  # (R, M, ...) each
    rows = max(1, _HIDDEN_VALUES // (len(q) * q.shape[-2:].numel() * hidden.shape[-1]))  # of M
    whole = operands[0].shape[1] <= rows
    found: Tensor = _mixed_again(*operands) if whole else _Sliced.apply(rows, *operands)  # type: ignore[no-untyped-call]
    return found.view(q.shape) + mixing.second_bias[..., None, None]


def _mixed_again(hidden: Tensor, change: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """elu(h + δ_i(a) W_i) w: (R, M, E), (R, M, N, A), (R, M, N, E), (R, M, E) -> (R, M, N, A)."""
    x = torch.addcmul(hidden[:, :, None, None], change.unsqueeze(-1), first.unsqueeze(-2))  # (R, M, N, A, E)
    return (elu(x).flatten(2, 3) @ second.unsqueeze(-1)).view(change.shape)


def _sliced(x: Tensor, rows: int) -> list[Tensor]:
    """(R, M, ...) as slices of so many rows of M."""
    return [x[:, first : first + rows] for first in range(0, x.shape[1], rows)]


class _Sliced(torch.autograd.Function):
    """`_mixed_again` by slices of the batch."""

    @staticmethod
    def forward(ctx: Any, rows: int, *operands: Tensor) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(*operands)
        slices = zip(*(_sliced(x, rows) for x in operands), strict=True)
        return torch.cat([_mixed_again(*own) for own in slices], dim=1)

    @staticmethod
    def backward(ctx: Any, of_totals: Tensor) -> tuple[Tensor | None, ...]:
        found = []
        for of_own, *own in zip(*(_sliced(x, ctx.rows) for x in (of_totals, *ctx.saved_tensors)), strict=True):
            again = [x.detach().requires_grad_() for x in own]
            with torch.enable_grad():
                totals = _mixed_again(*again)
            found.append(torch.autograd.grad(totals, again, of_own))
        return None, *(torch.cat(slices, dim=1) for slices in zip(*found, strict=True))


def distance_from_behaviour(totals: Tensor, behaviour: Tensor, available: Tensor) -> Tensor:
    """D_i = Σ_{a ∈ A_i} (μ_i + ε) [ln (μ_i + ε) − ln (β_i + ε)] ≈ KL(μ_i ‖ β_i), μ_i = softmax_a Q_tot^{i,a}.

    Args:
        totals: (..., N, A) Q_tot^{i,a}.
        behaviour: (..., N, A) logits of β_i.
        available: (..., N, A) bool, A_i.

    Returns:
        (..., N); 0 where no action is available.
    """
    policy = masked_log_softmax(totals, available).exp() + _EPSILON  # (..., N, A)
    data = masked_log_softmax(behaviour, available).exp() + _EPSILON
    return (policy * (policy.log() - data.log())).masked_fill(~available, 0.0).sum(dim=-1)


def counterfactual_gap(totals: Tensor, available: Tensor, recorded: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """⟨Σ_i w_i log Σ_{a ∈ A_i} exp Q_tot^{i,a} − Q_tot⟩ (CFCQL, Eq. 9): at least 0, for the data are among the terms.

    Args:
        totals: (R, ..., N, A) Q_tot^{i,a}.
        available: (R, ..., N, A) bool, A_i.
        recorded: (R, ...) Q_tot of the actions of the data.
        weights: (R, ..., N), of sum 1; a gradient goes through them unless they have none.
        valid: (R, ...) bool, False on padding.

    Returns:
        (R,).
    """
    pushed = mask_unavailable(totals, available).logsumexp(dim=-1)  # (R, ..., N)
    return masked_mean((weights * pushed).sum(dim=-1) - recorded, valid)
