"""Training of R denoisers in one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.data.window_tensors import DeviceWindows
from methods.data.windows import TrainingEntries
from methods.diffusion.denoiser import Denoise, Denoiser, label_inputs
from methods.diffusion.draws import Chunk, Draws, kept_conditions
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from methods.diffusion.training import StackedTraining
from methods.journal import Journal

_JUDGED_WINDOWS = 256  # held-out windows of the judging loss, at most
_JUDGED_STEPS = 10  # values of k at which each of them is judged


class DenoiserTraining(StackedTraining[Chunk]):
    """Adam on what the network estimates, ε or v, and an exponential average of the weights.

    Row 0 of every agent stays clean, as it will be when sampling, and is no part of the loss (MADiff, Sec. 3.2).

    Args:
        settings: sizes, optimiser, dropout.
        denoiser: R replicas on the device.
        windows: the data.
        entries: R, what each replica draws from.
        labels: (R, W, N) on the device, iff `settings.labels`.
        run: seeds.
        journal: progress and checkpoints.
    """

    def __init__(
        self,
        settings: SegmentSettings,
        denoiser: Denoiser,
        windows: DeviceWindows,
        entries: Sequence[TrainingEntries],
        labels: Tensor | None,
        run: Run,
        journal: Journal,
    ) -> None:
        generators = [run.generator("diffusion/denoiser", r) for r in range(len(run.seeds))]
        super().__init__(settings, denoiser, generators, run.device, journal)
        self._settings, self._denoiser, self._windows, self._labels = settings, denoiser, windows, labels
        self._schedule = CosineSchedule(settings.diffusion_steps).to(run.device)
        self._draws = Draws(settings, windows, entries, generators)
        self.chunk = self._draws.chunk
        self._rotated = any(entry.rotations.any() for entry in entries)

    def draw(self) -> Chunk:
        """Windows, noise, and which conditions are dropped."""
        return self._draws.draw()

    def losses(self, chunk: Chunk, index: int) -> Tensor:
        """(R,) means over the batch."""
        settings, windows = self._settings, chunk.windows[:, index]
        turns = chunk.turns[:, index] if self._rotated else None
        clean = self._windows.observations(windows, turns)  # (R, B, H, N, D')
        keep, given = kept_conditions(settings, chunk.uniforms[:, index], self._windows.n_agents)
        labels = None
        if self._labels is not None:
            replica = torch.arange(len(windows), device=windows.device)[:, None]
            labels = label_inputs(self._labels[replica, windows], given)
        return denoising_losses(
            self._denoiser,
            self._schedule,
            clean,
            chunk.k[:, index],
            chunk.noise[:, index],
            self._windows.conditions(windows, turns),
            keep,
            labels,
        ).mean(dim=1)


def denoising_losses(
    denoiser: Denoiser,
    schedule: CosineSchedule,
    clean: Tensor,
    k: Tensor,
    noise: Tensor,
    returns: Tensor,
    keep: Tensor,
    labels: Tensor | None,
) -> Tensor:
    """(R, B) mean squared error of what the network estimates, over rows 1.. of windows (R, B, H, N, D')."""
    estimate = denoiser(_noisy(schedule, clean, k, noise), k, returns, keep, labels)
    error = estimate - denoiser.target(clean, k, noise)
    losses: Tensor = error[:, :, 1:].square().flatten(2).mean(dim=2)
    return losses


def _noisy(schedule: CosineSchedule, clean: Tensor, k: Tensor, noise: Tensor) -> Tensor:
    """Windows (R, B, H, N, D') with noise on all rows but the first, which is always known."""
    noisy = schedule.diffuse(clean, k, noise)
    noisy[:, :, 0] = clean[:, :, 0]
    return noisy


@dataclass(frozen=True, slots=True)
class HeldOutLosses:
    """Mean squared errors over noise levels: of ε̂, and of x̂_0 as samplers use it, clipped to [−1, 1].

    An ε̂ that is wrong by little leaves x̂_0 unknown where there is much noise: the second tells more about samples.
    """

    noise: float
    data: float


@torch.no_grad()
def held_out_losses(
    settings: SegmentSettings,
    denoise: Denoise,
    windows: DeviceWindows,
    held_out: NDArray[np.int64],
    labels: Tensor | None,
    generator: np.random.Generator,
) -> HeldOutLosses:
    """Denoising errors of one replica on windows that it was not trained on, with every condition given.

    The windows, the noise and the steps k = (2j + 1) K / 2J are fixed by the generator, so that two fits of one seed
    compare.

    Args:
        settings: K.
        denoise: ε̂ of one replica.
        windows: the data.
        held_out: windows to draw from.
        labels: (W, N), iff `settings.labels`.
        generator: apart from those of training.
    """
    device = windows.device
    schedule = CosineSchedule(settings.diffusion_steps).to(device)
    chosen = torch.from_numpy(generator.permutation(held_out)[:_JUDGED_WINDOWS]).to(device)[None]
    clean, returns = windows.observations(chosen), windows.conditions(chosen)
    keep = torch.ones(returns.shape, dtype=torch.bool, device=device)
    seen = None if labels is None else label_inputs(labels[chosen], keep)
    of_noise = of_data = 0.0
    for j in range(_JUDGED_STEPS):
        step = (2 * j + 1) * settings.diffusion_steps // (2 * _JUDGED_STEPS)
        k = torch.full(chosen.shape, step, device=device)
        noise = torch.from_numpy(generator.standard_normal(clean.shape, dtype=np.float32)).to(device)
        noisy = _noisy(schedule, clean, k, noise)
        eps = denoise(noisy, k, returns, keep, seen)
        level = schedule.exact_alpha_bars[step]
        guess = ((noisy - (1 - level) ** 0.5 * eps) / level**0.5).clamp(-1, 1)
        of_noise += float((eps - noise)[:, :, 1:].square().mean())
        of_data += float((guess - clean)[:, :, 1:].square().mean())
    return HeldOutLosses(of_noise / _JUDGED_STEPS, of_data / _JUDGED_STEPS)
