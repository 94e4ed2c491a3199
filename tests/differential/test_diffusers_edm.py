"""Our EDM process and sampler against diffusers' Euler scheduler, which shares levels, coefficients and churn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from torch import Tensor

from methods.diffusion.edm import EDMProcess, HeunSampler, make_edm_sampler, noise_levels
from methods.diffusion.sampling import numpy_noise
from tasks.common.seeding import make_generator

SHAPE = (16, 3)
PROCESS = EDMProcess()


def scheduler(steps: int) -> Any:
    made = EDMEulerScheduler(sigma_min=0.002, sigma_max=80, sigma_data=1.0, rho=7.0, num_train_timesteps=steps)
    made.set_timesteps(steps)
    return made


def raw(x: Tensor) -> Tensor:
    """F of scaled inputs."""
    return 0.7 * x + 0.2 * torch.sin(3 * x)


def denoise(x: Tensor, sigma: float) -> Tensor:
    return PROCESS.denoised(lambda z, c: raw(z), x, torch.full(x.shape[:-1], sigma))


@pytest.mark.parametrize("steps", [2, 16, 128])
def test_the_levels_are_theirs(steps: int) -> None:
    np.testing.assert_allclose(noise_levels(steps), scheduler(steps).sigmas.numpy(), rtol=2e-5, atol=1e-9)


def test_the_coefficients_are_theirs() -> None:
    sigma = torch.tensor([0.002, 0.5, 80.0])
    c_skip, c_out, c_in, c_noise = PROCESS.coefficients(sigma)
    theirs = scheduler(8)
    x, f = torch.ones(1), torch.full((1,), 0.5)
    for i, level in enumerate(sigma):
        torch.testing.assert_close(theirs.precondition_inputs(x, level), c_in[i] * x)
        torch.testing.assert_close(theirs.precondition_noise(level), c_noise[i])
        torch.testing.assert_close(theirs.precondition_outputs(x, f, level), c_skip[i] * x + c_out[i] * f)


class Euler(HeunSampler):
    """Ours without the second evaluation, as theirs: the slope at the end taken to be that of the start."""

    def step(self, index: int, x: Tensor, denoise: Any, fresh: Tensor | None) -> Tensor:
        slopes: list[Tensor] = []

        def once(z: Tensor, sigma: float) -> Tensor:
            if slopes:
                return z - sigma * slopes[0]
            found: Tensor = denoise(z, sigma)
            slopes.append((z - found) / sigma)
            return found

        return super().step(index, x, once, fresh)


@pytest.mark.parametrize("name", ["edm_heun", "edm_heun_det"])
def test_the_first_order_part_walks_with_theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, noise = 24, numpy_noise(make_generator("edm", name), "cpu")
    ours, theirs = make_edm_sampler(name, steps), scheduler(steps)
    euler = Euler(name=name, sigmas=ours.sigmas, gammas=ours.gammas)
    x = other = noise(SHAPE) * 80
    for index, timestep in enumerate(theirs.timesteps):
        fresh = noise(SHAPE)
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_edm_euler.randn_tensor", lambda *_, value=fresh, **__: value.clone()
        )
        x = euler.step(index, x, denoise, fresh)
        gamma = euler.gammas[index]
        raised = theirs.sigmas[index] * (1 + gamma)
        # Theirs scales the model's input and adds the noise after it was evaluated: give it the output at our input.
        noisy = other + fresh * 1.003 * (raised**2 - theirs.sigmas[index] ** 2) ** 0.5 if gamma > 0 else other
        churn = {"s_churn": 80.0, "s_tmin": 0.05, "s_tmax": 50.0} if name == "edm_heun" else {}
        guess = denoise(noisy, float(raised))
        other = theirs.step(guess, timestep, other, s_noise=1.003, pred_original_sample=guess, **churn).prev_sample
        torch.testing.assert_close(x, other, rtol=1e-4, atol=1e-4)
