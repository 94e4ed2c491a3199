"""Products of small matrices that keep OpenBLAS on one thread.

Above 2^18 multiplications OpenBLAS starts its threads. For matrices as small as ours they only wait for each other: on
two busy cores spread-5 fell from 600,000 to 23,000 steps a second.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_ONE_THREAD = 2**18
Scalar = TypeVar("Scalar", np.float32, np.float64)


def product(x: NDArray[Scalar], matrix: NDArray[Scalar]) -> NDArray[Scalar]:
    """The product of x (B, K) and a matrix (K, M), in blocks of rows."""
    rows = max(1, _ONE_THREAD // matrix.size)
    if len(x) <= rows:
        return np.asarray(x @ matrix)
    out = np.empty((len(x), matrix.shape[1]), dtype=x.dtype)
    for first in range(0, len(x), rows):
        np.matmul(x[first : first + rows], matrix, out=out[first : first + rows])
    return out
