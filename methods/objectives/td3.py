"""Targets and actor losses of the TD3 family. All are pure; leading axes are free."""

from __future__ import annotations

import torch
from torch import Tensor


def td3_target(reward: Tensor, terminal: Tensor, next_q: Tensor, discount: float) -> Tensor:
    """r_i + γ (1 − e) min_k Q̄_i^k(s', ã') (TD3, Fujimoto et al. 2018, Eq. 10, per agent).

    Shapes: reward (..., B), terminal bool that broadcasts to it, next_q (2, ..., B) -> (..., B). A time limit is no
    terminal.
    """
    return reward + torch.where(terminal, 0.0, discount * next_q.amin(dim=0))


def smoothed(action: Tensor, noise: Tensor, clip: float) -> Tensor:
    """clip(a + clip(ξ, −c, c), −1, 1) (TD3, Eq. 14). Any shape."""
    return (action + noise.clamp(-clip, clip)).clamp(-1.0, 1.0)


def td3_bc_loss(q: Tensor, policy: Tensor, recorded: Tensor, alpha: float) -> Tensor:
    """−λ mean Q(o, π(o)) + mean (π(o) − a)², λ = α / mean |Q| (TD3+BC, Fujimoto & Gu 2021, Eq. 5).

    λ has no gradient and is that of each agent and replica. Where every Q is 0, λ is 0.

    Args:
        q: (..., B) Q^1(o, π(o)).
        policy: (..., B, A) π(o).
        recorded: (..., B, A) the actions of the data.
        alpha: weight of Q.

    Returns:
        (...).
    """
    magnitude = q.detach().abs().mean(dim=-1)  # (...)
    weight = torch.where(magnitude == 0, 0.0, alpha / magnitude)
    return (policy - recorded).square().mean(dim=(-2, -1)) - weight * q.mean(dim=-1)


PENALISED = ("outputs", "actions")
"""What a small penalty on actors may hold down: their outputs u, before the tanh, or the actions tanh u.

Where all |u| are large, tanh u is ±1 in float32 and has no gradient: the actor stands still for ever. A penalty on the
actions has none there either.
"""


def mixed_actor_loss(q: Tensor, policy: Tensor, target: Tensor, tau: float) -> Tensor:
    """τ mean (π(o) − â)² − (1 − τ) mean Q(o, π(o)) (OMAR, Eq. 4).

    Args:
        q: (..., B) Q^1(o, π(o)).
        policy: (..., B, A) π(o).
        target: (..., B, A) what the policy is drawn to: OMAR's found actions, or those of the data.
        tau: weight of the target, in [0, 1].

    Returns:
        (...).
    """
    return tau * (policy - target).square().mean(dim=(-2, -1)) - (1 - tau) * q.mean(dim=-1)
