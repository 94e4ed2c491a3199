"""Layers of G networks side by side: weights (G, in, out), one `bmm` a layer.

G is R for networks that a team shares, and R · N where every agent has its own. Slice g is computed from slice g of the
input alone, and its initial weights are drawn from its replica's generator alone, so that R replicas together are R
replicas one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_NARROW = 16  # columns below which the plain product is slow on a CPU


def uniform_slices(
    generators: Sequence[np.random.Generator], copies: int, shape: tuple[int, ...], bound: float
) -> nn.Parameter:
    """(R · copies, *shape) values in U(−bound, bound); rows r · copies and on come from generator r.

    Drawn on the CPU whatever the device, so that a seed means the same weights everywhere.
    """
    drawn = [generator.uniform(-bound, bound, size=(copies, *shape)) for generator in generators]
    return nn.Parameter(torch.from_numpy(np.concatenate(drawn).astype(np.float32)))


class _NarrowProduct(torch.autograd.Function):
    """x W for few columns, computed as (Wᵀ xᵀ)ᵀ, and ∂W as (gᵀ x)ᵀ: the same sums, much faster on a CPU with MKL."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """(G, B, in) and (G, in, out) -> (G, B, out)."""
        ctx.save_for_backward(x, weight)
        return torch.bmm(weight.transpose(1, 2), x.transpose(1, 2)).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """Gradients of x and W from that of the product (G, B, out)."""
        x, weight = ctx.saved_tensors
        # Contiguous: torch's fused Adam reads a gradient in memory order, whatever its strides say (torch 2.13, CPU).
        of_weight = torch.bmm(gradient.transpose(1, 2), x).transpose(1, 2).contiguous()  # (G, in, out)
        of_x = torch.bmm(gradient, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        return of_x, of_weight


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """X W + b of G slices: (G, B, in), (G, in, out), (G, 1, out) -> (G, B, out)."""
    if weight.shape[-1] < _NARROW:
        y: Tensor = _NarrowProduct.apply(x, weight)  # type: ignore[no-untyped-call]  # as torch has it
        return y + bias
    return torch.baddbmm(bias, x, weight)


def perceptron(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """G perceptrons given by weights and biases in turn, ReLU between the layers: (G, B, in) -> (G, B, out)."""
    last = len(parameters) - 2
    for index in range(0, len(parameters), 2):
        x = affine(x, parameters[index], parameters[index + 1])
        if index < last:
            x = x.relu()
    return x


class StackedLinear(nn.Module):
    """G affine maps with torch.nn.Linear's initial distribution, U(±1/√in) for weights and biases."""

    def __init__(self, n_in: int, n_out: int, generators: Sequence[np.random.Generator], copies: int = 1) -> None:
        super().__init__()
        bound = n_in**-0.5  # of one slice: the fan-in of a 3-D tensor would be another number
        self.weight = uniform_slices(generators, copies, (n_in, n_out), bound)
        self.bias = uniform_slices(generators, copies, (1, n_out), bound)

    def forward(self, x: Tensor) -> Tensor:
        """(G, B, in) -> (G, B, out)."""
        return affine(x, self.weight, self.bias)


class StackedMLP(nn.Module):
    """G perceptrons with ReLU between the layers and nothing after the last."""

    def __init__(self, sizes: Sequence[int], generators: Sequence[np.random.Generator], copies: int = 1) -> None:
        super().__init__()
        pairs = itertools.pairwise(sizes)
        self.layers = nn.ModuleList(StackedLinear(n_in, n_out, generators, copies) for n_in, n_out in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(G, B, sizes[0]) -> (G, B, sizes[-1])."""
        return perceptron(list(self.parameters()), x)


class StackedGRU(nn.Module):
    """G gated recurrent units with torch.nn.GRU's equations and initial distribution, U(±1/√H).

    r = σ(W_r x + b_r + U_r h + c_r),  z = σ(W_z x + b_z + U_z h + c_z)
    n = tanh(W_n x + b_n + r (U_n h + c_n)),  h' = (1 − z) n + z h
    """

    def __init__(self, n_in: int, hidden: int, generators: Sequence[np.random.Generator], copies: int = 1) -> None:
        super().__init__()
        bound = hidden**-0.5
        self.input_weight = uniform_slices(generators, copies, (n_in, 3 * hidden), bound)
        self.input_bias = uniform_slices(generators, copies, (1, 3 * hidden), bound)
        self.hidden_weight = uniform_slices(generators, copies, (hidden, 3 * hidden), bound)
        self.hidden_bias = uniform_slices(generators, copies, (1, 3 * hidden), bound)
        self.hidden = hidden

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs over the time axis.

        Args:
            x: (G, T, B, in).
            h: (G, B, H) at the first step; None: zeros.

        Returns:
            (G, T, B, H) hidden states after every step, and the last one (G, B, H).
        """
        groups, steps, batch = x.shape[:3]
        # The inputs of all steps at once: one large product in place of T small ones.
        gates = torch.baddbmm(self.input_bias, x.flatten(1, 2), self.input_weight)  # (G, T · B, 3H)
        gates = gates.view(groups, steps, batch, 3 * self.hidden)  # (G, T, B, 3H)
        h = x.new_zeros(groups, batch, self.hidden) if h is None else h
        states = []
        for step in gates.unbind(1):
            recurrent = torch.baddbmm(self.hidden_bias, h, self.hidden_weight)  # (G, B, 3H)
            split = 2 * self.hidden
            r, z = (step[..., :split] + recurrent[..., :split]).sigmoid().chunk(2, dim=-1)  # (G, B, H) each
            n = torch.addcmul(step[..., split:], r, recurrent[..., split:]).tanh()  # (G, B, H)
            h = torch.lerp(n, h, z)
            states.append(h)
        return torch.stack(states, dim=1), h


def clip_each_replica(parameters: Sequence[Tensor], replicas: int, max_norm: float) -> None:
    """Scales the gradients of each replica so that their joint L2 norm is at most `max_norm` (in place).

    One norm over all replicas would let a steep one slow the others down, and one NaN stop them.

    Args:
        parameters: tensors (R · copies, ...) with gradients.
        replicas: R; or R · N, where every agent's networks are clipped by themselves.
        max_norm: L2 norm over all gradients of one replica.
    """
    gradients = [p.grad.view(replicas, -1) for p in parameters if p.grad is not None]  # (R, ...) each
    norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients])  # (P, R)
    scale = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)  # (R,), torch's formula
    for gradient in gradients:
        gradient.mul_(scale[:, None])
