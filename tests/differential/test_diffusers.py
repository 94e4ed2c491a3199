"""Our samplers against those of diffusers, step by step: same network, same noise, same clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.schedule import CosineSchedule, LinearSchedule, Schedule
from tasks.common.seeding import make_generator

K = 200
SHAPE = (64, 8)
SCHEDULE = CosineSchedule(K)
STEPS = [1, 2, 7, 10, 15, 20, 50, K]
PROCESS = {"num_train_timesteps": K, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon"}
SPACING = {"timestep_spacing": "trailing"}


class ClippedSolver(DPMSolverMultistepScheduler):  # type: ignore[misc]  # untyped
    """Theirs has no plain clip."""

    def convert_model_output(self, *args: Any, **kwargs: Any) -> Tensor:
        prediction: Tensor = super().convert_model_output(*args, **kwargs)
        return prediction.clamp(-1, 1)


@pytest.fixture
def fixed_draws(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """DDPMScheduler draws noise by itself; here it takes the first of a list instead."""
    draws: list[Tensor] = []
    where = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    monkeypatch.setattr(where, lambda *args, **kwargs: draws.pop(0))
    return draws


def network(x: Tensor, k: int) -> Tensor:
    """Something nonlinear whose predictions of x_0 are clipped here and there."""
    return 0.9 * x + 0.4 * torch.sin(3 * x + 0.01 * k)


def first_x() -> Tensor:
    return numpy_noise(make_generator("diffusers", "first"), "cpu")(SHAPE)


def assert_same_path(
    name: str, theirs: Any, steps: int, draws: list[Tensor], schedule: Schedule = SCHEDULE, to_data: bool = False
) -> None:
    """Both walk all steps on their own, so errors would add up."""
    sampler, noise = make_sampler(name, schedule, steps), numpy_noise(make_generator("diffusers", name), "cpu")
    step = sampler.step_to_data if to_data else sampler.step
    theirs.set_timesteps(steps)
    assert sampler.timesteps == tuple(theirs.timesteps.tolist())
    ours, other, memory = first_x(), first_x(), sampler.begin()
    for index, k in enumerate(sampler.timesteps):
        fresh = noise(SHAPE) if sampler.needs_noise(index) else None
        draws[:] = [torch.zeros(SHAPE) if fresh is None else fresh]  # theirs may end with noise of deviation 1e-10
        ours, memory = step(index, ours, network(ours, k), fresh, memory)
        other = theirs.step(network(other, k), k, other).prev_sample
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-4 if steps <= K else 1e-3)
    assert steps == 1 or (ours.abs() < 1).any()  # not all is clip


def test_the_schedules_are_the_same() -> None:
    theirs = DDPMScheduler(**PROCESS)
    torch.testing.assert_close(SCHEDULE.betas, theirs.betas, rtol=1e-6, atol=0)
    torch.testing.assert_close(SCHEDULE.alpha_bars, theirs.alphas_cumprod, rtol=1e-4, atol=0)  # theirs in float32


def test_noise_is_added_alike() -> None:
    x, noise = first_x(), numpy_noise(make_generator("added"), "cpu")(SHAPE)
    k = torch.from_numpy(make_generator("levels").integers(0, K, SHAPE[0]))
    theirs = DDPMScheduler(**PROCESS).add_noise(x, noise, k)
    torch.testing.assert_close(SCHEDULE.diffuse(x, k, noise), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", STEPS)
def test_ddpm(steps: int, fixed_draws: list[Tensor]) -> None:
    assert_same_path("ddpm", DDPMScheduler(**PROCESS, **SPACING, variance_type="fixed_small"), steps, fixed_draws)


class RecomputingDDIM(DDIMScheduler):  # type: ignore[misc]  # untyped
    """As ours: the noise is recomputed from the clipped prediction."""

    def step(self, *args: Any) -> Any:
        return super().step(*args, eta=0.0, use_clipped_model_output=True)


@pytest.mark.parametrize("steps", [steps for steps in STEPS if K % steps == 0])  # else theirs has other levels
def test_ddim(steps: int) -> None:
    assert_same_path("ddim", RecomputingDDIM(**PROCESS, **SPACING, clip_sample=True), steps, [])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with NumPy 2
@pytest.mark.parametrize("steps", STEPS)
def test_dpm_solver(steps: int) -> None:
    theirs = ClippedSolver(**PROCESS, **SPACING, algorithm_type="dpmsolver++", solver_order=2)
    assert_same_path("dpmpp_2m", theirs, steps, [])


LINEAR = {"num_train_timesteps": 1_000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


def test_the_linear_schedules_are_the_same() -> None:
    ours, theirs = LinearSchedule(1_000), DDPMScheduler(**LINEAR)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.alpha_bars, theirs.alphas_cumprod, rtol=1e-4, atol=0)  # theirs in float32


@pytest.mark.parametrize("steps", [1, 6, 50, 1_000])
def test_ddpm_of_a_network_that_predicts_the_data(steps: int, fixed_draws: list[Tensor]) -> None:
    theirs = DDPMScheduler(**LINEAR, **SPACING, prediction_type="sample", variance_type="fixed_small")
    assert_same_path("ddpm", theirs, steps, fixed_draws, LinearSchedule(1_000), to_data=True)


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim_of_a_network_that_predicts_the_data(steps: int) -> None:
    theirs = RecomputingDDIM(**LINEAR, **SPACING, prediction_type="sample", clip_sample=True)
    assert_same_path("ddim", theirs, steps, [], LinearSchedule(1_000), to_data=True)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with NumPy 2
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_dpm_solver_of_a_network_that_predicts_the_data(steps: int) -> None:
    process = {**LINEAR, **SPACING, "algorithm_type": "dpmsolver++", "solver_order": 2}
    theirs = ClippedSolver(**process, prediction_type="sample")
    assert_same_path("dpmpp_2m", theirs, steps, [], LinearSchedule(1_000), to_data=True)


def test_one_step_of_order_one_is_ddim() -> None:
    x = first_x()
    eps = network(x, K - 1)
    pairs = [make_sampler(name, SCHEDULE, 10).step(0, x, eps, None, None)[0] for name in ("ddim", "dpmpp_2m")]
    np.testing.assert_allclose(pairs[0].numpy(), pairs[1].numpy(), atol=1e-6)
