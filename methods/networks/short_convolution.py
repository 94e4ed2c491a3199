"""Convolutions along a short time axis as matrix products, stacked over replicas: rows (R, M, L, C), channels last.

Along L rows a convolution is y[l] = b + Σ_i x[i] W[t(i, l)], where t(i, l) is the tap through which input row i reaches
output row l, if any does. `Geometry` is that table. Taps that no pair (i, l) uses, because they reach past both ends of
a short signal, only ever meet zero padding: they cannot change an output, get no gradient, and are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import uniform_slices


@dataclass(frozen=True)
class Geometry:
    """Which tap leads from each input row to each output row.

    Attributes:
        table: table[i][l] is the tap from input row i to output row l, or -1.
        taps: size of the kernel, used taps and idle ones.
    """

    table: tuple[tuple[int, ...], ...]
    taps: int

    @property
    def rows_in(self) -> int:
        """L of the input."""
        return len(self.table)

    @property
    def rows_out(self) -> int:
        """L of the output."""
        return len(self.table[0])

    @property
    def used(self) -> tuple[int, ...]:
        """The taps that some pair of rows uses, in ascending order."""
        return tuple(sorted({tap for row in self.table for tap in row if tap >= 0}))

    def slots(self) -> np.ndarray:
        """The table (L_in, L_out) with positions in `used` in place of taps; len(used) where there is none."""
        places = {tap: place for place, tap in enumerate(self.used)}
        return np.array([[places.get(tap, len(places)) for tap in row] for row in self.table])


def convolution(rows: int, kernel: int, stride: int = 1) -> Geometry:
    """A convolution with padding (kernel − 1) // 2: input row i meets output row l in tap i − stride · l + padding."""
    padding = (kernel - 1) // 2
    rows_out = (rows + 2 * padding - kernel) // stride + 1
    return _geometry(rows, rows_out, kernel, lambda i, out: i - stride * out + padding)


def transposed_convolution(rows: int) -> Geometry:
    """The transposed convolution of kernel 4, stride 2 and padding 1, which doubles the rows: tap l − 2i + 1."""
    return _geometry(rows, 2 * rows, 4, lambda i, out: out - 2 * i + 1)


def _geometry(rows_in: int, rows_out: int, taps: int, tap_of) -> Geometry:  # type: ignore[no-untyped-def]
    table = tuple(
        tuple(tap if 0 <= (tap := tap_of(i, out)) < taps else -1 for out in range(rows_out)) for i in range(rows_in)
    )
    return Geometry(table, taps)


class StackedConvolution(nn.Module):
    """R convolutions of one geometry, with the initial distribution of torch.nn.Conv1d: U(±1/√(fan-in · kernel)).

    Attributes:
        weight: (R, used taps, C_in, C_out).
        bias: (R, 1, 1, C_out).
    """

    _slots: Tensor

    def __init__(
        self,
        geometry: Geometry,
        channels: tuple[int, int],
        generators: Sequence[np.random.Generator],
        fan_in: int | None = None,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        n_in, n_out = channels
        bound = ((n_in if fan_in is None else fan_in) * geometry.taps) ** -0.5
        self.weight = uniform_slices(generators, 1, (len(geometry.used), n_in, n_out), bound)
        self.bias = uniform_slices(generators, 1, (1, 1, n_out), bound)
        self.register_buffer("_slots", torch.from_numpy(geometry.slots()), persistent=False)

    def dense(self) -> Tensor:
        """The banded matrix (R, L_in · C_in, L_out · C_out) of the convolution, gathered from its weight."""
        replicas, _, n_in, n_out = self.weight.shape
        padded = torch.cat([self.weight, self.weight.new_zeros(replicas, 1, n_in, n_out)], dim=1)
        blocks = padded[:, self._slots]  # (R, L_in, L_out, C_in, C_out)
        return blocks.transpose(2, 3).reshape(replicas, self.geometry.rows_in * n_in, self.geometry.rows_out * n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(R, M, L_in, C_in) -> (R, M, L_out, C_out)."""
        y = torch.bmm(x.flatten(2), self.dense())  # (R, M, L_out · C_out)
        return y.view(*x.shape[:2], self.geometry.rows_out, -1) + self.bias
