"""Convolution, group norm and Mish as one differentiable step, with what is added to the result.

One `torch.autograd.Function` a block, with its derivative written out: on a CPU half of the time of a narrow network
went into elementwise passes and the bookkeeping between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.short_convolution import (
    Form,
    StackedConvolution,
    as_image,
    as_rows,
    by_replica,
    convolve,
    gradients,
    prepare,
)
from methods.networks.tap_geometry import Geometry

GROUPS, EPSILON = 8, 1e-5


def group_norm(y: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """γ (y − mean) / σ + β over (L, C / 8), the means, and 1 / σ: y (..., M, L, C), γ and β (..., 1, 1, C).

    One replica (M, L, C), as on a CPU, takes torch's channels-last kernel, which other devices lack; R at once take the
    formula in plain operations.
    """
    if y.dim() == 3:
        m, rows, channels = y.shape
        affine = scale.view(-1), shift.view(-1)
        z, mean, inverse = torch.native_group_norm(as_image(y), *affine, m, channels, rows, GROUPS, EPSILON)
        return as_rows(z), mean, inverse
    groups = y.view(*y.shape[:-1], GROUPS, -1)  # (..., M, L, 8, C / 8)
    variance, mean = torch.var_mean(groups, dim=(-3, -1), correction=0, keepdim=True)
    inverse = (variance + EPSILON).rsqrt()
    return torch.addcmul(shift, ((groups - mean) * inverse).view(y.shape), scale), mean, inverse


def group_norm_gradients(
    of_z: Tensor, y: Tensor, mean: Tensor, inverse: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of y, γ and β from that of the normalised values (..., M, L, C)."""
    if y.dim() == 3:
        m, rows, channels = y.shape
        of_image, of_scale, of_shift = torch.ops.aten.native_group_norm_backward(
            as_image(of_z), as_image(y), mean, inverse, scale.view(-1), m, channels, rows, GROUPS, [True, True, True]
        )
        return as_rows(of_image), of_scale, of_shift
    groups = y.view(*y.shape[:-1], GROUPS, -1)
    normal = (groups - mean) * inverse
    of_normal = (of_z * scale).view(groups.shape)
    centred = of_normal - of_normal.mean(dim=(-3, -1), keepdim=True)
    slope = (of_normal * normal).mean(dim=(-3, -1), keepdim=True)
    of_y = (inverse * torch.addcmul(centred, normal, slope, value=-1)).view(y.shape)
    return of_y, (of_z * normal.view(y.shape)).sum(dim=(-3, -2)), of_z.sum(dim=(-3, -2))


def mish_factor(z: Tensor, derivative: bool) -> tuple[Tensor, Tensor | None]:
    """tanh(softplus(z)), by which Mish multiplies z, and the derivative of Mish on request.

    With s = σ(z) and p = s (2 − s): tanh(softplus(z)) = p / (2 − p) =: w, and Mish' = w + z s (1 − w²). One exponential
    in place of torch's three transcendental functions, and it cannot overflow.
    """
    s = z.sigmoid()
    p = (2.0 - s).mul_(s)
    w = p.div_(2.0 - p)
    if not derivative:
        return w, None
    u = s.mul_(z)
    return w, torch.addcmul(u, u, w * w, value=-1.0).add_(w)


class _Kept(NamedTuple):
    """What the backward pass needs of the forward pass: prepared weight, convolved rows, their moments, Mish'."""

    prepared: Tensor
    y: Tensor
    mean: Tensor
    inverse: Tensor
    slope: Tensor | None


def _forward(
    how: tuple[Geometry, Form], derivative: bool, x: Tensor, prepared: Tensor, bias: Tensor, scale: Tensor,
    shift: Tensor, added: Tensor | None, out: Tensor,
) -> _Kept:  # fmt: skip
    """Writes added + Mish(group norm(convolution(x))) to `out`."""
    y = convolve(x, prepared, bias, *how)
    z, mean, inverse = group_norm(y, scale, shift)
    w, slope = mish_factor(z, derivative)
    if added is None:
        torch.mul(z, w, out=out)
    else:
        torch.addcmul(added, z, w, out=out)
    return _Kept(prepared, y, mean, inverse, slope)


class _Block(torch.autograd.Function):
    """`added` + Mish(group norm(convolution(x)))."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, added: Tensor | None,
        geometry: Geometry, form: Form,
    ) -> Tensor:  # fmt: skip
        x = x.contiguous()
        out = x.new_empty(*x.shape[:2], geometry.rows_out, weight.shape[-1])
        ctx.save_for_backward(x, scale)
        ctx.how, ctx.shapes = (geometry, form), (weight.shape, None if added is None else added.shape)
        ctx.kept = [
            _forward((geometry, form), True, one, prepare(w, form), *others)
            for one, w, *others in by_replica(x.device, x, weight, bias, scale, shift, added, out)
        ]
        return out

    @staticmethod
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        geometry, form = ctx.how
        weight_shape, added_shape = ctx.shapes
        of_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        of_weight, channels = x.new_empty(weight_shape), weight_shape[-1]
        of_bias, of_scale, of_shift = x.new_empty(3, len(x), channels).unbind()
        replicas = by_replica(x.device, x, scale, of_out, of_x, of_weight, of_bias, of_scale, of_shift)
        for kept, (one, gamma, of_one, to_x, to_weight, *to_affine) in zip(ctx.kept, replicas, strict=True):
            prepared, y, mean, inverse, slope = kept
            of_y, *of_affine = group_norm_gradients(of_one * slope, y, mean, inverse, gamma)
            gradients(one, prepared, of_y, geometry, form, to_x, to_weight)
            for target, values in zip(to_affine, (of_y.sum(dim=(-3, -2)), *of_affine), strict=True):
                target.copy_(values)
        of_added = of_out.sum_to_size(added_shape) if ctx.needs_input_grad[5] else None
        affine = (-1, 1, 1, channels)
        return of_x, of_weight, of_bias[:, None], of_scale.view(affine), of_shift.view(affine), of_added, None, None


class ConvolutionBlock(nn.Module):
    """Convolution of kernel 5, group norm with eight groups, Mish."""

    def __init__(self, rows: int, channels: tuple[int, int], generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.convolution = StackedConvolution(Geometry.convolution(rows, 5), channels, generators)
        self.scale = nn.Parameter(torch.ones(len(generators), 1, 1, channels[1]))
        self.shift = nn.Parameter(torch.zeros(len(generators), 1, 1, channels[1]))

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Rows (R, M, L, C_in) -> added + Mish(GN(conv(x))) (R, M, L, C_out); `added` may be broadcast over L."""
        conv, geometry = self.convolution, self.convolution.geometry
        form = conv.form(training=torch.is_grad_enabled())
        if torch.is_grad_enabled():
            y: Tensor = _Block.apply(  # type: ignore[no-untyped-call]  # as torch has it
                x, conv.weight, conv.bias, self.scale, self.shift, added, geometry, form
            )
            return y
        out = x.new_empty(*x.shape[:2], geometry.rows_out, conv.weight.shape[-1])
        tensors = x.contiguous(), conv.prepared(), conv.bias, self.scale, self.shift, added, out
        for replica in by_replica(x.device, *tensors):
            _forward((geometry, form), False, *replica)
        return out
