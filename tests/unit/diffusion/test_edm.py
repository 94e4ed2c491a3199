"""EDM: the process and its samplers, against what is known in closed form for Gaussian data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.diffusion.edm import EDMProcess, make_edm_sampler, noise_levels
from methods.diffusion.sampling import numpy_noise
from tasks.common.errors import UnknownNameError, UsageError

MEAN = torch.tensor([1.0, -0.5])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]])


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def ideal(x: Tensor, sigma: float) -> Tensor:
    """D(x; σ) = μ + S (S + σ² I)^{-1} (x − μ) for x ~ N(μ, S)."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(2))
    return MEAN + (x - MEAN) @ gain.T


def test_the_coefficients_at_one_level_by_hand() -> None:
    found = EDMProcess().coefficients(torch.tensor([2.0]))
    expected = (1 / 5, 2 / math.sqrt(5), 1 / math.sqrt(5), math.log(2) / 4)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, torch.tensor([wanted]))
    torch.testing.assert_close(EDMProcess().weight(torch.tensor([2.0])), torch.tensor([5 / 4]))
    torch.testing.assert_close(
        EDMProcess().training_sigma(torch.tensor([0.0, 1.0])), torch.tensor([math.exp(-1.2), 1.0])
    )


def test_without_noise_the_denoiser_is_the_identity() -> None:
    x = torch.from_numpy(rng(0).normal(size=(7, 3)).astype(np.float32))
    wild = EDMProcess().denoised(lambda z, c: 5 * z.sin() + c.unsqueeze(-1), x, torch.full((7,), 1e-6))
    torch.testing.assert_close(wild, x, rtol=0, atol=1e-4)


def test_the_weight_makes_an_error_of_f_count_the_same_at_every_level() -> None:
    """λ(σ) c_out(σ)² = 1: a network that is off by 0.3 costs 0.09, whatever the noise."""
    process, clean = EDMProcess(), torch.zeros(5, 4)
    normal, noise = torch.linspace(-2, 2, 5), torch.zeros(5, 4)
    losses = process.losses(lambda z, c: torch.full_like(z, 0.3), clean, normal, noise)
    torch.testing.assert_close(losses, torch.full((5,), 0.09))


def test_the_loss_of_the_ideal_denoiser_of_a_standard_normal_is_one() -> None:
    """For x ~ N(0, 1) D = c_skip x is ideal, F = 0, and λ E (D − x)² = λ σ² / (σ² + 1) = 1."""
    values = torch.from_numpy(rng(1).normal(size=(2, 200_000, 1)).astype(np.float32))
    losses = EDMProcess().losses(lambda z, c: 0 * z, values[0], torch.zeros(200_000), values[1])
    assert float(losses.mean()) == pytest.approx(1.0, rel=0.01)


def test_the_levels_fall_from_80_to_two_thousandths_and_then_to_0() -> None:
    levels = noise_levels(128)
    assert levels[0] == pytest.approx(80)
    assert levels[-2] == pytest.approx(0.002)
    assert levels[-1] == 0
    assert all(before > after for before, after in itertools.pairwise(levels))
    assert len(levels) == 129


def test_the_published_sampler_churns_96_of_128_steps_and_asks_255_times() -> None:
    sampler = make_edm_sampler("edm_heun")
    churning = [gamma for gamma in sampler.gammas if gamma > 0]
    assert len(churning) == 96
    assert churning == [pytest.approx(math.sqrt(2) - 1)] * 96
    assert sampler.evaluations == 255
    calls: list[float] = []

    def counting(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return ideal(x, sigma)

    sampler.sample(counting, (3, 2), numpy_noise(rng(0), "cpu"))
    assert len(calls) == 255
    assert max(calls) == pytest.approx(80)  # above S_max nothing is raised
    assert make_edm_sampler("edm_heun", 400).gammas[100] == pytest.approx(0.2)  # S_churn / n where that is less


@pytest.mark.parametrize(("name", "steps"), [("edm_heun", 128), ("edm_heun_det", 32)])
def test_mean_and_covariance_of_a_gaussian_come_out(name: str, steps: int) -> None:
    sampler = make_edm_sampler(name)
    assert len(sampler.gammas) == steps
    x = sampler.sample(ideal, (40_000, 2), numpy_noise(rng(2), "cpu"))
    torch.testing.assert_close(x.mean(dim=0), MEAN, rtol=0.03, atol=0)
    torch.testing.assert_close(torch.cov(x.T), COVARIANCE, rtol=0.03, atol=0)


def test_the_deterministic_sampler_is_of_second_order() -> None:
    """The flow of a Gaussian is linear, its end known. Four times the steps leave an eighth of the error or less."""
    start = numpy_noise(rng(3), "cpu")((500, 2)) * 80
    values, vectors = torch.linalg.eigh(COVARIANCE.double())
    scale = vectors @ torch.diag((values / (values + 80**2)).sqrt()) @ vectors.T
    exact = MEAN + (start - MEAN).double() @ scale.T
    errors = []
    for steps in (10, 40, 160):
        sampler = make_edm_sampler("edm_heun_det", steps)
        x = sampler.sample(lambda x, s: ideal_double(x, s), (500, 2), lambda shape: start.double() / 80)
        errors.append(float((x - exact).abs().max()))
    assert errors[0] > 8 * errors[1] > 64 * errors[2]


def ideal_double(x: Tensor, sigma: float) -> Tensor:
    gain = COVARIANCE.double() @ torch.linalg.inv(COVARIANCE.double() + sigma**2 * torch.eye(2, dtype=torch.float64))
    return MEAN + (x - MEAN) @ gain.T


def test_one_point_is_found_again() -> None:
    point = torch.tensor([0.3, -2.0])
    x = make_edm_sampler("edm_heun", 16).sample(lambda x, s: point.expand_as(x), (5, 2), numpy_noise(rng(4), "cpu"))
    torch.testing.assert_close(x, point.expand(5, 2), rtol=0, atol=1e-5)


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="EDM sampler"):
        make_edm_sampler("ddpm")
    with pytest.raises(UsageError, match="sampling_steps=1, expected 2 or more"):
        make_edm_sampler("edm_heun", 1)
