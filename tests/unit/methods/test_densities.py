"""Densities of continuous policies against torch's distributions, and what they make of actions on their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.learners.omiga.config import OMIGAConfig
from methods.objectives.densities import centred_gaussian, drawn_actions, log_density, tanh_gaussian
from tasks.registry import make_task


def test_a_squashed_gaussian_integrates_to_one() -> None:
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1, None]
    raw = torch.tensor([0.3, -0.4], dtype=torch.float64).expand(len(grid), 2)
    density = tanh_gaussian(raw, grid).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=1e-3)
    normal = torch.distributions.Normal(raw[:, 0], raw[:, 1].exp())
    reference = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform()])
    torch.testing.assert_close(density.log(), reference.log_prob(grid[:, 0]))
    assert torch.isfinite(tanh_gaussian(torch.zeros(1, 2), torch.ones(1, 1))).all()  # a at its bound


def test_a_centred_gaussian_stands_around_the_bounded_mean() -> None:
    raw, actions = torch.tensor([[0.5, -2.0, 0.0, 30.0]]), torch.tensor([[0.4, -1.0]])
    first = torch.distributions.Normal(math.tanh(0.5), math.exp(-3.0)).log_prob(torch.tensor(0.4))
    second = torch.distributions.Normal(math.tanh(-2.0), 1.0).log_prob(torch.tensor(-1.0))  # η → ∞: σ = 1
    assert float(centred_gaussian(raw, actions)) == pytest.approx(float(first + second), rel=1e-5)
    assert float(log_density("centred", raw, actions)) == float(centred_gaussian(raw, actions))
    assert float(log_density("squashed", raw, actions)) == float(tanh_gaussian(raw, actions))


def test_draws_by_hand() -> None:
    raw, noise = torch.tensor([[0.5, -2.0, math.log(0.1), -50.0]]), torch.tensor([[2.0, -3.0]])
    low = math.exp(-5.0)  # the smallest deviation
    expected = [math.tanh(0.5 + 0.1 * 2.0), math.tanh(-2.0 - low * 3.0)]
    assert drawn_actions("squashed", raw, noise)[0].tolist() == pytest.approx(expected, rel=1e-5)
    raw = torch.tensor([[0.5, -2.0, 0.0, 30.0]])  # σ = e^−3 and 1
    expected = [math.tanh(0.5) + math.exp(-3.0) * 2.0, -1.0]  # the second would be −3.96, beyond its bound
    assert drawn_actions("centred", raw, noise)[0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("density", "mode"), [("centred", 0.16), ("squashed", 0.7)])
def test_a_few_actions_on_the_bound_move_a_squashed_mean_and_hardly_a_centred_one(density: str, mode: float) -> None:
    """Nine in ten actions near 0.1, one in ten at 1: the best greedy action of each density."""
    near = 0.1 + 0.02 * torch.from_numpy(np.random.default_rng(0).standard_normal((90, 1))).float()
    actions = torch.cat([near, torch.ones(10, 1)])
    raw = torch.zeros(1, 2, requires_grad=True)
    adam = torch.optim.Adam([raw], lr=0.05)
    for _ in range(600):
        adam.zero_grad()
        (-log_density(density, raw.expand(100, 2), actions).mean()).backward()  # type: ignore[no-untyped-call]
        adam.step()
    assert float(raw.detach()[0, 0].tanh()) == pytest.approx(mode, abs=0.06)


def test_the_density_of_omiga_follows_the_family_unless_set() -> None:
    spread, ant = make_task("mpe/spread").spec, make_task("mamujoco/4ant").spec
    assert [OMIGAConfig().density_of(spec) for spec in (spread, ant)] == ["centred", "squashed"]
    assert OMIGAConfig(density="squashed").density_of(spread) == "squashed"
