"""From noise to data: ancestral DDPM, DDIM and DPM-Solver++(2M), behind one interface.

All predict x̂_0 = clip((x − √(1 − ᾱ) ε̂) / √ᾱ, −1, 1), or clip what a network of x_0 itself gave, and combine it with
what they have. Coefficients are Python floats,
computed once in float64, so that a step costs a handful of elementwise operations and no look-up on the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from methods.base import DiffusionBudget, EpisodeBudget, require
from methods.diffusion.schedule import Schedule
from tasks.common.errors import UnknownNameError

Memory = Tensor | None


class Sampler(ABC):
    """A path from pure noise to data in n steps.

    Step `index` (0..n − 1) takes x at the noise level of `timesteps[index]` and returns it at that of the next one; the
    last returns clean data.

    Attributes:
        name: how `make_sampler` calls it.
        schedule: of the process it inverts.
        timesteps: the k of every step, descending from K − 1.
    """

    name: ClassVar[str]

    def __init__(self, schedule: Schedule, steps: int | None = None) -> None:
        """Spaces the steps evenly, the noisiest first; None: all K.

        Raises:
            UsageError: unless 1 ≤ steps ≤ K.
        """
        total = schedule.steps
        n = total if steps is None else steps
        require(1 <= n <= total, f"Sampler {self.name}", f"{n} steps", f"1 to {total} (the diffusion steps)")
        self.schedule = schedule
        # "Trailing" spacing (Lin et al. 2024, Table 2): "leading" would start well below K − 1 with few steps.
        self.timesteps: tuple[int, ...] = tuple(round(total * (n - i) / n) - 1 for i in range(n))
        self._levels = [schedule.exact_alpha_bars[k] for k in self.timesteps] + [1.0]

    def __len__(self) -> int:
        """How many times the network is called."""
        return len(self.timesteps)

    def alpha_bar_before(self, index: int) -> float:
        """ᾱ of what step `index` takes."""
        return self._levels[index]

    def alpha_bar_after(self, index: int) -> float:
        """ᾱ of what step `index` returns; 1.0 for the last."""
        return self._levels[index + 1]

    def begin(self) -> Memory:
        """What the first step remembers: nothing. Also to be used after a jump back to more noise."""
        return None

    def needs_noise(self, index: int) -> bool:
        """Whether step `index` adds noise."""
        return False

    def step(
        self, index: int, x: Tensor, eps_hat: Tensor, noise: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """One step towards the data.

        Args:
            index: 0..n − 1.
            x: (...) at the noise level of `timesteps[index]`.
            eps_hat: (...) the noise that the network sees in it.
            noise: (...) standard normal where `needs_noise(index)`, else ignored.
            memory: what the last step returned, or `begin()`.

        Returns:
            A new tensor (...) at the next noise level, and what the next step needs to remember.
        """
        return self._move(index, x, self._clean(index, x, eps_hat), noise, memory)

    def step_to_data(
        self, index: int, x: Tensor, x_0_hat: Tensor, noise: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """`step` for a network that predicts the data: x_0_hat (...) in place of the noise."""
        return self._move(index, x, x_0_hat.clamp(-1, 1), noise, memory)

    @abstractmethod
    def _move(
        self, index: int, x: Tensor, clean: Tensor, noise: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """The step, given clean (...) = x̂_0, clipped, a tensor that may be overwritten."""

    def _clean(self, index: int, x: Tensor, eps_hat: Tensor) -> Tensor:
        """x̂_0 = clip((x − √(1 − ᾱ) ε̂) / √ᾱ, −1, 1), a new tensor (...)."""
        level = self._levels[index]
        return torch.sub(x, eps_hat, alpha=math.sqrt(1 - level)).mul_(1 / math.sqrt(level)).clamp_(-1, 1)


class DDPM(Sampler):
    """Ancestral sampling with the posterior's variance (Ho et al. 2020, Eq. 7); no noise in the last step.

    With β = 1 − ᾱ/ᾱ', where ' marks the next level:
    mean = √ᾱ' β / (1 − ᾱ) x̂_0 + √(1 − β) (1 − ᾱ') / (1 − ᾱ) x,  variance = (1 − ᾱ') / (1 − ᾱ) β.
    With all K steps these are the paper's β_k; with fewer, those of the coarser chain.
    """

    name = "ddpm"

    def __init__(self, schedule: Schedule, steps: int | None = None) -> None:
        super().__init__(schedule, steps)
        self._coefficients = [self._posterior(i) for i in range(len(self))]

    def _posterior(self, index: int) -> tuple[float, float, float]:
        """Factors of x̂_0, of x and of the noise."""
        level, after = self._levels[index], self._levels[index + 1]
        beta = 1 - level / after
        of_clean = math.sqrt(after) * beta / (1 - level)
        of_x = math.sqrt(1 - beta) * (1 - after) / (1 - level)
        return of_clean, of_x, math.sqrt((1 - after) / (1 - level) * beta)

    def needs_noise(self, index: int) -> bool:
        """In all steps but the last."""
        return index < len(self) - 1

    def _move(
        self, index: int, x: Tensor, clean: Tensor, noise: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Draws from the posterior."""
        of_clean, of_x, deviation = self._coefficients[index]
        if self.needs_noise(index):
            assert noise is not None
            clean.mul_(of_clean).add_(x, alpha=of_x).add_(noise, alpha=deviation)
        return clean, None


class DDIM(Sampler):
    """x' = √ᾱ' x̂_0 + √(1 − ᾱ') ε, ε = (x − √ᾱ x̂_0) / √(1 − ᾱ) (Song et al. 2021, Eq. 12, η = 0).

    ε is recomputed from the clipped x̂_0, so that both belong together.
    """

    name = "ddim"

    def _move(
        self, index: int, x: Tensor, clean: Tensor, noise: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Deterministic."""
        level, after = self._levels[index], self._levels[index + 1]
        ratio = math.sqrt((1 - after) / (1 - level))
        return clean.mul_(math.sqrt(after) - math.sqrt(level) * ratio).add_(x, alpha=ratio), None


class DPMSolver(Sampler):
    """DPM-Solver++(2M) on x̂_0 (Lu et al. 2022, Algorithm 2): second order from two predictions.

    With α = √ᾱ, σ = √(1 − ᾱ), λ = ln(α/σ), h = λ' − λ and r = h_previous / h:
    x' = (σ'/σ) x − α' (e^{−h} − 1) ((1 + 1/(2r)) x̂_0 − 1/(2r) x̂_0,previous).
    The first step and one after a jump have no previous x̂_0 and are of first order, and so is the last: there λ' is
    infinite, and x' = x̂_0.
    """

    name = "dpmpp_2m"

    def __init__(self, schedule: Schedule, steps: int | None = None) -> None:
        super().__init__(schedule, steps)
        alphas = [math.sqrt(level) for level in self._levels]
        sigmas = [math.sqrt(1 - level) for level in self._levels]
        lambdas = [math.log(a / s) for a, s in zip(alphas[:-1], sigmas[:-1], strict=True)] + [math.inf]
        self._coefficients: list[tuple[float, float, float]] = []  # of x, of the prediction, 1/(2r)
        for i in range(len(self)):
            h = lambdas[i + 1] - lambdas[i]
            blend = 0.5 * h / (lambdas[i] - lambdas[i - 1]) if 0 < i < len(self) - 1 else 0.0
            self._coefficients.append((sigmas[i + 1] / sigmas[i], -alphas[i + 1] * math.expm1(-h), blend))

    def _move(
        self, index: int, x: Tensor, clean: Tensor, noise: Tensor | None, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Deterministic; remembers x̂_0."""
        of_x, of_clean, blend = self._coefficients[index]
        estimate = clean if memory is None or blend == 0 else torch.lerp(clean, memory, -blend)
        return torch.mul(estimate, of_clean).add_(x, alpha=of_x), clean


_SAMPLERS: dict[str, type[Sampler]] = {sampler.name: sampler for sampler in (DDPM, DDIM, DPMSolver)}


def make_sampler(name: str, schedule: Schedule, steps: int | None = None) -> Sampler:
    """A sampler by name: `ddpm`, `ddim` or `dpmpp_2m`; steps None: as many as in training.

    Raises:
        UnknownNameError: for another name.
        UsageError: unless 1 ≤ steps ≤ K.
    """
    if name not in _SAMPLERS:
        raise UnknownNameError("sampler", name, _SAMPLERS)
    return _SAMPLERS[name](schedule, steps)


def sampler_within(
    budget: DiffusionBudget | EpisodeBudget, schedule: Schedule, name: str, steps: int | None
) -> Sampler:
    """The sampler that a method asks for, with what a protocol fixes in its place; see `make_sampler`."""
    return make_sampler(budget.sampler or name, schedule, budget.sampling_steps or steps)
