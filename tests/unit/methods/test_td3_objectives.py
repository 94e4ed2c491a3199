"""Targets, actor losses, conservative gaps and action searches on numbers worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.networks.critics import TwinCritics, pushed_up
from methods.objectives.action_search import elite_search, softmax_search
from methods.objectives.conservative import gaussian_log_density, uniform_log_density
from methods.objectives.td3 import mixed_actor_loss, smoothed, td3_bc_loss, td3_target

Search = Callable[[Callable[[Tensor], Tensor], Tensor, Callable[[int], Tensor]], Tensor]


def test_a_target_takes_the_smaller_twin_and_stops_at_a_true_end() -> None:
    next_q = torch.tensor([[[2.0, 5.0]], [[3.0, 4.0]]])  # (2, G = 1, B = 2)
    found = td3_target(torch.tensor([[1.0, 1.0]]), torch.tensor([[False, True]]), next_q, 0.5)
    assert found.tolist() == [[2.0, 1.0]]  # 1 + 0.5 · 2, and the reward alone


def test_smoothing_clips_noise_and_action() -> None:
    assert smoothed(torch.tensor([0.9, -0.2]), torch.tensor([0.7, -0.1]), 0.5).tolist() == pytest.approx([1.0, -0.3])


def test_td3_bc_on_numbers() -> None:
    """|Q| has mean 2, so λ = 2.5 / 2; mean Q = 1; the penalty is (0.5² + 0 + 0 + 1²) / 4."""
    q = torch.tensor([[3.0, -1.0]])
    policy, data = torch.tensor([[[0.5, 0.0], [0.0, 1.0]]]), torch.zeros(1, 2, 2)
    assert float(td3_bc_loss(q, policy, data, 2.5)) == pytest.approx(0.3125 - 1.25)


def test_td3_bc_does_not_see_the_scale_of_q_and_is_cloning_without_it() -> None:
    draw = torch.Generator().manual_seed(0)
    q, policy, data = (torch.randn(shape, generator=draw) for shape in ((3, 8), (3, 8, 2), (3, 8, 2)))
    torch.testing.assert_close(td3_bc_loss(7 * q, policy, data, 2.5), td3_bc_loss(q, policy, data, 2.5))
    cloning = (policy - data).square().mean(dim=(1, 2))
    torch.testing.assert_close(td3_bc_loss(q, policy, data, 0.0), cloning)
    torch.testing.assert_close(td3_bc_loss(q.abs(), policy, policy, 2.5), torch.full((3,), -2.5))
    torch.testing.assert_close(td3_bc_loss(torch.zeros_like(q), policy, data, 2.5), cloning)  # λ is not infinite


def test_td3_bc_has_no_gradient_through_its_weight() -> None:
    q = torch.tensor([[1.0, 3.0]], requires_grad=True)
    td3_bc_loss(q, torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), 2.5).sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[-0.625, -0.625]]  # −λ / B = −(2.5 / 2) / 2


def test_the_mixed_loss_on_numbers() -> None:
    q, policy, target = torch.tensor([[2.0, 4.0]]), torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2, 1)
    assert float(mixed_actor_loss(q, policy, target, 0.7)) == pytest.approx(0.7 * 0.5 - 0.3 * 3.0)


def test_densities() -> None:
    assert uniform_log_density(2) == pytest.approx(-2 * math.log(2))
    peak = gaussian_log_density(torch.zeros(1, 1), 0.2)
    assert float(peak) == pytest.approx(0.6905, abs=1e-4)  # of one dimension
    noise = torch.tensor([[0.3, -0.1]])
    expected = torch.distributions.Normal(0.0, 0.2).log_prob(noise).sum(dim=-1)
    torch.testing.assert_close(gaussian_log_density(noise, 0.2), expected)


def test_the_push_of_a_constant_critic() -> None:
    """ln 10 + 2 ln 2 above its value, for each of the twins."""
    critics = TwinCritics((4, 2, 8), [np.random.default_rng(0)], copies=3)
    with torch.no_grad():
        for parameter in critics.parameters():
            parameter.zero_()
        list(critics.parameters())[-1].fill_(5.0)
    parameters, actions = list(critics.parameters()), torch.zeros(3, 6, 10, 2)
    pushed = pushed_up(parameters, torch.zeros(3, 6, 4), actions, torch.tensor(uniform_log_density(2)).view(1, 1, 1))
    torch.testing.assert_close(pushed, torch.full((3,), 2 * (5 + 3.688879)))


def noise_of(shape: tuple[int, ...], size: int) -> Callable[[int], Tensor]:
    draw = np.random.default_rng(0)
    return lambda k: torch.from_numpy(draw.standard_normal((*shape, k, size), dtype=np.float32))


def softmax(iterations: int = 3, samples: int = 10) -> Search:
    return lambda v, p, d: softmax_search(v, p, d, iterations=iterations, samples=samples, sigma=2.0)


def elites(iterations: int = 2, samples: int = 20) -> Search:
    return lambda v, p, d: elite_search(v, p, d, iterations=iterations, samples=samples, elites=5, sigma=2.0)


@pytest.mark.parametrize("search", [softmax(), elites()])
def test_what_a_search_finds_is_never_worse_than_the_policy(search: Search) -> None:
    weight = torch.randn(2, generator=torch.Generator().manual_seed(0))

    def values(actions: Tensor) -> Tensor:
        return torch.sin(5 * actions @ weight)

    policy = 2 * torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(1)) - 1
    found = search(values, policy, noise_of((3, 50), 2))
    better = values(found.unsqueeze(-2)) - values(policy.unsqueeze(-2))
    assert float(better.min()) >= 0
    assert float(better.max()) > 0
    assert float(found.abs().max()) <= 1


@pytest.mark.parametrize("search", [softmax(20, 256), elites(20, 256)])
def test_a_long_search_finds_the_optimum(search: Search) -> None:
    def values(actions: Tensor) -> Tensor:
        return -(actions[..., 0] - 0.3).square()

    found = search(values, torch.full((1, 20, 1), -1.0), noise_of((1, 20), 1))
    assert float((found - 0.3).abs().max()) < 0.1


def test_the_softmax_mean_is_the_arithmetic_one_of_equal_values_and_the_best_of_unequal_ones() -> None:
    """With one candidate far better, μ is that candidate; σ is then measured around it."""
    seen: list[Tensor] = []

    def level(actions: Tensor) -> Tensor:
        seen.append(actions)
        return torch.zeros(actions.shape[:-1])

    noise = torch.tensor([0.1, -0.2, 0.4]).view(1, 1, 3, 1)
    softmax_search(level, torch.zeros(1, 1, 1), lambda k: noise, iterations=2, samples=3, sigma=1.0)
    mean, spread = noise.mean(), noise.std(correction=0)
    torch.testing.assert_close(seen[1], mean + spread * noise)

    seen.clear()

    def steep(actions: Tensor) -> Tensor:
        seen.append(actions)
        return 1e3 * (actions[..., 0] == 0.4)

    softmax_search(steep, torch.zeros(1, 1, 1), lambda k: noise, iterations=2, samples=3, sigma=1.0)
    around = (noise - 0.4).square().mean().sqrt()
    torch.testing.assert_close(seen[1], 0.4 + around * noise)


def test_elites_join_the_next_pool() -> None:
    """Three candidates, two elites (0.4 and 0.1): μ = 0.25, σ = 0.3 / √2, and the last pool still holds 0.4."""
    draws = iter([torch.tensor([0.1, -0.2, 0.4]), torch.tensor([-1.0, -2.0, -3.0])])
    seen: list[Tensor] = []

    def values(actions: Tensor) -> Tensor:
        seen.append(actions)
        return actions[..., 0]

    found = elite_search(
        values,
        torch.full((1, 1, 1), -0.9),
        lambda k: next(draws).view(1, 1, 3, 1),
        iterations=2,
        samples=3,
        elites=2,
        sigma=1.0,
    )
    assert float(found) == pytest.approx(0.4)
    expected = (0.25 + 0.3 / 2**0.5 * torch.tensor([-1.0, -2.0, -3.0])).clamp(-1, 1)
    torch.testing.assert_close(seen[1].flatten(), expected)
