"""OMAR's zeroth-order search for actions of high value (Pan et al. 2022, Alg. 1). Nothing here has a gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Values = Callable[[Tensor], Tensor]
"""Q^1(o, a) of candidate actions (..., B, K, A) -> (..., B, K)."""
NormalDraw = Callable[[int], Tensor]
"""Standard normal values (..., B, K, A) for K candidates."""


@torch.no_grad()
def softmax_search(
    values: Values, policy: Tensor, draw: NormalDraw, *, iterations: int, samples: int, sigma: float
) -> Tensor:
    """The best of the last candidates and π(o), candidates being drawn around a softmax-weighted mean.

    μ = 0 at first; then μ ← Σ_k softmax(q)_k a_k and σ ← √mean_k (a_k − μ)², around the new μ as in OMAR's code (its
    Eq. 3: around the old one). Candidates are clipped to [−1, 1].

    Args:
        values: Q of candidates.
        policy: (..., B, A) π(o).
        draw: noise of the candidates.
        iterations: J.
        samples: K.
        sigma: σ of the first candidates.

    Returns:
        (..., B, A).
    """
    mean, spread = torch.zeros_like(policy), torch.full_like(policy, sigma)
    for _ in range(iterations):
        candidates = (mean.unsqueeze(-2) + spread.unsqueeze(-2) * draw(samples)).clamp(-1.0, 1.0)  # (..., B, K, A)
        q = values(candidates)  # (..., B, K)
        mean = (q.softmax(dim=-1).unsqueeze(-1) * candidates).sum(dim=-2)  # (..., B, A)
        spread = (candidates - mean.unsqueeze(-2)).square().mean(dim=-2).sqrt()
    return _best(values, candidates, q, policy)


@torch.no_grad()
def elite_search(
    values: Values, policy: Tensor, draw: NormalDraw, *, iterations: int, samples: int, elites: int, sigma: float
) -> Tensor:
    """The best of the last pool and π(o), by the cross-entropy method.

    From the second iteration on, the elites of the last one join the pool; μ and σ (unbiased) are those of the elites.

    Args:
        values: Q of candidates.
        policy: (..., B, A) π(o).
        draw: noise of the candidates.
        iterations: J.
        samples: K.
        elites: how many of the pool, at least 2 and at most K.
        sigma: σ of the first candidates.

    Returns:
        (..., B, A).
    """
    mean, spread = torch.zeros_like(policy), torch.full_like(policy, sigma)
    best, best_q = policy.new_empty(*policy.shape[:-1], 0, policy.shape[-1]), policy.new_empty(*policy.shape[:-1], 0)
    for _ in range(iterations):
        fresh = (mean.unsqueeze(-2) + spread.unsqueeze(-2) * draw(samples)).clamp(-1.0, 1.0)  # (..., B, K, A)
        pool, q = torch.cat([fresh, best], dim=-2), torch.cat([values(fresh), best_q], dim=-1)
        best_q, index = q.topk(elites, dim=-1)  # (..., B, elites)
        best = pool.gather(-2, index.unsqueeze(-1).expand(*index.shape, pool.shape[-1]))
        mean, spread = best.mean(dim=-2), best.std(dim=-2)
    return _best(values, pool, q, policy)


def _best(values: Values, candidates: Tensor, q: Tensor, policy: Tensor) -> Tensor:
    """The action of the largest value among candidates (..., B, K, A) and π(o)."""
    every = torch.cat([candidates, policy.unsqueeze(-2)], dim=-2)  # (..., B, K + 1, A)
    q = torch.cat([q, values(policy.unsqueeze(-2))], dim=-1)
    index = q.argmax(dim=-1)[..., None, None].expand(*policy.shape[:-1], 1, policy.shape[-1])
    return every.gather(-2, index).squeeze(-2)
