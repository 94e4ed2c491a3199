"""Inputs in units of what was seen so far, and the same within the first layer of a network."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-2  # of a deviation; contacts of robots are almost always the same


class RunningScale:
    """(x − mean) / std of all rows so far; at first x itself.

    Args:
        size: X.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean, self.std = torch.zeros(size), torch.ones(size)
        self._squares = torch.zeros(size, dtype=torch.float64)  # Σ (x − mean)²
        self._exact_mean = torch.zeros(size, dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., X) -> (..., X)."""
        return (x - self.mean) / self.std

    def see(self, rows: Tensor) -> None:
        """Takes rows (M, X) into account (Chan et al. 1983)."""
        new = rows.double()
        count, mean = len(new), new.mean(dim=0)
        apart, total = mean - self._exact_mean, self.count + count
        self._squares += (new - mean).square().sum(dim=0) + apart.square() * (self.count * count / total)
        self._exact_mean += apart * (count / total)
        self.count = total
        self.mean = self._exact_mean.float()
        self.std = (self._squares / total).sqrt().clamp(min=_LEAST).float()

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A layer on x that gives what this one gives on scaled x, of which x are the first X inputs.

        Args:
            weight: (1, X or more, out).
            bias: (1, 1, out).
        """
        size = len(self.mean)
        scaled = weight[:, :size] / self.std[:, None]
        return torch.cat([scaled, weight[:, size:]], dim=1), bias - self.mean @ scaled
