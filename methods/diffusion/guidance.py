"""Guidance by a condition, and by several at once, on predictions of the noise.

One convention everywhere: ε̂ = ε_u + g (ε_c − ε_u); g = 0 ignores the condition, g = 1 is the conditional model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def guided(eps_u: Tensor, eps_c: Tensor, g: float) -> Tensor:
    """ε_u + g (ε_c − ε_u) (classifier-free guidance as MADiff's code and CODI, Eq. 3, have it).

    Args:
        eps_u: (...) predicted without the condition.
        eps_c: (...) predicted with it.
        g: 0 gives `eps_u` and 1 gives `eps_c`, both bit for bit.
    """
    return torch.lerp(eps_u, eps_c, g)


def composed(eps_u: Tensor, eps_list: Tensor | Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """ε_u + Σ_i w_i (ε_i − ε_u) (CODI, Eq. 8); with one condition it equals `guided` bit for bit.

    Args:
        eps_u: (...) predicted without a condition.
        eps_list: (C, ...) predicted with one condition each.
        weights: C numbers.

    Raises:
        ValueError: when the lengths differ.
    """
    total = eps_u
    for i, (eps, weight) in enumerate(zip(eps_list, weights, strict=True)):
        total = guided(eps_u, eps, weight) if i == 0 else torch.add(total, eps - eps_u, alpha=weight)
    return total


def text_guidance(w: float) -> float:
    """The g = 1 + w of a weight that a paper prints as ε_c + w (ε_c − ε_u) (MADiTS, Sec. 3; MASTARS, Sec. 2.2).

    The codes of MADiff and MASTARS mean g by the same number.
    """
    return 1.0 + w
