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
    Geometry,
    StackedConvolution,
    as_images,
    as_rows,
    convolve,
    form_of,
    gradients,
    prepare,
)

GROUPS, EPSILON = 8, 1e-5


class Moments(NamedTuple):
    """Mean and 1/σ of each group, in the shapes of the kernel that took them: one pair a replica, or one for all."""

    mean: tuple[Tensor, ...]
    inverse: tuple[Tensor, ...]


def group_norm(y: Tensor, scale: Tensor, shift: Tensor, fused: bool) -> tuple[Tensor, Moments]:
    """γ (y − mean) / σ + β over (L, C / 8): y (R, M, L, C), γ and β (R, 1, 1, C).

    `fused` takes torch's channels-last kernel, which only a CPU has; the formula in plain operations is the same.
    """
    if not fused:
        groups = y.view(*y.shape[:3], GROUPS, -1)  # (R, M, L, 8, C / 8)
        variance, mean = torch.var_mean(groups, dim=(2, 4), correction=0, keepdim=True)
        inverse = (variance + EPSILON).rsqrt()
        return torch.addcmul(shift, ((groups - mean) * inverse).view(y.shape), scale), Moments((mean,), (inverse,))
    replicas = zip(as_images(y), scale.flatten(1).unbind(), shift.flatten(1).unbind(), strict=True)
    sizes = _sizes(y)
    taken = [torch.native_group_norm(image, gamma, beta, *sizes, GROUPS, EPSILON) for image, gamma, beta in replicas]
    normal, mean_of, inverse_of = zip(*taken, strict=True)
    return as_rows(normal), Moments(mean_of, inverse_of)


def group_norm_gradients(
    of_z: Tensor, y: Tensor, moments: Moments, scale: Tensor, fused: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of y, γ and β from that of the normalised values (R, M, L, C)."""
    if not fused:
        groups = y.view(*y.shape[:3], GROUPS, -1)
        mean, inverse = moments.mean[0], moments.inverse[0]
        normal = ((groups - mean) * inverse).view(y.shape)
        of_normal = (of_z * scale).view(groups.shape)
        centred = of_normal - of_normal.mean(dim=(2, 4), keepdim=True)
        slope = (of_normal * normal.view(groups.shape)).mean(dim=(2, 4), keepdim=True)
        of_y = (inverse * torch.addcmul(centred, normal.view(groups.shape), slope, value=-1)).view(y.shape)
        return of_y, (of_z * normal).sum(dim=(1, 2), keepdim=True), of_z.sum(dim=(1, 2), keepdim=True)
    sizes, backward = _sizes(y), torch.ops.aten.native_group_norm_backward
    replicas = zip(as_images(of_z), as_images(y), *moments, scale.flatten(1).unbind(), strict=True)
    taken = [backward(*tensors, *sizes, GROUPS, [True, True, True]) for tensors in replicas]
    of_images, of_scale, of_shift = zip(*taken, strict=True)
    return as_rows(of_images), torch.stack(of_scale).view(scale.shape), torch.stack(of_shift).view(scale.shape)


def _sizes(rows: Tensor) -> tuple[int, int, int]:
    _, m, length, channels = rows.shape
    return m, channels, length


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


class _Block(torch.autograd.Function):
    """`added` + Mish(group norm(convolution(x)))."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, added: Tensor | None,
        geometry: Geometry, form: Form, fused: bool,
    ) -> Tensor:  # fmt: skip
        x, prepared = x.contiguous(), prepare(weight, form)
        y = convolve(x, prepared, bias, geometry, form)
        z, moments = group_norm(y, scale, shift, fused)
        w, slope = mish_factor(z, derivative=True)
        ctx.save_for_backward(x, prepared, scale, y, slope)
        ctx.moments, ctx.how, ctx.added = moments, (geometry, form, fused), None if added is None else added.shape
        return z.mul_(w) if added is None else torch.addcmul(added, z, w)

    @staticmethod
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        x, prepared, scale, y, slope = ctx.saved_tensors
        geometry, form, fused = ctx.how
        of_z = of_out * slope
        of_y, of_scale, of_shift = group_norm_gradients(of_z, y, ctx.moments, scale, fused)
        of_x, of_weight, of_bias = gradients(x, prepared, of_y, geometry, form, ctx.needs_input_grad[0])
        of_added = of_out.sum_to_size(ctx.added) if ctx.needs_input_grad[5] else None
        return of_x, of_weight, of_bias, of_scale, of_shift, of_added, None, None, None


class ConvolutionBlock(nn.Module):
    """Convolution of kernel 5, group norm with eight groups, Mish."""

    def __init__(self, rows: int, channels: tuple[int, int], generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.convolution = StackedConvolution(Geometry.convolution(rows, 5), channels, generators)
        self.scale = nn.Parameter(torch.ones(len(generators), 1, 1, channels[1]))
        self.shift = nn.Parameter(torch.zeros(len(generators), 1, 1, channels[1]))

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Rows (R, M, L, C_in) -> added + Mish(GN(conv(x))) (R, M, L, C_out); `added` may be broadcast over L."""
        conv = self.convolution
        if not torch.is_grad_enabled():
            z, _ = group_norm(conv.inference(x), self.scale, self.shift, x.device.type == "cpu")
            w, _ = mish_factor(z, derivative=False)
            return z.mul_(w) if added is None else torch.addcmul(added, z, w)
        how = conv.geometry, form_of(conv.geometry, x.device, training=True), x.device.type == "cpu"
        y: Tensor = _Block.apply(  # type: ignore[no-untyped-call]  # as torch has it
            x, conv.weight, conv.bias, self.scale, self.shift, added, *how
        )
        return y
