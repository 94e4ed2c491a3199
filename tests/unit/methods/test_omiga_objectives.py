"""OMIGA's targets, losses, densities and mixer on numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.networks.mixers import LinearMixer
from methods.objectives.omiga import (
    Mixture,
    policy_loss,
    q_loss,
    q_target,
    scaled_advantage,
    value_loss,
)


def test_a_target_mixes_the_next_values_and_stops_at_a_true_end() -> None:
    mixture = Mixture(torch.tensor([[[1.0, 2.0]] * 2]), torch.tensor([[0.5, 0.5]]))
    values = torch.tensor([[[3.0, 4.0]] * 2])  # 1 · 3 + 2 · 4 + 0.5 = 11.5
    found = q_target(torch.tensor([[1.0, 1.0]]), torch.tensor([[False, True]]), values, mixture, 0.9)
    assert found.tolist() == [[pytest.approx(11.35), 1.0]]


def test_the_advantage_is_scaled_and_clipped() -> None:
    q, v, w = torch.tensor([5.0, 200.0, -200.0]), torch.zeros(3), torch.tensor([2.0, 1.0, 1.0])
    assert scaled_advantage(q, v, w, 10.0).tolist() == [1.0, 10.0, -10.0]


def test_a_q_loss_is_the_mean_square_over_valid_steps() -> None:
    """(1² + 3²) / 2; padding has no part, not even as NaN, and no gradient."""
    total = torch.tensor([[[1.0, 5.0, math.nan]]], requires_grad=True)
    loss = q_loss(total, torch.tensor([[[2.0, 2.0, math.nan]]]), torch.tensor([[[True, True, False]]]))
    assert loss.tolist() == [5.0]
    loss.sum().backward()
    assert total.grad is not None
    assert total.grad.tolist() == [[[-1.0, 3.0, 0.0]]]


ONE = torch.ones(1, 1, 1) > 0  # (R, T, B)


def test_the_value_loss_on_numbers() -> None:
    """M = max(−1, 0.5) = 0.5; each term exp(z − M) + exp(−M) w V / α."""
    z, v, w = torch.tensor([[[[0.5, -2.0]]]]), torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 1.0]]]])
    expected = (1 + math.exp(-0.5) * 0.2 + math.exp(-2.5) + math.exp(-0.5) * 0.3) / 2
    assert float(value_loss(z, v, w, 10.0, ONE)) == pytest.approx(expected)
    low = torch.tensor([[[[-3.0, -4.0]]]])  # M = −1, not −3
    expected = (math.exp(-2) + math.e * 0.2 + math.exp(-3) + math.e * 0.3) / 2
    assert float(value_loss(low, v, w, 10.0, ONE)) == pytest.approx(expected)


def test_padding_has_no_part_in_the_value_loss_nor_in_its_maximum() -> None:
    z, v, w = torch.tensor([[0.5, -2.0], [9.0, 4.0]]), torch.tensor([[1.0, 3.0], [50.0, 7.0]]), torch.ones(2, 2)
    whole = [x.view(1, 2, 1, 2) for x in (z, v, w)]  # two steps of one episode
    first = [x[:, :1] for x in whole]
    valid = torch.tensor([True, False]).view(1, 2, 1)
    torch.testing.assert_close(value_loss(*whole, 10.0, valid), value_loss(*first, 10.0, ONE))
    torch.testing.assert_close(policy_loss(whole[0], whole[1], valid), policy_loss(first[0], first[1], ONE))
    assert not torch.allclose(value_loss(*whole, 10.0, valid | True), value_loss(*first, 10.0, ONE))


def test_a_maximum_is_that_of_the_replica_alone() -> None:
    z = torch.tensor([[[[0.5]]], [[[math.nan]]], [[[3.0]]]])
    v = w = torch.ones(3, 1, 1, 1)
    found = value_loss(z, v, w, 10.0, torch.ones(3, 1, 1) > 0)
    assert found[0] == pytest.approx(1 + math.exp(-0.5) * 0.1)
    assert found[2] == pytest.approx(1 + math.exp(-3.0) * 0.1)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(2.0, math.log((math.exp(0.5) + math.exp(1.5)) / 2) * 2), (1e3, 2.0), (0.05, 3.0)],
    ids=["log-mean-exp", "mean", "maximum"],
)
def test_the_best_value_is_a_soft_maximum(alpha: float, expected: float) -> None:
    """Of Q = 1 and 3 with w = 1: α ln mean exp(Q / α), the mean for large and nearly the maximum for small α."""
    q, valid = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 1, 2, 1), torch.ones(1, 1, 2) > 0
    grid = torch.linspace(0.5, 3.2, 541, dtype=torch.float64)
    losses = []
    for v in grid:
        level = torch.full_like(q, float(v))
        z = (q - level) / alpha
        losses.append(float((z.exp() + level / alpha).mean()))  # as `value_loss` with M = 0
        if abs(float(z.max())) < 10:
            largest, one = max(-1.0, float(z.max())), torch.ones_like(q)
            mine = value_loss(scaled_advantage(q, level, one, alpha), level, one, alpha, valid)
            assert float(mine) == pytest.approx(losses[-1] * math.exp(-largest))
    assert float(grid[int(np.argmin(losses))]) == pytest.approx(expected, abs=0.05)


def test_the_policy_loss_is_cloning_where_nothing_is_better_and_has_no_gradient_to_z() -> None:
    log_p = torch.tensor([[[[-1.0, -3.0]]]])
    assert float(policy_loss(torch.zeros(1, 1, 1, 2), log_p, ONE)) == pytest.approx(2.0)
    z = torch.tensor([[[[math.log(2.0), 0.0]]]], requires_grad=True)
    loss = policy_loss(z, log_p, ONE)
    assert float(loss) == pytest.approx((2 * 1 + 3) / 2)
    assert not loss.requires_grad


@pytest.mark.parametrize("relu", [True, False])
def test_mixer_weights_are_never_negative_and_are_the_slopes_of_the_total(relu: bool) -> None:
    mixer = LinearMixer(4, 8, 3, [np.random.default_rng(0)], relu=relu)
    states = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    mixture, values = Mixture(*mixer(states)), torch.randn(1, 50, 3, requires_grad=True)
    assert float(mixture.weights.detach().min()) >= 0
    (slopes,) = torch.autograd.grad(mixture.total(values).sum(), values)
    torch.testing.assert_close(slopes, mixture.weights)
