"""Which part of a window an agent keeps, and in what order agents are generated anew (MASTARS, Sec. 3.1 and 3.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDERS = ("lov", "sg", "reverse", "random")


def subgoals(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """g_i = argmax_t V(o_t^i), the first on a tie (MASTARS, Sec. 3.1).

    Args:
        values: (B, H, N).
        lengths: (B,) transitions within the episode; rows beyond repeat its last one, and are no goals.

    Returns:
        (B, N) rows, 0..lengths.
    """
    real = np.arange(values.shape[1]) <= lengths[:, None]  # (B, H)
    goals: NDArray[np.int64] = np.where(real[..., None], values, -np.inf).argmax(axis=1)
    return goals


def regenerated_rows(goals: NDArray[np.int64], lengths: NDArray[np.int64], horizon: int) -> NDArray[np.bool_]:
    """(B, H, N) what is made anew: agent i's rows t > g_i (MASTARS, Eq. 4).

    Rows beyond the episode's end belong to it, as nothing may pull the new rows towards where the episode stopped.
    An agent whose goal is its last real row keeps everything.

    Args:
        goals: (B, N) g_i, 0..lengths.
        lengths: (B,) transitions within the episode.
        horizon: H.
    """
    after = np.arange(horizon)[:, None] > goals[:, None]  # (B, H, N)
    return after & (goals < lengths[:, None])[:, None]


def generation_order(
    values: NDArray[np.float32], goals: NDArray[np.int64], order: str, generator: np.random.Generator
) -> NDArray[np.int64]:
    """(B, N) agents, the one to generate first in front; ties by index.

    `lov`: by V of the last row, descending (MASTARS, Eq. 7). `sg`: by subgoal, descending (Eq. 8). `reverse`: that of
    `lov` backwards. `random`: shuffled in every window (Sec. 4.6).

    Args:
        values: (B, H, N); a window that ends early repeats its last row.
        goals: (B, N).
        order: one of `ORDERS`.
        generator: for `random` alone.
    """
    if order == "random":
        agents = np.tile(np.arange(goals.shape[1]), (len(goals), 1))
        shuffled: NDArray[np.int64] = generator.permuted(agents, axis=1)
        return shuffled
    key = goals if order == "sg" else values[:, -1]  # (B, N)
    first_to_last: NDArray[np.int64] = np.argsort(-key, axis=1, kind="stable")
    return first_to_last[:, ::-1] if order == "reverse" else first_to_last
