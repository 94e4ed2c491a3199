"""The forward process x_k = √ᾱ_k x_0 + √(1 − ᾱ_k) ε of DDPM with the cosine schedule."""

from __future__ import annotations

import copy
import math
from typing import Self

import numpy as np
import torch
from torch import Tensor

from methods.base import require

_OFFSET = 0.008  # s of Nichol & Dhariwal 2021, Eq. 17
_LARGEST_BETA = 0.999  # same place


class CosineSchedule:
    """β_k = min(1 − f((k + 1)/K) / f(k/K), 0.999), f(u) = cos²(π/2 · (u + s)/(1 + s)) (Nichol & Dhariwal 2021, Eq. 17).

    The schedule of MADiff. k counts from 0; k = K − 1 is the noisiest.

    Attributes:
        steps: K.
        betas, alphas, alpha_bars: (K,) float32 on the schedule's device, α = 1 − β and ᾱ_k = Π_{i ≤ k} α_i.
        exact_alpha_bars: the ᾱ as K Python floats, for coefficients that a sampler computes once.
    """

    def __init__(self, steps: int) -> None:
        """Computes in float64 and keeps float32.

        Raises:
            UsageError: for fewer than one step.
        """
        require(steps >= 1, "CosineSchedule", f"{steps} diffusion steps", "at least 1")
        u = np.arange(steps + 1) / steps
        f = np.cos(0.5 * math.pi * (u + _OFFSET) / (1 + _OFFSET)) ** 2  # (K + 1,)
        betas = np.minimum(1 - f[1:] / f[:-1], _LARGEST_BETA)
        alpha_bars = np.cumprod(1 - betas)
        self.steps = steps
        self.exact_alpha_bars: tuple[float, ...] = tuple(alpha_bars.tolist())
        self.betas = torch.from_numpy(betas.astype(np.float32))
        self.alphas = torch.from_numpy((1 - betas).astype(np.float32))
        self.alpha_bars = torch.from_numpy(alpha_bars.astype(np.float32))
        # Roots of their own: 1 − ᾱ_0 in float32 would lose four digits.
        self._signal = torch.from_numpy(np.sqrt(alpha_bars).astype(np.float32))
        self._noise = torch.from_numpy(np.sqrt(1 - alpha_bars).astype(np.float32))

    def to(self, device: str | torch.device) -> Self:
        """The same schedule with its tensors on a device."""
        moved = copy.copy(self)
        for name in ("betas", "alphas", "alpha_bars", "_signal", "_noise"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def diffuse(self, x_0: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        """√ᾱ_k x_0 + √(1 − ᾱ_k) ε (Ho et al. 2020, Eq. 4).

        Args:
            x_0: (..., *) clean values.
            k: (...) int64 in 0..K − 1, on the schedule's device; its axes are the leading ones of `x_0`.
            noise: ε, standard normal, of the shape of `x_0`.
        """
        shape = k.shape + (1,) * (x_0.ndim - k.ndim)
        return torch.addcmul(self._signal[k].view(shape) * x_0, self._noise[k].view(shape), noise)
