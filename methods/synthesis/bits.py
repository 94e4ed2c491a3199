"""Discrete actions as bits, and back to the nearest available action (INS, Sec. 4.1; Chen et al. 2022)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def action_codes(n_actions: int) -> NDArray[np.float32]:
    """(M, L) the bits of every action, most significant first, L = ⌈log2 M⌉ and at least 1."""
    n_bits = max(1, (n_actions - 1).bit_length())
    shifts = np.arange(n_bits - 1, -1, -1)
    return ((np.arange(n_actions)[:, None] >> shifts) & 1).astype(np.float32)


def decode_bits(bits: NDArray[np.float32], available: NDArray[np.bool_]) -> NDArray[np.int64]:
    """argmin_{a available} Σ_l (b_l − code_l(a))²; the lowest such action on a tie.

    Deviation: INS thresholds at 0.5, which leaves codes above M undefined and ignores the mask. Both agree wherever
    the thresholded code is an available action.

    Args:
        bits: (..., L) real numbers near 0 and 1.
        available: (..., M) bool; an all-False row decodes as if all were available.
    """
    codes = action_codes(available.shape[-1])  # (M, L)
    # Σ b² is the same for every action: Σ code² − 2 b·code orders them, without a (..., M, L) array.
    distance = (codes**2).sum(axis=-1) - 2 * (bits @ codes.T)  # (..., M)
    allowed = available | ~available.any(axis=-1, keepdims=True)
    nearest: NDArray[np.int64] = np.where(allowed, distance, np.inf).argmin(axis=-1).astype(np.int64)
    return nearest
