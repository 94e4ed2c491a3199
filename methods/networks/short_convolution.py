"""Convolutions along a short time axis as matrix products, stacked over replicas: rows (R, M, L, C), channels last.

Along L rows a convolution is y[l] = b + Σ_i x[i] W[t(i, l)], where t(i, l) is the tap through which input row i reaches
output row l. Taps that no pair (i, l) uses, because they reach past both ends of a short signal, only ever meet zero
padding: they cannot change an output, get no gradient, and are not kept.

Three ways to compute it and its gradients, chosen by `form_of`:

* `rows`: one product an output row. The rows it sees are adjacent, and so are the taps it meets them in, so that both
  factors are views and nothing is gathered. L = 4: 14 blocks C_in × C_out in place of the 20 of a padded convolution.
* `pairs`: L = 2. The banded matrix [[B, A], [C, B]] is Toeplitz, and three products are enough where the blocks are
  four, and the padded convolution ten: y₀ = B (x₀ + x₁) + (A − B) x₁ and y₁ = B (x₀ + x₁) + (C − B) x₀.
* `unfolded`: one product over gathered neighbourhoods; the fewest kernels where L is long.

For inference on a CPU there is a fourth, `library`: torch's convolution, on the same memory seen as images.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import uniform_slices

Form = Literal["rows", "pairs", "unfolded", "library"]
_FEW_ROWS = 4  # up to which one product a row is best


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


def form_of(geometry: Geometry, device: torch.device, training: bool) -> Form:
    """The fastest form for a geometry: a fixed rule, so that a resumed fit computes as its first part did.

    Measured on a CPU for M = 96 and 192, C = 32 to 1,024: `pairs` is a sixth faster than `rows` at L = 2. At L = 6 to
    24 `rows` is faster than `unfolded` by up to a third, and forward `library` is faster than `rows` by a tenth to a
    fifth.
    """
    if device.type != "cpu":
        return "rows" if geometry.rows_out <= _FEW_ROWS or geometry.transposed else "unfolded"
    if geometry.rows_in == geometry.rows_out == 2 and len(geometry.used) == 3:
        return "pairs"
    whole = geometry.rows_out > _FEW_ROWS and len(geometry.used) == geometry.kernel and not geometry.transposed
    return "library" if whole and not training else "rows"


def prepare(weight: Tensor, form: Form) -> Tensor:
    """The factor that a form needs, from the weight (R, taps in use, C_in, C_out).

    Of `pairs` (C − B, B, A − B); of `library` (R, C_out, C_in, 1, taps), channels last; else the weight itself.
    """
    if form == "library":
        kernels = weight.permute(0, 3, 2, 1).unsqueeze(3)
        return torch.stack([one.contiguous(memory_format=torch.channels_last) for one in kernels.unbind()])
    if form != "pairs":
        return weight
    prepared = weight.clone()
    prepared[:, ::2] -= weight[:, 1:2]
    return prepared


def convolve(x: Tensor, prepared: Tensor, bias: Tensor, geometry: Geometry, form: Form) -> Tensor:
    """Rows (R, M, L_in, C_in), `prepare`d weight, bias (R, 1, C_out) -> (R, M, L_out, C_out)."""
    if form == "library":
        return _convolve_images(x, prepared, bias, geometry)
    (replicas, m), n_out = x.shape[:2], prepared.shape[-1]
    if form == "unfolded":
        y = torch.baddbmm(bias, _neighbourhoods(x, geometry).flatten(1, 2), prepared.flatten(1, 2))
        return y.view(replicas, m, geometry.rows_out, n_out)
    y = x.new_empty(replicas, m, geometry.rows_out, n_out)
    if form == "pairs":
        (x0, x1), (y0, y1), (c, b, a) = x.unbind(2), y.unbind(2), prepared.unbind(1)
        shared = torch.baddbmm(bias, x0 + x1, b)
        torch.baddbmm(shared, x1, a, out=y0)
        torch.baddbmm(shared, x0, c, out=y1)
        return y
    inputs, taps = x.flatten(2), prepared.flatten(1, 2)  # (R, M, L_in · C_in), (R, taps · C_in, C_out)
    for (rows, used), out in zip(_slices(geometry, x.shape[3]), y.unbind(2), strict=True):
        torch.baddbmm(bias, inputs[..., rows], taps[:, used], out=out)
    return y


def _convolve_images(x: Tensor, kernels: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    stride, padding = (1, geometry.stride), (0, (geometry.kernel - 1) // 2)
    replicas = zip(as_images(x), kernels.unbind(), bias.flatten(1).unbind(), strict=True)
    made = tuple(torch.conv2d(image, kernel, added, stride, padding) for image, kernel, added in replicas)
    return as_rows(made)


def as_images(rows: Tensor) -> tuple[Tensor, ...]:
    """The replicas of rows (R, M, L, C), each seen as images (M, C, 1, L), channels last."""
    return rows.unsqueeze(2).permute(0, 1, 4, 2, 3).unbind()


def as_rows(images: tuple[Tensor, ...]) -> Tensor:
    """The inverse of `as_images`."""
    stacked = images[0].unsqueeze(0) if len(images) == 1 else torch.stack(images)  # one replica: no copy
    return stacked.permute(0, 1, 3, 4, 2).squeeze(2)


def gradients(
    x: Tensor, prepared: Tensor, of_y: Tensor, geometry: Geometry, form: Form, need_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of input, weight and bias of `convolve` from that of its result (R, M, L_out, C_out)."""
    of_y = of_y.contiguous()
    of_bias = of_y.sum(dim=(1, 2)).unsqueeze(1)  # (R, 1, C_out)
    if form == "unfolded":
        columns, of_rows = _neighbourhoods(x, geometry).flatten(1, 2), of_y.flatten(1, 2)
        of_weight = torch.bmm(columns.mT, of_rows).view(prepared.shape)
        if not need_x:
            return None, of_weight, of_bias
        of_columns = torch.bmm(of_rows, prepared.flatten(1, 2).mT)
        return _scatter(of_columns.view(*of_y.shape[:3], -1), x, geometry), of_weight, of_bias
    if form == "pairs":
        return *_pair_gradients(x, prepared, of_y, need_x), of_bias
    of_weight, of_x = prepared.new_zeros(prepared.shape), x.new_zeros(x.shape)
    inputs, taps = x.flatten(2), prepared.flatten(1, 2)
    of_inputs, of_taps = of_x.flatten(2), of_weight.flatten(1, 2)
    for (rows, used), of_out in zip(_slices(geometry, x.shape[3]), of_y.unbind(2), strict=True):
        of_taps[:, used].baddbmm_(inputs[..., rows].mT, of_out)
        if need_x:
            of_inputs[..., rows].baddbmm_(of_out, taps[:, used].mT)
    return of_x, of_weight, of_bias


