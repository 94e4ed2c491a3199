"""The cosine schedule in numbers, and the forward process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.diffusion.schedule import CosineSchedule, LinearSchedule, make_schedule
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.seeding import make_generator


def test_the_numbers_of_two_hundred_steps() -> None:
    schedule = CosineSchedule(200)
    assert schedule.exact_alpha_bars[0] == pytest.approx(0.999745, abs=5e-7)
    assert schedule.exact_alpha_bars[199] == pytest.approx(6.07e-8, rel=1e-3)
    assert int((schedule.betas >= 0.999).sum()) == 1  # the last one is capped
    assert schedule.betas[198] < 0.76
    assert all(t.dtype == torch.float32 for t in (schedule.betas, schedule.alphas, schedule.alpha_bars))


def test_two_steps_by_hand() -> None:
    # f(0) = cos²(π/2 · 0.008/1.008) = 0.9998446, f(1/2) = cos²(π/2 · 0.508/1.008) = 0.4937669, f(1) = 0.
    schedule = CosineSchedule(2)
    first = 1 - 0.4937669 / 0.9998446
    torch.testing.assert_close(schedule.betas, torch.tensor([first, 0.999]), rtol=0, atol=1e-6)
    torch.testing.assert_close(schedule.alphas, torch.tensor([1 - first, 0.001]), rtol=0, atol=1e-6)
    torch.testing.assert_close(schedule.alpha_bars, torch.tensor([1 - first, (1 - first) * 0.001]), rtol=0, atol=1e-6)


def test_the_noisiest_level_is_noise_alone() -> None:
    schedule = CosineSchedule(200)
    generator = make_generator("forward-variance")
    x_0 = torch.from_numpy(generator.uniform(-1, 1, 50_000).astype(np.float32))
    noise = torch.from_numpy(generator.standard_normal(50_000, dtype=np.float32))
    x = schedule.diffuse(x_0, torch.tensor(199), noise)
    assert 1 - schedule.exact_alpha_bars[199] == pytest.approx(1, abs=1e-6)
    assert float(x.var()) == pytest.approx(float(noise.var()), abs=1e-4)


def test_noise_goes_to_the_level_of_every_window() -> None:
    schedule = CosineSchedule(4)
    k = torch.tensor([[0, 3], [1, 1]])  # (R, B)
    x = schedule.diffuse(torch.full((2, 2, 3, 1), 2.0), k, torch.full((2, 2, 3, 1), -1.0))
    for r in range(2):
        for b in range(2):
            level = schedule.exact_alpha_bars[int(k[r, b])]
            expected = 2 * math.sqrt(level) - math.sqrt(1 - level)
            torch.testing.assert_close(x[r, b], torch.full((3, 1), expected))


def test_another_device_leaves_the_schedule_alone() -> None:
    schedule = CosineSchedule(3)
    moved = schedule.to("meta")
    assert moved.alpha_bars.device.type == "meta"
    assert schedule.alpha_bars.device.type == "cpu"
    assert moved.exact_alpha_bars == schedule.exact_alpha_bars


def test_a_schedule_needs_a_step() -> None:
    with pytest.raises(UsageError, match="0 diffusion steps, expected at least 1"):
        CosineSchedule(0)


def test_the_linear_schedule_in_numbers() -> None:
    schedule = LinearSchedule(1_000)
    assert schedule.betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])
    assert float(schedule.betas[500]) == pytest.approx(1e-4 + 0.0199 * 500 / 999)
    assert schedule.exact_alpha_bars[999] == pytest.approx(4.036e-5, rel=1e-3)


@pytest.mark.parametrize("steps", [50, 200, 4_000])
def test_a_linear_schedule_of_other_steps_ends_about_as_noisy(steps: int) -> None:
    assert -13 < math.log(LinearSchedule(steps).exact_alpha_bars[-1]) < -9.5


def test_a_linear_schedule_of_few_steps_is_capped() -> None:
    # 1e-4 · 250, 0.0067333 · 250 and on, of which 0.999 is left.
    schedule = LinearSchedule(4)
    torch.testing.assert_close(schedule.betas, torch.tensor([0.025, 0.999, 0.999, 0.999]))
    assert schedule.exact_alpha_bars[-1] == pytest.approx(0.975e-9)


def test_schedules_have_names() -> None:
    assert make_schedule("cosine", 7).exact_alpha_bars == CosineSchedule(7).exact_alpha_bars
    assert make_schedule("linear", 7).exact_alpha_bars == LinearSchedule(7).exact_alpha_bars
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        make_schedule("liner", 7)
