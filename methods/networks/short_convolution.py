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

For inference on a CPU there is a fourth, `library`: torch's convolution, channels first.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import uniform_slices
from methods.networks.tap_geometry import Geometry

Form = Literal["rows", "pairs", "unfolded", "library"]
_FEW_ROWS = 4  # up to which one product a row is best
_MANY_CHANNELS = 512  # from which torch's convolution is best on more rows


def form_of(geometry: Geometry, channels: tuple[int, int], device: torch.device, training: bool) -> Form:
    """The fastest form for a geometry: a fixed rule, so that a resumed fit computes as its first part did.

    Measured on a CPU for M = 96 to 384, C = 32 to 1,024: `pairs` is a sixth faster than `rows` at L = 2. At L = 6 to 24
    `rows` is faster than `unfolded` by up to a third. Without gradients, `library` is faster than `rows` by a seventh
    from 512 channels on, and no faster below.
    """
    if device.type != "cpu":
        return "rows" if geometry.rows_out <= _FEW_ROWS or geometry.transposed else "unfolded"
    if geometry.rows_in == geometry.rows_out == 2 and len(geometry.used) == 3:
        return "pairs"
    whole = len(geometry.used) == geometry.kernel and not geometry.transposed
    large = geometry.rows_out > _FEW_ROWS and min(channels) >= _MANY_CHANNELS
    return "library" if whole and large and not training else "rows"


def prepare(weight: Tensor, form: Form) -> Tensor:
    """The factor that a form needs, from the weight (..., taps in use, C_in, C_out).

    Of `pairs` (C − B, B, A − B); of `library` (..., C_out, C_in, taps); else the weight itself.
    """
    if form == "library":
        return weight.movedim(-3, -1).transpose(-3, -2).contiguous()
    if form != "pairs":
        return weight
    prepared = weight.clone()
    prepared[..., ::2, :, :] -= weight[..., 1:2, :, :]
    return prepared


def convolve(x: Tensor, prepared: Tensor, bias: Tensor, geometry: Geometry, form: Form) -> Tensor:
    """Rows (M, L_in, C_in), `prepare`d weight, bias (1, C_out) -> (M, L_out, C_out); with a leading R, R at once."""
    if form == "library":
        signal, padding = x.mT.contiguous(), (geometry.kernel - 1) // 2
        return torch.conv1d(signal, prepared, bias.view(-1), geometry.stride, padding).mT.contiguous()
    add_product = _SINGLE.add_product if x.dim() == 3 else _STACKED.add_product
    if form == "unfolded":
        y = add_product(bias, _neighbourhoods(x, geometry).flatten(-3, -2), prepared.flatten(-3, -2))
        return y.view(*x.shape[:-2], geometry.rows_out, -1)
    y = x.new_empty(*x.shape[:-2], geometry.rows_out, prepared.shape[-1])
    if form == "pairs":
        (x0, x1), (y0, y1), (c, b, a) = x.unbind(-2), y.unbind(-2), prepared.unbind(-3)
        shared = add_product(bias, x0 + x1, b)
        add_product(shared, x1, a, out=y0)
        add_product(shared, x0, c, out=y1)
        return y
    inputs, taps = x.flatten(-2), prepared.flatten(-3, -2)  # (M, L_in · C_in), (taps · C_in, C_out)
    for (rows, used), out in zip(_spans(geometry, x.shape[-1]), y.unbind(-2), strict=True):
        add_product(bias, inputs.narrow(-1, *rows), taps.narrow(-2, *used), out=out)
    return y


def gradients(
    x: Tensor, prepared: Tensor, of_y: Tensor, geometry: Geometry, form: Form, of_x: Tensor | None, of_weight: Tensor
) -> None:
    """Writes the gradients of input and weight of `convolve`, from that of its result (..., M, L_out, C_out).

    Args:
        x: as given to `convolve`, contiguous.
        prepared: as given to `convolve`.
        of_y: gradient of its result, contiguous.
        geometry: as given to `convolve`.
        form: any but `library`.
        of_x: takes the gradient of the rows; None: nobody needs it.
        of_weight: takes the gradient of the weight before it was prepared, in its shape.
    """
    product, add_product = _SINGLE if x.dim() == 3 else _STACKED
    if form == "unfolded":
        columns, of_rows = _neighbourhoods(x, geometry).flatten(-3, -2), of_y.flatten(-3, -2)
        product(columns.mT, of_rows, out=of_weight.flatten(-3, -2))
        if of_x is not None:
            of_columns = product(of_rows, prepared.flatten(-3, -2).mT)
            of_x.copy_(_gathered(of_columns.view(*of_y.shape[:-1], -1), of_x, geometry))
    elif form == "pairs":
        (x0, x1), (y0, y1), (c, b, a) = x.unbind(-2), of_y.unbind(-2), prepared.unbind(-3)
        both, (of_c, of_b, of_a) = y0 + y1, of_weight.unbind(-3)
        product(x0.mT, y1, out=of_c)
        product(x1.mT, y0, out=of_a)
        product((x0 + x1).mT, both, out=of_b).sub_(of_a).sub_(of_c)  # B is in all three factors
        if of_x is not None:
            of_x0, of_x1 = of_x.unbind(-2)
            shared = product(both, b.mT)
            add_product(shared, y1, c.mT, out=of_x0)
            add_product(shared, y0, a.mT, out=of_x1)
    else:
        inputs, taps, of_taps = x.flatten(-2), prepared.flatten(-3, -2), of_weight.zero_().flatten(-3, -2)
        of_inputs = None if of_x is None else of_x.zero_().flatten(-2)
        for (rows, used), of_out in zip(_spans(geometry, x.shape[-1]), of_y.unbind(-2), strict=True):
            of_used = of_taps.narrow(-2, *used)
            add_product(of_used, inputs.narrow(-1, *rows).mT, of_out, out=of_used)
            if of_inputs is not None:
                of_seen = of_inputs.narrow(-1, *rows)
                add_product(of_seen, of_out, taps.narrow(-2, *used).mT, out=of_seen)


