"""The loss of EAQ, and the training of R networks that predict clean episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.diffusion.episodes.matrix import EpisodeSignals, Moments
from methods.diffusion.episodes.settings import EpisodeSettings
from methods.diffusion.schedule import Schedule, make_schedule
from methods.diffusion.training import StackedTraining
from methods.journal import Journal
from methods.networks.conv_unet import ConvUNet

_CHUNK_UPDATES = 16  # updates whose random numbers are drawn at once
_CHUNK_VALUES = 2**23  # noise values a replica draws at once, at most
_JUDGED_EPISODES = 64  # held-out episodes of the judging loss, at most
_JUDGED_STEPS = 10  # values of k at which each of them is judged


@dataclass(frozen=True, slots=True)
class EpisodeLosses:
    """Of each signal (R, B): `error` ‖τ_0 − f‖² as a mean over its entries, `gap` [max Q̄ − Q̄(f)]_+."""

    error: Tensor
    gap: Tensor

    def total(self, lambda_q: float) -> Tensor:
        """(R,) means over the batch of error + λ · gap (EAQ, Eq. 5)."""
        return (self.error + lambda_q * self.gap if lambda_q else self.error).mean(dim=1)


def clean_estimate(
    settings: EpisodeSettings, schedule: Schedule, moments: Moments, output: Tensor, noisy: Tensor, k: Tensor
) -> Tensor:
    """x̂_0 (..., L, F) from what the network gave for noisy signals (..., L, F) at steps k (...).

    Either x̂_0 itself, or with μ and s the mean and deviation of each entry in the data and T = ᾱ s² + 1 − ᾱ

        x̂_0 = μ + √ᾱ s² / T · (x_k − √ᾱ μ) − s √(1 − ᾱ) / √T · v̂,

    the best linear estimate and a correction (Karras et al. 2022, Sec. 5). v̂ is the velocity where μ = 0 and s = 1
    (Salimans & Ho 2022, App. D); were that so for all entries, the correction would have to carry the noise of all of
    them, and the mean of those that hardly vary.
    """
    if settings.prediction == "data":
        return output
    mean, deviation = moments.mean, moments.deviation
    level, variance = schedule.alpha_bars[k][..., None, None], deviation.square()
    total = level * variance + (1 - level)
    linear = mean + level.sqrt() * variance / total * (noisy - level.sqrt() * mean)
    return linear - deviation * ((1 - level) / total).sqrt() * output


def episode_losses(clean: Tensor, predicted: Tensor, steps: Tensor, value_channel: int) -> EpisodeLosses:
    """Both parts of EAQ, Eq. 5: how far predictions are from the data, and how far from the best of the batch.

        L = ‖τ_0 − f(τ_k, k)‖² + λ [max_{τ ∈ B} Q̄(τ) − Q̄(f(τ_k, k))]_+ ,  Q̄(τ) = 1/T Σ_t Q_t

    Args:
        clean: (R, B, L, F) the episodes.
        predicted: (R, B, L, F) f(τ_k, k).
        steps: (R, B, L) bool, the columns over which Q is averaged, at least one in every signal.
        value_channel: where Q is.
    """
    error = (predicted - clean).square().flatten(2).mean(dim=2)
    best = mean_value(clean, steps, value_channel).amax(dim=1, keepdim=True)  # (R, 1), of the data: no gradient
    return EpisodeLosses(error, (best - mean_value(predicted, steps, value_channel)).clamp(min=0))


def mean_value(signals: Tensor, steps: Tensor, value_channel: int) -> Tensor:
    """Q̄ (R, B) of signals (R, B, L, F) over their steps (R, B, L), in normalised units."""
    return (signals[..., value_channel] * steps).sum(dim=-1) / steps.sum(dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeChunk:
    """What C updates draw: episodes and k (R, C, B), noise (R, C, B, L, F)."""

    episodes: Tensor
    k: Tensor
    noise: Tensor


class EpisodeTraining(StackedTraining[EpisodeChunk]):
    """Adam on EAQ's loss, and an exponential average of the weights.

    Args:
        settings: sizes, optimiser, λ.
        unet: R replicas on the device.
        signals: the data.
        taught: R, the episodes that each replica draws from.
        run: seeds.
        journal: progress and checkpoints.
    """

    def __init__(
        self,
        settings: EpisodeSettings,
        unet: ConvUNet,
        signals: EpisodeSignals,
        taught: Sequence[NDArray[np.int64]],
        run: Run,
        journal: Journal,
    ) -> None:
        self._draws_from = [run.generator("diffusion/denoiser", r) for r in range(len(run.seeds))]
        super().__init__(settings, unet, self._draws_from, run.device, journal)
        self._settings, self._unet, self._signals, self._taught = settings, unet, signals, taught
        self._schedule = make_schedule(settings.schedule, settings.diffusion_steps).to(run.device)
        self._device = run.device
        self._shape = (settings.batch_size, signals.matrix.length, signals.matrix.channels)
        self.chunk = max(1, min(_CHUNK_UPDATES, _CHUNK_VALUES // int(np.prod(self._shape))))

    def draw(self) -> EpisodeChunk:
        """Episodes with replacement, diffusion steps and noise, those of replica r from its generator alone."""
        lead = (self.chunk, self._settings.batch_size)
        noise = np.empty((len(self._taught), self.chunk, *self._shape), np.float32)
        episodes, steps = [], []
        for r, (generator, taught) in enumerate(zip(self._draws_from, self._taught, strict=True)):
            episodes.append(taught[generator.integers(len(taught), size=lead)])
            steps.append(generator.integers(self._settings.diffusion_steps, size=lead))
            generator.standard_normal(dtype=np.float32, out=noise[r])
        arrays = (np.stack(episodes), np.stack(steps), noise)
        return EpisodeChunk(*(torch.from_numpy(array).to(self._device) for array in arrays))

    def losses(self, chunk: EpisodeChunk, index: int) -> Tensor:
        """(R,) EAQ, Eq. 5."""
        settings, episodes, k = self._settings, chunk.episodes[:, index], chunk.k[:, index]
        clean = self._signals.signals(episodes)  # (R, B, L, F)
        noisy = self._schedule.diffuse(clean, k, chunk.noise[:, index])
        moments = self._signals.matrix.moments
        predicted = clean_estimate(settings, self._schedule, moments, self._unet(noisy, k), noisy, k)
        steps = self._signals.steps(episodes, own=settings.q_mean == "valid")
        return episode_losses(clean, predicted, steps, self._signals.matrix.value_channel).total(settings.lambda_q)


@dataclass(frozen=True, slots=True)
class JudgedEpisodes:
    """Means over held-out episodes and noise levels.

    Attributes:
        data: squared error of x̂_0, clipped to [−1, 1] as samplers use it.
        noise: squared error of the ε̂ that follows from x̂_0.
        gap: [max Q̄ − Q̄(x̂_0)]_+ in normalised units.
    """

    data: float
    noise: float
    gap: float


@torch.no_grad()
def judge_episodes(
    settings: EpisodeSettings,
    predict: Callable[[Tensor, Tensor], Tensor],
    signals: EpisodeSignals,
    held_out: NDArray[np.int64],
    generator: np.random.Generator,
) -> JudgedEpisodes:
    """How one replica does on episodes that it was not trained on.

    Episodes, noise and the steps k = (2j + 1) K / 2J are fixed by the generator, so that two fits of one seed compare.

    Args:
        settings: K, the schedule, how Q is averaged.
        predict: x̂_0 (1, B, L, F) of one replica.
        signals: the data.
        held_out: episodes to draw from.
        generator: apart from those of training.
    """
    device = signals.matrix.padding.device
    schedule: Schedule = make_schedule(settings.schedule, settings.diffusion_steps).to(device)
    chosen = torch.from_numpy(generator.permutation(held_out)[:_JUDGED_EPISODES]).to(device)[None]
    clean, steps = signals.signals(chosen), signals.steps(chosen, own=settings.q_mean == "valid")
    found = np.zeros(3)
    for j in range(_JUDGED_STEPS):
        step = (2 * j + 1) * settings.diffusion_steps // (2 * _JUDGED_STEPS)
        k = torch.full(chosen.shape, step, device=device)
        noise = torch.from_numpy(generator.standard_normal(clean.shape, dtype=np.float32)).to(device)
        noisy = schedule.diffuse(clean, k, noise)
        raw, level = predict(noisy, k), schedule.exact_alpha_bars[step]
        guess = raw.clamp(-1, 1)
        eps = (noisy - level**0.5 * raw) / (1 - level) ** 0.5
        of_guess = episode_losses(clean, guess, steps, signals.matrix.value_channel)
        found += [float(of_guess.error.mean()), float((eps - noise).square().mean()), float(of_guess.gap.mean())]
    return JudgedEpisodes(*(found / _JUDGED_STEPS).tolist())
