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
from methods.diffusion.trainer import denoising_losses, held_out_loss
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


def test_a_model_is_judged_at_ten_noise_levels_with_every_condition(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    index = WindowIndex(data, 8)
    conditions = torch.arange(data.n_steps, dtype=torch.float32)
    windows = DeviceWindows(index, torch.from_numpy(data.observations), torch.from_numpy(data.actions), conditions)
    silent = Silent()
    settings, held_out = tiny(diffusion_steps=200), np.array([20, 21])
    loss = held_out_loss(settings, cast(Denoiser, silent), windows, held_out, None, np.random.default_rng(4))
    assert [int(shown["k"][0, 0]) for shown in silent.shown] == [10, 30, 50, 70, 90, 110, 130, 150, 170, 190]
    assert all(shown["keep"].all() for shown in silent.shown)
    assert sorted(silent.shown[0]["returns"][0, :, 0].tolist()) == [20, 21]  # each held-out window once
    assert 0.85 < loss < 1.15  # the variance of the noise
    again = held_out_loss(settings, cast(Denoiser, Silent()), windows, held_out, None, np.random.default_rng(4))
    assert again == loss