def _pair_gradients(x: Tensor, prepared: Tensor, of_y: Tensor, need_x: bool) -> tuple[Tensor | None, Tensor]:
    (x0, x1), (y0, y1), (c, b, a) = x.unbind(2), of_y.unbind(2), prepared.unbind(1)
    both = y0 + y1
    of_weight = prepared.new_empty(prepared.shape)
    of_c, of_b, of_a = of_weight.unbind(1)
    torch.bmm(x0.mT, y1, out=of_c)
    torch.bmm(x1.mT, y0, out=of_a)
    torch.bmm((x0 + x1).mT, both, out=of_b).sub_(of_a).sub_(of_c)  # B is in all three factors
    if not need_x:
        return None, of_weight
    of_x = x.new_empty(x.shape)
    of_x0, of_x1 = of_x.unbind(2)
    shared = torch.bmm(both, b.mT)
    torch.baddbmm(shared, y1, c.mT, out=of_x0)
    torch.baddbmm(shared, y0, a.mT, out=of_x1)
    return of_x, of_weight


@functools.cache
def _slices(geometry: Geometry, channels: int) -> list[tuple[slice, slice]]:
    """Of each output row: the rows it sees and the taps it meets them in, in merged axes (L · C) and (taps · C)."""
    return [
        (slice(first * channels, end * channels), slice(slot * channels, (slot + end - first) * channels))
        for first, end, slot in geometry.runs
    ]


