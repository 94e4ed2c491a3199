"""Which candidates are kept, by their values (INS, Sec. 4.2 and Eq. 9)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from methods.base import require

SELECTIONS = ("softmax", "topk", "none")


def candidates_for(amount: int, eta: float) -> int:
    """How many candidates there must be for a kept fraction η of them to be `amount`."""
    return math.ceil(amount / eta)


def selected(
    values: NDArray[np.float64], count: int, how: str, temperature: float | None, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of `count` candidates, ascending, chosen among all at once (INS, Alg. 1).

    `topk`: the largest values. `softmax`: without replacement with probabilities in proportion to exp(V / temperature),
    which are the largest of V / temperature + Gumbel noise (Kool et al. 2019). `none`: the first.

    Args:
        values: (B,) V of each.
        count: B or fewer.
        how: one of SELECTIONS.
        temperature: None: the deviation of the values; 1: Eq. 9 as it is printed, which in the units of most rewards is
            `topk`.
        generator: of the noise.
    """
    require(how in SELECTIONS, "ins", f"select={how}", " or ".join(SELECTIONS))
    if how == "none" or count >= len(values):
        return np.arange(count)
    keys = np.asarray(values, np.float64)
    if how == "softmax":
        scale = float(keys.std()) if temperature is None else temperature
        keys = keys / (scale if scale > 0 else 1.0) + generator.gumbel(size=len(keys))
    return np.sort(np.argpartition(-keys, count - 1)[:count]).astype(np.int64)
