"""Training of R denoisers in one program."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays, Run
from methods.data.window_tensors import DeviceWindows
from methods.data.windows import TrainingEntries
from methods.diffusion.denoiser import Denoise, Denoiser, label_inputs
from methods.diffusion.draws import Chunk, Draws, kept_conditions
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators

STAGE = "denoiser"
_CURVE = 50  # points of the loss curve
_JUDGED_WINDOWS = 256  # held-out windows of the judging loss, at most
_JUDGED_STEPS = 10  # values of k at which each of them is judged


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDenoiser:
    """Weights to sample with, named as in the module with a leading R; curve (points, 1 + R): updates, mean losses."""

    weights: dict[str, NDArray[np.float32]]
    curve: NDArray[np.float64]
    seconds: float

    @property
    def training_loss(self) -> NDArray[np.float64]:
        """(R,) the mean over the last point of the curve."""
        last: NDArray[np.float64] = self.curve[-1, 1:]
        return last

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        named = {f"weights/{name}": array for name, array in self.weights.items()}
        return {**named, "curve": self.curve, "seconds": np.array(self.seconds)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` returned."""
        weights = {name.removeprefix("weights/"): a for name, a in arrays.items() if name.startswith("weights/")}
        return cls(weights, arrays["curve"], float(arrays["seconds"]))


class DenoiserTraining:
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
        self._settings, self._denoiser, self._windows, self._labels = settings, denoiser, windows, labels
        self._schedule = CosineSchedule(settings.diffusion_steps).to(run.device)
        generators = [run.generator("diffusion/denoiser", r) for r in range(len(run.seeds))]
        self._draws = Draws(settings, windows, entries, generators)
        self._rotated = any(entry.rotations.any() for entry in entries)
        self._adam = StackedAdam(denoiser, settings.learning_rate)
        self._average = {name: p.detach().clone() for name, p in self._adam.named.items()}
        self._journal, self._done, self._seconds = journal, 0, 0.0
        self._curve = np.zeros((0, 1 + len(run.seeds)))
        self._losses = torch.zeros(len(run.seeds), device=run.device)
        self._since = 0

    def run(self) -> TrainedDenoiser:
        """All updates, from the checkpoint on where there is one."""
        saved = self._journal.resumed(STAGE)
        if saved is not None:
            self._load(saved)
        updates, began = self._settings.updates, time.monotonic() - self._seconds
        while self._done < updates:
            chunk = self._draws.draw()
            for i in range(min(self._draws.chunk, updates - self._done)):
                self._update(chunk, i)
            self._seconds = time.monotonic() - began
            if self._done < updates and self._journal.due():
                self._journal.save(STAGE, self._arrays())
        weights = self._average if self._settings.use_ema else self._adam.named
        return TrainedDenoiser(
            {name: tensor.detach().cpu().numpy().copy() for name, tensor in weights.items()},
            self._curve,
            self._seconds,
        )

    def _update(self, chunk: Chunk, i: int) -> None:
        settings, windows = self._settings, chunk.windows[:, i]
        turns = chunk.turns[:, i] if self._rotated else None
        clean = self._windows.observations(windows, turns)  # (R, B, H, N, D')
        keep, given = kept_conditions(settings, chunk.uniforms[:, i], self._windows.n_agents)
        labels = None
        if self._labels is not None:
            replica = torch.arange(len(windows), device=windows.device)[:, None]
            labels = label_inputs(self._labels[replica, windows], given)
        losses = denoising_losses(
            self._denoiser,
            self._schedule,
            clean,
            chunk.k[:, i],
            chunk.noise[:, i],
            self._windows.conditions(windows, turns),
            keep,
            labels,
        ).mean(dim=1)  # (R,)
        self._adam.step(losses)
        self._done += 1
        self._step_average()
        self._note(losses.detach())

    def _step_average(self) -> None:
        """A copy until `ema_start`, then v ← decay · v + (1 − decay) · w, every `ema_every` updates."""
        settings = self._settings
        last = self._done == settings.updates and self._done < settings.ema_start
        if self._done % settings.ema_every and not last:
            return
        share = 1.0 if self._done < settings.ema_start else 1 - settings.ema_decay
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.values()), list(self._adam.named.values()), share)

    def _note(self, losses: Tensor) -> None:
        """Adds to the loss curve and reports."""
        settings = self._settings
        self._losses += losses
        self._since += 1
        if self._done == settings.updates or self._done * _CURVE // settings.updates > len(self._curve):
            mean = self._losses.double().cpu().numpy() / self._since
            self._curve = np.concatenate([self._curve, [[self._done, *mean]]])
            self._losses.zero_()
            self._since = 0
        if self._done == settings.updates or self._journal.wants_report():
            latest = float(self._curve[-1, 1:].mean()) if len(self._curve) else float(losses.mean())
            self._journal.report(self._done, f"denoiser, loss {latest:.4f}", now=True)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        average = {f"average/{name}": tensor.cpu().numpy().copy() for name, tensor in self._average.items()}
        return {
            **self._adam.arrays(),
            **average,
            "curve": self._curve,
            "losses": self._losses.cpu().numpy().copy(),
            "counts": np.array([self._done, self._since], np.int64),
            "seconds": np.array(self._seconds),
            "generators": pack_generators(self._draws.generators),
        }

    def _load(self, saved: Arrays) -> None:
        self._adam.load(saved)
        for name, tensor in self._average.items():
            tensor.copy_(torch.from_numpy(np.array(saved[f"average/{name}"])))
        self._curve = np.array(saved["curve"])
        self._losses.copy_(torch.from_numpy(np.array(saved["losses"])))
        self._done, self._since = (int(count) for count in saved["counts"])
        self._seconds = float(saved["seconds"])
        restore_generators(self._draws.generators, saved["generators"])


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