def _neighbourhoods(x: Tensor, geometry: Geometry) -> Tensor:
    """(R, M, L_in, C) -> (R, M, L_out, taps · C): the rows that each output row sees, zero where there is none."""
    before, after = _padding(geometry)
    padded = torch.nn.functional.pad(x, (0, 0, before, after))
    reach = geometry.stride * (geometry.rows_out - 1) + 1
    return torch.cat([padded[:, :, t : t + reach : geometry.stride] for t in range(len(geometry.used))], dim=-1)


def _scatter(columns: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """The transpose of `_neighbourhoods`: sums (R, M, L_out, taps · C) back into the rows (R, M, L_in, C)."""
    before, after = _padding(geometry)
    padded = x.new_zeros(*x.shape[:2], before + x.shape[2] + after, x.shape[3])
    reach = geometry.stride * (geometry.rows_out - 1) + 1
    for t in range(len(geometry.used)):
        padded[:, :, t : t + reach : geometry.stride] += columns.narrow(3, t * x.shape[3], x.shape[3])
    return padded[:, :, before : before + x.shape[2]]


def _padding(geometry: Geometry) -> tuple[int, int]:
    before = (geometry.kernel - 1) // 2 - geometry.used[0]
    last = geometry.stride * (geometry.rows_out - 1) + len(geometry.used) - 1 - before  # the last row that is seen
    return before, max(0, last - geometry.rows_in + 1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, form: Form) -> Tensor:
        x, prepared = x.contiguous(), prepare(weight, form)
        ctx.save_for_backward(x, prepared)
        ctx.how = geometry, form
        return convolve(x, prepared, bias, geometry, form)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, prepared = ctx.saved_tensors
        geometry, form = ctx.how
        return *gradients(x, prepared, of_y, geometry, form, ctx.needs_input_grad[0]), None, None


class StackedConvolution(nn.Module):
    """R convolutions of one geometry, with the initial distribution of torch.nn.Conv1d, U(±1/√(fan-in · kernel)).

    Attributes:
        weight: (R, taps in use, C_in, C_out), the taps in the order of `Geometry.used`.
        bias: (R, 1, C_out).
    """

    def __init__(
        self, geometry: Geometry, channels: tuple[int, int], generators: Sequence[np.random.Generator]
    ) -> None:
        super().__init__()
        self.geometry = geometry
        n_in, n_out = channels
        # torch.nn.ConvTranspose1d counts the channels of its output as fan-in.
        bound = ((n_out if geometry.transposed else n_in) * geometry.kernel) ** -0.5
        self.weight = uniform_slices(generators, 1, (len(geometry.used), n_in, n_out), bound)
        self.bias = uniform_slices(generators, 1, (1, n_out), bound)
        self._fixed: Tensor | None = None

    def fix(self) -> None:
        """Prepares the weight once and for all: for inference, where it no longer changes."""
        self._fixed = prepare(self.weight.detach(), form_of(self.geometry, self.weight.device, training=False))

    def inference(self, x: Tensor) -> Tensor:
        """As `forward`, without gradients."""
        form = form_of(self.geometry, x.device, training=False)
        prepared = prepare(self.weight, form) if self._fixed is None else self._fixed
        return convolve(x.contiguous(), prepared, self.bias, self.geometry, form)

    def forward(self, x: Tensor) -> Tensor:
        """(R, M, L_in, C_in) -> (R, M, L_out, C_out)."""
        if not torch.is_grad_enabled():
            return self.inference(x)
        form = form_of(self.geometry, x.device, training=True)
        y: Tensor = _Convolution.apply(x, self.weight, self.bias, self.geometry, form)  # type: ignore[no-untyped-call]
        return y
