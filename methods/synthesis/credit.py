"""Who contributes how much: path-integrated gradients along a segment (MADiTS, Sec. 4.2 and App. C).

A segment is a sequence of points x_k = (o_k, a_k), the features of agent i being X_i. With a scalar function F,

    IG_j(k) = (x_{k,j} − x_{k+1,j}) · ∫ ∂F/∂x_j (x_{k+1} + α (x_k − x_{k+1})) dα        (Eq. 6, midpoint rule)
    C_i(k)  = Σ_{k' ≥ k} Σ_{j ∈ X_i} IG_j(k')                                           (Eq. 12)

so that Σ_i C_i(k) = F(x_k) − F(x_{v−1}), the last valid point x_{v−1} being the baseline (Eq. 7).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ScalarFunction = Callable[[Tensor], Tensor]
"""F: points (..., N, X) to values (...), differentiable."""

_POINTS_AT_ONCE = 1 << 17  # bounds the memory of one backward pass; changes nothing else


def path_credit(function: ScalarFunction, points: Tensor, valid: Tensor, steps: int) -> Tensor:
    """C_i(k) along each segment, (B, V, N); 0 from the last valid point on.

    Args:
        function: F.
        points: (B, V, N, X).
        valid: (B,) int64, v: points 0..v − 1 belong to the segment.
        steps: M midpoints on each piece of the path.
    """
    pieces = integrated_gradients(function, points[:, :-1], points[:, 1:], steps)  # (B, V - 1, N)
    inside = torch.arange(1, points.shape[1], device=points.device) < valid[:, None]  # (B, V - 1), both ends valid
    pieces = pieces * inside[..., None]
    return torch.cat([_reverse_cumulative_sum(pieces), torch.zeros_like(points[:, :1, :, 0])], dim=1)


def pointwise_credit(function: ScalarFunction, points: Tensor, valid: Tensor, baseline: Tensor, steps: int) -> Tensor:
    """Σ_{k' ≥ k} of the integrated gradients from one fixed baseline (N, X) to each valid point, (B, V, N)."""
    each = integrated_gradients(function, points, baseline.expand_as(points), steps)  # (B, V, N)
    inside = torch.arange(points.shape[1], device=points.device) < valid[:, None]  # (B, V)
    return _reverse_cumulative_sum(each * inside[..., None])


def integrated_gradients(function: ScalarFunction, points: Tensor, baselines: Tensor, steps: int) -> Tensor:
    """Integrated gradients of each agent's features, (B, V, N), from baselines to points, both (B, V, N, X)."""
    batch, length = points.shape[:2]
    if not points.numel():
        return points.new_zeros(points.shape[:-1])
    at_once = max(1, _POINTS_AT_ONCE // (length * steps))
    parts = [
        _integrated_gradients(function, points[first : first + at_once], baselines[first : first + at_once], steps)
        for first in range(0, batch, at_once)
    ]
    return torch.cat(parts)


def _integrated_gradients(function: ScalarFunction, points: Tensor, baselines: Tensor, steps: int) -> Tensor:
    difference = points - baselines  # (B, V, N, X)
    alpha = (torch.arange(steps, device=points.device, dtype=points.dtype) + 0.5) / steps  # (M,)
    path = baselines + alpha.reshape(-1, 1, 1, 1, 1) * difference  # (M, B, V, N, X)
    with torch.enable_grad():
        path = path.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(path).sum(), path)
    return (difference * gradient.mean(dim=0)).sum(dim=-1)


def mean_ranks(credit: Tensor, valid: Tensor) -> Tensor:
    """(B, N) rank of each agent by its credit (B, V, N), 1 the least, averaged over k < v − 1; NaN where v < 2.

    Ties get their average rank. The last valid point is left out: all credits are 0 there.
    """
    mine, other = credit[..., :, None], credit[..., None, :]  # (B, V, N, 1), (B, V, 1, N)
    below = (other < mine).sum(dim=-1) + 0.5 * ((other == mine).sum(dim=-1) - 1)  # (B, V, N)
    counted = torch.arange(credit.shape[1], device=credit.device) < (valid - 1)[:, None]  # (B, V)
    total = ((1 + below) * counted[..., None]).sum(dim=1)  # (B, N)
    return total / counted.sum(dim=1, keepdim=True)


def underperformers(credit: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """(B, N) bool: mean rank below the threshold δ_rank (MADiTS, Sec. 4.2); nobody where v < 2."""
    return mean_ranks(credit, valid) < threshold  # NaN is not below


def automatic_rank_threshold(n_agents: int) -> float:
    """δ_rank = 1.165 (N + 1) / 2: MADiTS' 2.33 for three agents (App. E, T.3), scaled with the mean rank."""
    return 1.165 * (n_agents + 1) / 2  # inferred


def _reverse_cumulative_sum(values: Tensor) -> Tensor:
    """Σ_{k' ≥ k} along axis 1."""
    return values.flip(1).cumsum(1).flip(1)
