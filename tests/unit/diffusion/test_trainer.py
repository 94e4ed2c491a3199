"""The denoising loss: which rows are noisy and count, and how a model is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from methods.data.window_tensors import DeviceWindows
from methods.data.windows import WindowIndex
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from methods.diffusion.trainer import HeldOutLosses, denoising_losses, held_out_losses
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]


class Silent:
    """Sees no noise anywhere, and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Tensor]] = []

    def __call__(self, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None) -> Tensor:
        self.shown.append({"x": x, "k": k, "returns": returns, "keep": keep})
        return torch.zeros_like(x)

    def target(self, clean: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        return noise


def test_the_first_row_is_clean_and_does_not_count() -> None:
    silent = Silent()
    clean, noise = torch.full((2, 1, 3, 1, 1), 0.5), torch.ones(2, 1, 3, 1, 1)
    noise[0, 0, :, 0, 0] = torch.tensor([100.0, 2.0, 4.0])
    k = torch.full((2, 1), 9)
    losses = denoising_losses(cast(Any, silent), CosineSchedule(10), clean, k, noise, k, k, None)
    assert losses.tolist() == [[(4 + 16) / 2], [1.0]]
    noisy = silent.shown[0]["x"][0, 0, :, 0, 0]
    assert noisy[0] == 0.5
    assert noisy[2] > 3  # k = 9 of 10: all noise


class Seeking(Silent):
    """Wants to be told something else than the noise, as a network of velocities does."""

    def target(self, clean: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        return torch.full_like(clean, 7.0)


def test_an_estimate_is_compared_with_the_target_of_the_network() -> None:
    clean, k = torch.zeros(1, 2, 4, 3, 2), torch.zeros(1, 2, dtype=torch.int64)
    losses = denoising_losses(cast(Any, Seeking()), CosineSchedule(10), clean, k, torch.ones_like(clean), k, k, None)
    assert losses.tolist() == [[49.0, 49.0]]


def test_a_model_is_judged_at_ten_noise_levels_with_every_condition(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    index = WindowIndex(data, 8)
    conditions = torch.arange(data.n_steps, dtype=torch.float32)
    windows = DeviceWindows(index, torch.from_numpy(data.observations), torch.from_numpy(data.actions), conditions)
    settings, held_out = tiny(diffusion_steps=200), np.array([20, 21])

    def judge(model: Any) -> HeldOutLosses:
        return held_out_losses(settings, model, windows, held_out, None, np.random.default_rng(4))

    silent = Silent()
    losses = judge(silent)
    assert [int(shown["k"][0, 0]) for shown in silent.shown] == [10, 30, 50, 70, 90, 110, 130, 150, 170, 190]
    assert all(shown["keep"].all() for shown in silent.shown)
    assert sorted(silent.shown[0]["returns"][0, :, 0].tolist()) == [20, 21]  # each held-out window once
    assert 0.85 < losses.noise < 1.15  # the variance of the noise
    assert judge(Silent()) == losses


class Knowing(Silent):
    """Knows that all data are 0.5, so it sees the noise exactly."""

    def __call__(self, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None) -> Tensor:
        level = CosineSchedule(200).exact_alpha_bars[int(k[0, 0])]
        return (x - level**0.5 * 0.5) / (1 - level) ** 0.5


def test_a_perfect_model_has_no_loss_in_either_measure(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    index = WindowIndex(data, 8)
    observations = torch.full(data.observations.shape, 0.5)
    windows = DeviceWindows(index, observations, torch.from_numpy(data.actions), torch.zeros(data.n_steps))
    known: Any = Knowing()
    losses = held_out_losses(tiny(diffusion_steps=200), known, windows, np.array([3]), None, np.random.default_rng(4))
    assert losses.noise < 1e-8
    assert losses.data < 1e-6


def test_the_velocity_leads_back_to_noise_and_data(tiny: Make) -> None:
    settings = tiny(prediction="velocity")
    denoiser = Denoiser.create(settings, 2, 3, [np.random.default_rng(1)])
    draw = np.random.default_rng(2)
    clean, noise = (torch.from_numpy(draw.standard_normal((1, 1, 8, 2, 3), dtype=np.float32)) for _ in range(2))
    k = torch.tensor([[6]])
    level = CosineSchedule(10).exact_alpha_bars[6]
    v = denoiser.target(clean, k, noise)
    torch.testing.assert_close(v, level**0.5 * noise - (1 - level) ** 0.5 * clean)
    noisy = CosineSchedule(10).diffuse(clean, k, noise)
    denoiser.unet = cast(Any, Exactly(v))
    returns, keep = torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(denoiser(noisy, k, returns, keep), v)
    torch.testing.assert_close(denoiser.noise_of(v, k, noisy), noise, atol=1e-5, rtol=1e-5)


class Exactly(torch.nn.Module):
    """A network that answers one thing."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: Tensor | None) -> Tensor:
        return self.answer
