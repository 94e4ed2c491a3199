"""Means and standard deviations of columns that may be memory-mapped and large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_ROWS = 65_536  # rows read at a time: a few MB


def mean_and_std(column: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation over the first axis (population form), in float64 and in one bounded pass each.

    An empty column has mean 0 and standard deviation 0.
    """
    count = max(1, len(column))
    mean = sum((block.sum(axis=0) for block in _blocks(column)), np.zeros(column.shape[1:])) / count
    variance = sum((((block - mean) ** 2).sum(axis=0) for block in _blocks(column)), np.zeros(column.shape[1:])) / count
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _blocks(column: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(column), _ROWS):
        yield column[start : start + _ROWS].astype(np.float64)
