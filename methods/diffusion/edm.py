"""The diffusion process of EDM and its second-order samplers (Karras et al. 2022), as SynthER and INS use it.

Numbers are SynthER's (diffusion/elucidated_diffusion.py), of which INS' Tab. A5 repeats those of the sampler. All of it
works on tensors with any leading axes, so that R models side by side are one call.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import require
from methods.diffusion.sampling import NoiseSource
from tasks.common.errors import UnknownNameError

Network = Callable[[Tensor, Tensor], Tensor]
"""F(c_in x (..., D), c_noise (...)) -> (..., D)."""

DenoiseAt = Callable[[Tensor, float], Tensor]
"""D(x; σ) of one noise level for all."""

SAMPLERS = ("edm_heun", "edm_heun_det")
"""Stochastic, as published, and deterministic, a named approximation."""
_OWN_STEPS = {"edm_heun": 128, "edm_heun_det": 32}  # SynthER's repository; inferred, 18 to 40 in NVlabs/edm


@dataclass(frozen=True, slots=True, kw_only=True)
class EDMProcess:
    """What is trained: D(x; σ) = c_skip x + c_out F(c_in x, c_noise), the estimate of clean data."""

    sigma_data: float = 1.0  # SynthER's repository
    p_mean: float = -1.2  # same
    p_std: float = 1.2  # same

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise, each of the shape of σ (Karras et al. 2022, Tab. 1)."""
        total = sigma.square() + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data / total.sqrt()
        c_in = total.rsqrt()
        return c_skip, c_out, c_in, sigma.log() / 4

    def denoised(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; σ).

        Args:
            network: F.
            x: (..., D) with noise.
            sigma: (...), the noise level of each row.

        Returns:
            (..., D).
        """
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        raw = network(c_in.unsqueeze(-1) * x, c_noise)
        return c_skip.unsqueeze(-1) * x + c_out.unsqueeze(-1) * raw

    def weight(self, sigma: Tensor) -> Tensor:
        """(σ² + σ_d²) / (σ σ_d)², with which F's error weighs the same at every level. INS, Eq. 2, prints none."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()

    def training_sigma(self, normal: Tensor) -> Tensor:
        """Noise levels of training from standard normal values: ln σ ~ N(P_mean, P_std²)."""
        return (self.p_mean + self.p_std * normal).exp()

    def losses(self, network: Network, clean: Tensor, normal: Tensor, noise: Tensor) -> Tensor:
        """The weighted squared error of D at random noise levels, a mean over features.

        Args:
            network: F.
            clean: (..., D).
            normal: (...) standard normal, which the noise levels come from.
            noise: (..., D) standard normal.

        Returns:
            (...).
        """
        sigma = self.training_sigma(normal)
        estimate = self.denoised(network, clean + sigma.unsqueeze(-1) * noise, sigma)
        return self.weight(sigma) * (estimate - clean).square().mean(dim=-1)


def noise_levels(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> tuple[float, ...]:
    """σ_0 > .. > σ_{n−1}, then 0: (σ_max^{1/ρ} + i/(n−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (Karras et al. 2022, Eq. 5)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (*((high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeunSampler:
    """Heun's method from σ_max to 0, with some noise put back before each step (Karras et al. 2022, Alg. 2).

    Attributes:
        name: one of SAMPLERS.
        sigmas: n + 1 noise levels, the last one 0.
        gammas: n, by what share each level is raised first; 0: no noise is added there.
        s_noise: scale of the added noise.
    """

    name: str
    sigmas: tuple[float, ...]
    gammas: tuple[float, ...]
    s_noise: float = 1.003  # SynthER's repository; INS, Tab. A5

    @property
    def evaluations(self) -> int:
        """Calls of D: two a step, one in the last."""
        return 2 * len(self.gammas) - 1

    def step(self, index: int, x: Tensor, denoise: DenoiseAt, fresh: Tensor | None) -> Tensor:
        """From σ_index to the next level.

        Args:
            index: 0..n − 1.
            x: (...) at σ_index.
            denoise: D.
            fresh: (...) standard normal, where γ > 0.
        """
        sigma, following, gamma = self.sigmas[index], self.sigmas[index + 1], self.gammas[index]
        raised = sigma * (1 + gamma)
        if gamma > 0 and fresh is not None:
            x = x.add(fresh, alpha=math.sqrt(raised**2 - sigma**2) * self.s_noise)
        slope = (x - denoise(x, raised)).div_(raised)
        moved = x.add(slope, alpha=following - raised)
        if following == 0:
            return moved
        end_slope = (moved - denoise(moved, following)).div_(following)
        return x.add(slope.add_(end_slope), alpha=(following - raised) / 2)

    @torch.no_grad()
    def sample(
        self,
        denoise: DenoiseAt,
        shape: tuple[int, ...],
        noise: NoiseSource,
        after_step: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        """Data from noise alone.

        Args:
            denoise: D.
            shape: of the result.
            noise: standard normal values; the first draw is x at σ_max.
            after_step: called with the steps done, for progress.

        Returns:
            (`shape`), not clamped: only min-max normalisers have bounds (SynthER's repository).
        """
        x = noise(shape).mul_(self.sigmas[0])
        for index, gamma in enumerate(self.gammas):
            x = self.step(index, x, denoise, noise(shape) if gamma > 0 else None)
            after_step(index + 1)
        return x


def make_edm_sampler(
    name: str,
    steps: int | None = None,
    *,
    churn: float = 80.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
) -> HeunSampler:
    """`edm_heun`, with S_churn = 80 between the levels 0.05 and 50 (INS, Tab. A5), or `edm_heun_det`, without noise.

    Args:
        name: one of SAMPLERS.
        steps: n, 2 or more; None: 128 (INS, Tab. A5), deterministic 32 (inferred).
        churn: S_churn, of `edm_heun`.
        s_min: the lowest level that it raises.
        s_max: the highest one.

    Raises:
        UnknownNameError: for another name.
        UsageError: for fewer than two steps.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("EDM sampler", name, SAMPLERS)
    n = _OWN_STEPS[name] if steps is None else steps
    require(n >= 2, "edm", f"sampling_steps={n}", "2 or more: the first is at the largest noise level, the last at 0")
    sigmas = noise_levels(n)
    most = min(churn / n, math.sqrt(2) - 1) if name == "edm_heun" else 0.0
    gammas = tuple(most if s_min <= sigma <= s_max else 0.0 for sigma, _ in itertools.pairwise(sigmas))
    return HeunSampler(name=name, sigmas=sigmas, gammas=gammas)
