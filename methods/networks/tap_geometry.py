"""Which tap of a convolution joins which rows of a short signal."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Run(NamedTuple):
    """What one output row sees: input rows [first, end), in the taps at positions [slot, slot + end − first)."""

    first: int
    end: int
    slot: int


@dataclass(frozen=True)
class Geometry:
    """Which tap joins which rows: input row i and output row l meet in tap i + padding − stride · l.

    Attributes:
        rows_in, rows_out: L of the input and of the output.
        kernel: number of taps, used and idle; padding is (kernel − 1) // 2.
        stride: rows between two windows.
        transposed: the roles of i and l are exchanged.
    """

    rows_in: int
    rows_out: int
    kernel: int
    stride: int = 1
    transposed: bool = False

    @classmethod
    def convolution(cls, rows: int, kernel: int, stride: int = 1) -> Geometry:
        """Of an odd kernel; one output row for every `stride` input rows."""
        return cls(rows, (rows - 1) // stride + 1, kernel, stride)

    @classmethod
    def doubling(cls, rows: int) -> Geometry:
        """The transposed convolution of kernel 4, stride 2 and padding 1."""
        return cls(rows, 2 * rows, 4, 2, transposed=True)

    def tap(self, i: int, out: int) -> int | None:
        """The tap from input row i to output row `out`, or None."""
        near, far = (out, i) if self.transposed else (i, out)
        tap = near + (self.kernel - 1) // 2 - self.stride * far
        return tap if 0 <= tap < self.kernel else None

    @cached_property
    def used(self) -> tuple[int, ...]:
        """The taps in use, ordered so that ascending input rows meet an output row in adjacent ones."""
        pairs = itertools.product(range(self.rows_in), range(self.rows_out))
        taps = {tap for i, out in pairs if (tap := self.tap(i, out)) is not None}
        if self.transposed:  # of rows i and i + 1, the second meets a row in an earlier tap than the first
            return tuple(sorted(taps, key=lambda tap: (tap % self.stride, -tap)))
        return tuple(sorted(taps))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """What each output row sees."""
        runs = []
        for out in range(self.rows_out):
            seen = [(i, tap) for i in range(self.rows_in) if (tap := self.tap(i, out)) is not None]
            runs.append(Run(seen[0][0], seen[-1][0] + 1, self.used.index(seen[0][1])))
        return tuple(runs)
