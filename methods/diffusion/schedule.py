"""The forward process x_k = √ᾱ_k x_0 + √(1 − ᾱ_k) ε of DDPM, with the cosine and the linear schedule."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import require
from tasks.common.errors import UnknownNameError

_OFFSET = 0.008  # s of Nichol & Dhariwal 2021, Eq. 17
_LARGEST_BETA = 0.999  # same place
_FIRST_BETA, _LAST_BETA, _LINEAR_STEPS = 1e-4, 0.02, 1_000  # Ho et al. 2020, Sec. 4


class Schedule(ABC):
    """K noise levels given by their β. k counts from 0; k = K − 1 is the noisiest.

    Attributes:
        name: how `make_schedule` calls it.
        steps: K.
        betas, alphas, alpha_bars: (K,) float32 on the schedule's device, α = 1 − β and ᾱ_k = Π_{i ≤ k} α_i.
        exact_alpha_bars: the ᾱ as K Python floats, for coefficients that a sampler computes once.
    """

    name: ClassVar[str]

    def __init__(self, steps: int) -> None:
        """Computes in float64 and keeps float32.

        Raises:
            UsageError: for fewer than one step.
        """
        require(steps >= 1, type(self).__name__, f"{steps} diffusion steps", "at least 1")
        betas = self._betas(steps)
        alpha_bars = np.cumprod(1 - betas)
        self.steps = steps
        self.exact_alpha_bars: tuple[float, ...] = tuple(alpha_bars.tolist())
        self.betas = torch.from_numpy(betas.astype(np.float32))
        self.alphas = torch.from_numpy((1 - betas).astype(np.float32))
        self.alpha_bars = torch.from_numpy(alpha_bars.astype(np.float32))
        # Roots of their own: 1 − ᾱ_0 in float32 would lose four digits.
        self._signal = torch.from_numpy(np.sqrt(alpha_bars).astype(np.float32))
        self._noise = torch.from_numpy(np.sqrt(1 - alpha_bars).astype(np.float32))

    @staticmethod
    @abstractmethod
    def _betas(steps: int) -> NDArray[np.float64]:
        """(K,) the β of K steps."""

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


class CosineSchedule(Schedule):
    """β_k = min(1 − f((k + 1)/K) / f(k/K), 0.999), f(u) = cos²(π/2 · (u + s)/(1 + s)) (Nichol & Dhariwal 2021, Eq. 17).

    The schedule of MADiff.
    """

    name = "cosine"

    @staticmethod
    def _betas(steps: int) -> NDArray[np.float64]:
        u = np.arange(steps + 1) / steps
        f = np.cos(0.5 * math.pi * (u + _OFFSET) / (1 + _OFFSET)) ** 2  # (K + 1,)
        betas: NDArray[np.float64] = np.minimum(1 - f[1:] / f[:-1], _LARGEST_BETA)
        return betas


class LinearSchedule(Schedule):
    """β from 1e-4 to 0.02 in equal steps (Ho et al. 2020, Sec. 4, with K = 1,000).

    For another K all β are multiplied by 1,000 / K, 0.999 at most, so that the last level is about as noisy (inferred).
    """

    name = "linear"

    @staticmethod
    def _betas(steps: int) -> NDArray[np.float64]:
        betas = np.linspace(_FIRST_BETA, _LAST_BETA, steps, dtype=np.float64) * (_LINEAR_STEPS / steps)
        return np.minimum(betas, _LARGEST_BETA)


_SCHEDULES: dict[str, type[Schedule]] = {schedule.name: schedule for schedule in (CosineSchedule, LinearSchedule)}


def make_schedule(name: str, steps: int) -> Schedule:
    """A schedule by name: `cosine` or `linear`.

    Raises:
        UnknownNameError: for another name.
        UsageError: for fewer than one step.
    """
    if name not in _SCHEDULES:
        raise UnknownNameError("schedule", name, _SCHEDULES)
    return _SCHEDULES[name](steps)
