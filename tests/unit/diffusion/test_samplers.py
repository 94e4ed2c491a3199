"""Steps from noise to data: spacing, coefficients worked by hand, and what each sampler must reach."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods.diffusion.samplers import Sampler, make_sampler
from methods.diffusion.sampling import numpy_noise, sample
from methods.diffusion.schedule import CosineSchedule, LinearSchedule, Schedule
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.seeding import make_generator

NAMES = ["ddpm", "ddim", "dpmpp_2m"]
SCHEDULE = CosineSchedule(200)


def noise_of_a_point(point: Tensor, schedule: CosineSchedule) -> Callable[[Tensor, int], Tensor]:
    """The true noise where the data are one point: (x − √ᾱ x_0) / √(1 − ᾱ)."""

    def denoise(x: Tensor, k: int) -> Tensor:
        level = schedule.exact_alpha_bars[k]
        return (x - math.sqrt(level) * point) / math.sqrt(1 - level)

    return denoise


def noise_of_a_normal(mean: float, deviation: float, schedule: CosineSchedule) -> Callable[[Tensor, int], Tensor]:
    """E[ε | x] where the data are N(mean, deviation²): √(1 − ᾱ) (x − √ᾱ mean) / (ᾱ deviation² + 1 − ᾱ)."""

    def denoise(x: Tensor, k: int) -> Tensor:
        level = schedule.exact_alpha_bars[k]
        variance = level * deviation**2 + 1 - level
        return (x - math.sqrt(level) * mean) * (math.sqrt(1 - level) / variance)

    return denoise


@pytest.mark.parametrize("name", NAMES)
def test_spacing_starts_at_the_noisiest_step(name: str) -> None:
    assert make_sampler(name, SCHEDULE).timesteps == tuple(range(199, -1, -1))
    assert make_sampler(name, SCHEDULE, 10).timesteps == (199, 179, 159, 139, 119, 99, 79, 59, 39, 19)
    # 200 − 200/15 · i, rounded, less one; "leading" spacing would start at 182.
    fifteen = (199, 186, 172, 159, 146, 132, 119, 106, 92, 79, 66, 52, 39, 26, 12)
    assert make_sampler(name, SCHEDULE, 15).timesteps == fifteen
    assert make_sampler(name, SCHEDULE, 1).timesteps == (199,)


@pytest.mark.parametrize("steps", [1, 3, 150, 200])
def test_every_number_of_steps_has_steps_of_its_own(steps: int) -> None:
    timesteps = make_sampler("ddim", SCHEDULE, steps).timesteps
    assert len(set(timesteps)) == steps
    assert timesteps == tuple(sorted(timesteps, reverse=True))
    assert timesteps[-1] >= 0


@pytest.mark.parametrize("name", NAMES)
def test_levels_belong_to_the_steps(name: str) -> None:
    sampler = make_sampler(name, SCHEDULE, 10)
    bars = SCHEDULE.exact_alpha_bars
    assert (sampler.alpha_bar_before(0), sampler.alpha_bar_after(0)) == (bars[199], bars[179])
    assert (sampler.alpha_bar_before(9), sampler.alpha_bar_after(9)) == (bars[19], 1.0)
    assert len(sampler) == 10


def test_only_ddpm_draws_noise_and_not_in_its_last_step() -> None:
    for name in NAMES:
        sampler = make_sampler(name, SCHEDULE, 5)
        assert [sampler.needs_noise(i) for i in range(5)] == [name == "ddpm"] * 4 + [False]


# A schedule of two steps has ᾱ_1 = 0.001 ᾱ_0 and ᾱ_0 = a, here put in as 0.75 and 0.36 for round numbers.
def two_levels(name: str, levels: tuple[float, float] = (0.36, 0.75)) -> Sampler:
    schedule = CosineSchedule(2)
    schedule.exact_alpha_bars = levels[::-1]
    return make_sampler(name, schedule)


def test_ddpm_by_hand() -> None:
    # ᾱ = 0.36, ᾱ' = 0.75: β = 1 − 0.36/0.75 = 0.52. x̂_0 = (0.5 − 0.8 · 0.4)/0.6 = 0.3.
    # mean = √0.75 · 0.52/0.64 · 0.3 + √0.48 · 0.25/0.64 · 0.5 = 0.211091 + 0.135316,
    # variance = 0.25/0.64 · 0.52 = 0.203125.
    sampler = two_levels("ddpm")
    x, eps, noise = torch.tensor([0.5]), torch.tensor([0.4]), torch.tensor([2.0])
    after, _ = sampler.step(0, x, eps, noise, sampler.begin())
    torch.testing.assert_close(after, torch.tensor([0.211091 + 0.135316 + 2 * math.sqrt(0.203125)]), rtol=0, atol=1e-5)
    last, _ = sampler.step(1, x, eps, None, None)  # (0.5 − 0.5 · 0.4)/√0.75
    torch.testing.assert_close(last, torch.tensor([0.3 / math.sqrt(0.75)]))


def test_ddim_by_hand() -> None:
    # x̂_0 = 0.3 again; x' = √0.75 · 0.3 + √0.25 · 0.4
    after, _ = two_levels("ddim").step(0, torch.tensor([0.5]), torch.tensor([0.4]), None, None)
    torch.testing.assert_close(after, torch.tensor([math.sqrt(0.75) * 0.3 + 0.2]))


def test_ddim_moves_towards_the_clipped_prediction() -> None:
    # x̂_0 = (2 − 0.8 · 0.5)/0.6 = 2.67 becomes 1, so ε becomes (2 − 0.6)/0.8 = 1.75.
    after, _ = two_levels("ddim").step(0, torch.tensor([2.0]), torch.tensor([0.5]), None, None)
    torch.testing.assert_close(after, torch.tensor([math.sqrt(0.75) + 0.5 * 1.75]))


def test_dpm_solver_by_hand() -> None:
    # Three levels 0.1, 0.5, 0.9, with σ² = 0.9, 0.5, 0.1: λ = ½ ln(ᾱ/(1 − ᾱ)) = −½ ln 9, 0, ½ ln 9, so h = ½ ln 9,
    # e^{−h} = 1/3 and r = 1 in the second step.
    schedule = CosineSchedule(3)
    schedule.exact_alpha_bars = (0.9, 0.5, 0.1)
    sampler = make_sampler("dpmpp_2m", schedule)
    x = torch.tensor([0.4])
    clean = (torch.tensor([0.2]), torch.tensor([0.6]), torch.tensor([0.5]))
    bars = (0.1, 0.5, 0.9)
    eps = [(x - math.sqrt(bar) * c) / math.sqrt(1 - bar) for bar, c in zip(bars, clean, strict=True)]
    first, memory = sampler.step(0, x, eps[0], None, sampler.begin())
    torch.testing.assert_close(first, math.sqrt(0.5 / 0.9) * x + math.sqrt(0.5) * (2 / 3) * 0.2)
    second, memory = sampler.step(1, x, eps[1], None, memory)  # 1.5 · 0.6 − 0.5 · 0.2 = 0.8
    torch.testing.assert_close(second, math.sqrt(0.1 / 0.5) * x + math.sqrt(0.9) * (2 / 3) * 0.8)
    last, _ = sampler.step(2, x, eps[2], None, memory)
    torch.testing.assert_close(last, clean[2])
    again, _ = sampler.step(1, x, eps[1], None, sampler.begin())  # first order where nothing is remembered
    torch.testing.assert_close(again, math.sqrt(0.1 / 0.5) * x + math.sqrt(0.9) * (2 / 3) * 0.6)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_its_arguments_alone(name: str) -> None:
    sampler = make_sampler(name, SCHEDULE, 4)
    x, eps, noise, memory = (torch.full((3,), value) for value in (0.5, 0.25, 1.0, 0.75))
    for index in range(4):
        sampler.step(index, x, eps, noise, memory)
    assert [float(t[0]) for t in (x, eps, noise, memory)] == [0.5, 0.25, 1.0, 0.75]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 5, 200])
def test_data_of_one_point_are_reached(name: str, steps: int) -> None:
    point = torch.linspace(-1, 1, 9)
    sampler = make_sampler(name, SCHEDULE, steps)
    drawn = sample(noise_of_a_point(point, SCHEDULE), sampler, (9,), numpy_noise(make_generator("point", steps), "cpu"))
    torch.testing.assert_close(drawn, point, rtol=0, atol=2e-3 if steps == 1 else 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_all_samplers_draw_from_the_data(name: str) -> None:
    # N(0.2, 0.15²) hardly ever meets the clip; all 200 steps of each sampler, from noise of full strength. DDPM's
    # variance takes the data for a point in every step, so it ends a little too narrow.
    sampler, noise = make_sampler(name, SCHEDULE), numpy_noise(make_generator("normal", name), "cpu")
    drawn = sample(noise_of_a_normal(0.2, 0.15, SCHEDULE), sampler, (20_000,), noise, init_noise_scale=1.0)
    assert float(drawn.mean()) == pytest.approx(0.2, abs=0.005)
    assert float(drawn.std()) == pytest.approx(0.15, abs=0.012 if name == "ddpm" else 0.005)


def test_results_stay_within_the_clip() -> None:
    for name in NAMES:
        sampler, noise = make_sampler(name, SCHEDULE, 8), numpy_noise(make_generator("clip"), "cpu")
        drawn = sample(lambda x, k: -3 * torch.ones_like(x), sampler, (5,), noise)
        assert torch.equal(drawn, torch.ones(5))


@pytest.mark.parametrize("steps", [0, 201])
def test_numbers_of_steps_that_do_not_exist(steps: int) -> None:
    with pytest.raises(UsageError, match=f"{steps} steps, expected 1 to 200"):
        make_sampler("ddim", SCHEDULE, steps)


def test_an_unknown_sampler_gets_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="Unknown sampler 'dppm'.*'ddpm'"):
        make_sampler("dppm", SCHEDULE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", [CosineSchedule(50), LinearSchedule(50)], ids=["cosine", "linear"])
def test_a_network_of_the_data_and_one_of_the_noise_take_the_same_path(name: str, schedule: Schedule) -> None:
    def data(x: Tensor, k: int) -> Tensor:
        return 1.2 * x + 0.2 * torch.sin(3 * x + 0.05 * k)  # clipped here and there

    def noise(x: Tensor, k: int) -> Tensor:
        level = schedule.exact_alpha_bars[k]
        return (x - math.sqrt(level) * data(x, k)) / math.sqrt(1 - level)

    sampler = make_sampler(name, schedule, 12)
    sources = [numpy_noise(make_generator("two networks"), "cpu") for _ in range(2)]
    of_data = sample(data, sampler, (40,), sources[0], predicts_data=True)
    of_noise = sample(noise, sampler, (40,), sources[1])
    torch.testing.assert_close(of_data, of_noise, rtol=0, atol=1e-4)
    assert float(of_data.std()) > 0.1


def test_what_a_network_of_the_data_gave_is_left_alone() -> None:
    given = torch.tensor([2.0, 0.5])
    first, _ = make_sampler("ddpm", SCHEDULE, 1).step_to_data(0, torch.zeros(2), given, None, None)
    assert first.tolist() == [1.0, 0.5]
    assert given.tolist() == [2.0, 0.5]
