"""The sparse alternative to softmax (Martins & Astudillo 2016), with its own gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Sparsemax(torch.autograd.Function):
    """p = [z − τ(z)]₊ over the last axis."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        """(..., N) -> (..., N)."""
        ordered = z.sort(dim=-1, descending=True).values
        ranks = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
        # Without the largest: sums of large logits would lose the 1 (INS, Eq. 5, is invariant to shifts).
        top = ordered[..., :1]
        ordered = ordered - top
        partial = ordered.cumsum(dim=-1) - 1  # Σ_{i≤j} z_(i) − 1
        support = (ranks * ordered > partial).sum(dim=-1, keepdim=True)  # m(z), INS, Eq. 6
        support = support.clamp_(min=1)  # a logit that is not a number must not stop the other replicas
        threshold = partial.gather(-1, support - 1) / support  # τ, INS, Eq. 5
        p = (z - top - threshold).clamp_(min=0)  # INS, Eq. 4
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """On the support its mean is taken off the gradient, elsewhere it is 0."""
        p: Tensor = ctx.saved_tensors[0]
        inside = (p > 0).to(gradient.dtype)
        mean = (gradient * inside).sum(dim=-1, keepdim=True) / inside.sum(dim=-1, keepdim=True)
        return inside * (gradient - mean)


def sparsemax(z: Tensor) -> Tensor:
    """The point of the probability simplex nearest to the logits (..., N), N small; INS, Eq. 3.

    A row with a logit that is not a number becomes NaN.
    """
    p: Tensor = _Sparsemax.apply(z)  # type: ignore[no-untyped-call]  # as torch has it
    return p
