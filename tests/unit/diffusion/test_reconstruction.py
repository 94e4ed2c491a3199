from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.diffusion.reconstruction import STEPS, encode_decode, reconstruction_errors
from methods.diffusion.schedule import CosineSchedule


def test_a_network_that_ignores_its_input_rebuilds_everything() -> None:
    schedule, x_0 = CosineSchedule(50), torch.linspace(-0.9, 0.9, 12, dtype=torch.float64).reshape(2, 3, 2)
    calls: list[int] = []

    def denoise(x: Tensor, k: int) -> Tensor:
        calls.append(k)
        return torch.full_like(x, 0.1)

    rebuilt = encode_decode(denoise, schedule, x_0)
    assert rebuilt.numpy() == pytest.approx(x_0.numpy(), abs=1e-9)
    assert calls[:STEPS] == calls[: -STEPS - 1 : -1]  # up from little noise, and the same way down
    assert calls[STEPS] == 49


def test_a_model_of_one_point_makes_that_point_of_everything() -> None:
    schedule, point = CosineSchedule(10), 0.25

    def denoise(x: Tensor, k: int) -> Tensor:
        level = schedule.exact_alpha_bars[k]
        return (x - level**0.5 * point) / (1 - level) ** 0.5

    x_0 = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    assert encode_decode(denoise, schedule, x_0).numpy() == pytest.approx(np.full((2, 1), 0.25), abs=1e-6)


def test_errors_are_means_over_a_window_without_a_condition() -> None:
    seen = []
    first_rows: list[Tensor] = []

    def denoise(x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None) -> Tensor:
        first_rows.append(x[0, :, 0])
        seen.append((x.shape, k.shape, bool(keep.any()), None if labels is None else labels.shape))
        level = schedule.exact_alpha_bars[int(k[0, 0])]
        return (x - level**0.5 * 0.5) / (1 - level) ** 0.5  # all mass at 0.5

    schedule = CosineSchedule(8)
    model = SimpleNamespace(
        settings=SimpleNamespace(append_state=False, labels=True, diffusion_steps=8),
        encode=lambda observations, states: torch.from_numpy(observations),
        denoise=denoise,
    )
    observations = np.zeros((3, 4, 3, 5), dtype=np.float32)
    observations[1:] = 0.5
    observations[2, 0] = -0.25  # a first row unlike all that the model knows: given, and no error of its
    errors = reconstruction_errors(model, SimpleNamespace(observations=observations, states=None))
    assert errors == pytest.approx([0.5, 0.0, 0.0], abs=1e-5)
    assert set(seen) == {((1, 3, 4, 3, 5), (1, 3), False, (1, 3, 3, 6))}
    assert len(first_rows) == 16  # 8 steps in each direction
    for rows in first_rows:
        assert torch.equal(rows, torch.from_numpy(observations[:, 0]))