class _Products(NamedTuple):
    """a b and c + a b, with `out=`."""

    product: Callable[..., Tensor]
    add_product: Callable[..., Tensor]


_SINGLE, _STACKED = _Products(torch.mm, torch.addmm), _Products(torch.bmm, torch.baddbmm)


@functools.cache
def _spans(geometry: Geometry, channels: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each output row, start and length of the rows it sees in (L · C), and of their taps in (taps · C)."""
    return [
        ((first * channels, (end - first) * channels), (slot * channels, (end - first) * channels))
        for first, end, slot in geometry.runs
    ]


def as_image(rows: Tensor) -> Tensor:
    """(M, L, C) seen as images (M, C, 1, L), channels last."""
    return rows.unsqueeze(1).permute(0, 3, 1, 2)


def as_rows(image: Tensor) -> Tensor:
    """The inverse of `as_image`."""
    return image.permute(0, 2, 3, 1).squeeze(1)


def _neighbourhoods(x: Tensor, geometry: Geometry) -> Tensor:
    """(..., L_in, C) -> (..., L_out, taps · C): the rows that each output row sees, zero where there is none."""
    before, after = _padding(geometry)
    padded = torch.nn.functional.pad(x, (0, 0, before, after))
    reach = geometry.stride * (geometry.rows_out - 1) + 1
    return torch.cat([padded[..., t : t + reach : geometry.stride, :] for t in range(len(geometry.used))], dim=-1)


def _gathered(columns: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """The transpose of `_neighbourhoods`: sums (..., L_out, taps · C) back into rows like x (..., L_in, C)."""
    before, after = _padding(geometry)
    padded = x.new_zeros(*x.shape[:-2], before + x.shape[-2] + after, x.shape[-1])
    reach = geometry.stride * (geometry.rows_out - 1) + 1
    for t in range(len(geometry.used)):
        padded[..., t : t + reach : geometry.stride, :] += columns.narrow(-1, t * x.shape[-1], x.shape[-1])
    return padded.narrow(-2, before, x.shape[-2])


def _padding(geometry: Geometry) -> tuple[int, int]:
    before = (geometry.kernel - 1) // 2 - geometry.used[0]
    last = geometry.stride * (geometry.rows_out - 1) + len(geometry.used) - 1 - before  # the last row that is seen
    return before, max(0, last - geometry.rows_in + 1)


def by_replica(device: torch.device, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The slices of each replica in turn on a CPU, where its tensors then stay in the cache; else all at once."""
    if device.type != "cpu":
        return iter([tensors])
    return zip(*(itertools.repeat(None) if t is None else t.unbind() for t in tensors), strict=False)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, form: Form) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.how = geometry, form
        replicas = by_replica(x.device, x, weight, bias)
        return stacked([convolve(a, prepare(w, form), b, geometry, form) for a, w, b in replicas], x)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        geometry, form = ctx.how
        of_y, of_weight = of_y.contiguous(), torch.empty_like(weight)
        of_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        for one, w, of_one, of_a, of_w in by_replica(x.device, x, weight, of_y, of_x, of_weight):
            gradients(one, prepare(w, form), of_one, geometry, form, of_a, of_w)
        return of_x, of_weight, of_y.sum(dim=(1, 2)).unsqueeze(1), None, None


def stacked(parts: list[Tensor], like: Tensor) -> Tensor:
    """(R, ...) from what was computed for the slices of `by_replica`."""
    if like.device.type != "cpu":
        return parts[0]
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)  # one replica: no copy


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
        self._fixed = prepare(self.effective().detach(), self.form(training=False))

    def prepared(self) -> Tensor:
        """The weight as inference needs it."""
        return prepare(self.effective(), self.form(training=False)) if self._fixed is None else self._fixed

    def form(self, training: bool) -> Form:
        """How this convolution is computed."""
        n_in, n_out = self.weight.shape[-2:]
        return form_of(self.geometry, (n_in, n_out), self.weight.device, training)

    def effective(self) -> Tensor:
        """The weight that convolves."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(R, M, L_in, C_in) -> (R, M, L_out, C_out)."""
        form = self.form(training=torch.is_grad_enabled())
        if torch.is_grad_enabled():
            y: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]  # as torch has it
                x, self.effective(), self.bias, self.geometry, form
            )
            return y
        replicas = by_replica(x.device, x.contiguous(), self.prepared(), self.bias)
        return stacked([convolve(a, w, b, self.geometry, form) for a, w, b in replicas], x)
