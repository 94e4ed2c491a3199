"""Entries of a window that are known beforehand, and two ways to hold a sampler to them."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from methods.base import require
from methods.diffusion.samplers import Sampler

if TYPE_CHECKING:
    from methods.diffusion.sampling import NoiseSource


@dataclass(frozen=True)
class Known:
    """What is known of windows: whole rows of agents.

    Attributes:
        values: (B, H, N, D) normalised; only entries under the mask are read.
        mask: (B, H, N) bool, True where the row is known.

    Raises:
        UsageError: for shapes that do not fit.
    """

    values: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        require(
            self.mask.dtype == torch.bool and self.values.shape[:-1] == self.mask.shape,
            "Known",
            f"values of shape {tuple(self.values.shape)} and a {self.mask.dtype} mask of {tuple(self.mask.shape)}",
            "values (B, H, N, D) and a bool mask (B, H, N)",
        )

    @classmethod
    def first_row(cls, rows: Tensor, horizon: int) -> Self:
        """Windows of which the first row of every agent is known: (B, N, D) -> values (B, horizon, N, D)."""
        values = rows.unsqueeze(1).expand(-1, horizon, -1, -1)
        mask = torch.zeros(values.shape[:-1], dtype=torch.bool, device=rows.device)
        mask[:, 0] = True
        return cls(values, mask)

    def any(self) -> bool:
        """Whether anything is known at all; on an accelerator this waits for the device."""
        return bool(self.mask.any())

    def paste(self, x: Tensor) -> Tensor:
        """(B, H, N, D) with the known entries overwritten."""
        return torch.where(self.mask.unsqueeze(-1), self.values, x)

    def paste_noised(self, x: Tensor, alpha_bar: float, noise: NoiseSource) -> Tensor:
        """(B, H, N, D) with √ᾱ values + √(1 − ᾱ) z on the known entries."""
        z = noise(tuple(x.shape))
        noised = z.mul_(math.sqrt(1 - alpha_bar)).add_(self.values, alpha=math.sqrt(alpha_bar))
        return torch.where(self.mask.unsqueeze(-1), noised, x)


class Conditioning(ABC):
    """How a sampler is held to known entries. Whatever it does, they are exact in the result."""

    def path(self, steps: int) -> list[int]:
        """The states that sampling visits, from 0 (pure noise) to `steps` (data).

        State i is what step i takes. From one entry to the next it is one step forward or a jump back.
        """
        return list(range(steps + 1))

    def calls(self, steps: int) -> int:
        """How many times the network is called along `path(steps)`."""
        return sum(after > before for before, after in itertools.pairwise(self.path(steps)))

    @abstractmethod
    def before_call(self, x: Tensor, known: Known) -> Tensor:
        """What the network sees in place of x."""

    @abstractmethod
    def after_move(self, x: Tensor, known: Known, sampler: Sampler, state: int, noise: NoiseSource) -> Tensor:
        """What becomes of x (B, H, N, D) on arrival at `state`: at the start, after a step or after a jump."""


@dataclass(frozen=True)
class ClampConditioning(Conditioning):
    """Clean known values overwrite x before every call of the network and after the last step, as in MADiff."""

    def before_call(self, x: Tensor, known: Known) -> Tensor:
        """Known entries clean, the others as they are."""
        return known.paste(x)

    def after_move(self, x: Tensor, known: Known, sampler: Sampler, state: int, noise: NoiseSource) -> Tensor:
        """Unchanged."""
        return x


@dataclass(frozen=True, kw_only=True)
class RepaintConditioning(Conditioning):
    """Known values are pasted with noise after every step, and steps may be repeated (Lugmayr et al. 2022).

    Attributes:
        level: noise of the pasted values. `repaint`: that of x itself (as in RePaint's code); `paper`: that of the
            diffusion step above (MASTARS, Eq. 5c), whatever the steps of the sampler: 10 of its own would be 20 of
            K = 200 at once, where the paper's slip is one.
        clean_start: whether the network sees known first rows without noise, as it was trained (MASTARS' repository,
            `apply_conditioning`); the other known rows come noised.
        jump_length: j, how many steps a repetition goes back.
        resamples: U, how often every stretch of j steps is walked; 1: no repetition.

    Raises:
        UsageError: for another level, or numbers below 1.
    """

    level: str = "paper"
    clean_start: bool = True
    jump_length: int = 10
    resamples: int = 1

    def __post_init__(self) -> None:
        owner = "RepaintConditioning"
        require(self.level in ("paper", "repaint"), owner, f"level {self.level!r}", "'paper' or 'repaint'")
        require(self.jump_length >= 1, owner, f"jump_length {self.jump_length}", "at least 1")
        require(self.resamples >= 1, owner, f"resamples {self.resamples}", "at least 1")

    def path(self, steps: int) -> list[int]:
        """Jumps back by j from every j-th state counted from the last call, U − 1 times each (RePaint, Sec. 4.2)."""
        to_go = range(0, steps - self.jump_length, self.jump_length)
        jumps = {steps - 1 - t: self.resamples - 1 for t in to_go}
        states = [0]
        while states[-1] < steps:
            state = states[-1]
            if jumps.get(state, 0) > 0:
                jumps[state] -= 1
                states.append(state - self.jump_length)
                state -= self.jump_length
            states.append(state + 1)
        return states

    def before_call(self, x: Tensor, known: Known) -> Tensor:
        """As it is, but for known first rows."""
        if not self.clean_start:
            return x
        first = torch.where(known.mask[:, 0, :, None], known.values[:, 0], x[:, 0])
        return torch.cat([first[:, None], x[:, 1:]], dim=1)

    def after_move(self, x: Tensor, known: Known, sampler: Sampler, state: int, noise: NoiseSource) -> Tensor:
        """Known entries noised to the level that `level` names; clean data are pasted by the caller."""
        if state == len(sampler):
            return x
        schedule = sampler.schedule
        k = sampler.timesteps[state] + (self.level == "paper")
        return known.paste_noised(x, schedule.exact_alpha_bars[min(k, schedule.steps - 1)], noise)
