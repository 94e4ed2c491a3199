"""Losses of discrete critics and actors, and the policy that explores: numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.objectives.discrete_actor import (
    counterfactual_advantage,
    explored_log_softmax,
    imitation_loss,
    policy_gradient_loss,
)
from methods.objectives.discrete_critic import conservative_gap, twin_td_loss


def one_step(*values: Any) -> Tensor:
    """(1, 1, 1, ...): of one replica, time step, sequence."""
    return torch.tensor(values)[None, None]


def test_the_squared_errors_of_the_twins_are_summed_and_the_target_is_fixed() -> None:
    """One step, two agents: twin 1 (1² + 3²) / 2, twin 2 (0² + 2²) / 2, in sum 7; padding has no part, even as NaN."""
    recorded = torch.tensor([[[2.0, 5.0], [math.nan] * 2], [[1.0, 4.0], [math.nan] * 2]])
    recorded = recorded[:, None].requires_grad_()  # (2, 1, T = 2, N = 2)
    target = torch.tensor([[[1.0, 2.0], [math.nan] * 2]], requires_grad=True)
    loss = twin_td_loss(recorded, target, torch.tensor([[True, False]]))
    assert loss.tolist() == [7.0]
    loss.sum().backward()
    assert recorded.grad is not None
    assert recorded.grad[0, 0].tolist() == [[1.0, 3.0], [0.0, 0.0]]
    assert target.grad is None


def test_the_gap_of_constant_values_is_twice_the_logarithm_of_the_number_of_available_actions() -> None:
    q = torch.full((2, 1, 1, 1, 1, 4), -7.0)
    available, valid = one_step([[True, True, True, False]]), one_step(True)
    found = conservative_gap(q, q[..., 0], available, valid)
    assert float(found) == pytest.approx(2 * math.log(3))


def test_the_gap_on_numbers_is_masked_and_never_negative() -> None:
    """Twin 1: log(e^1 + e^2) − 2 = 0.313262, twin 2: log(e^0 + e^0) − 0 = 0.693147; padding has no part."""
    q = torch.tensor([[[1.0, 2.0, 9.0], [math.nan] * 3], [[0.0, 0.0, 9.0], [math.nan] * 3]])
    q = q[:, None, :, None, None]  # (2, 1, T = 2, 1, 1, 3)
    recorded = q[..., 1]
    available = torch.tensor([True, True, False]).expand(1, 2, 1, 1, 3)
    valid = torch.tensor([True, False]).view(1, 2, 1)
    assert float(conservative_gap(q, recorded, available, valid)) == pytest.approx(1.006409, abs=1e-6)
    draw = torch.Generator().manual_seed(0)
    values = 10 * torch.randn(2, 500, 1, 1, 2, 4, generator=draw)
    legal = torch.ones(500, 1, 1, 2, 4) > 0
    assert (conservative_gap(values, values[..., 3], legal, torch.ones(500, 1, 1) > 0) >= 0).all()


def test_an_advantage_is_over_what_the_policy_expects() -> None:
    """π = (¼, ¾): 4 − (¼ · 4 + ¾ · 2) = 1.5 and −0.5; its mean under π is 0."""
    q, log_p = torch.tensor([[4.0, 2.0]]), torch.tensor([[0.25, 0.75]]).log()
    assert counterfactual_advantage(q, torch.tensor([0]), log_p).tolist() == pytest.approx([1.5])
    assert counterfactual_advantage(q, torch.tensor([1]), log_p).tolist() == pytest.approx([-0.5])


def test_a_policy_that_explores_on_numbers() -> None:
    """π = (¼, ¾, 0) and two available actions: 0.6 π + 0.2; the third stays out, and so does ε = 0."""
    logits, available = torch.tensor([0.0, math.log(3), 50.0]), torch.tensor([True, True, False])
    assert explored_log_softmax(logits, available, 0.4).exp().tolist() == pytest.approx([0.35, 0.65, 0.0])
    assert explored_log_softmax(logits, available, 0.0).exp().tolist() == pytest.approx([0.25, 0.75, 0.0])


def test_an_action_that_is_unlikely_enough_is_pushed_no_further() -> None:
    """Q = (0, 1), the data hold the bad one, π_ε = (0.2, 0.8): A = −0.8, loss 0.8 log 0.2; with ε = 0 about −L."""
    loss = {}
    for exploration in (0.4, 0.0):
        logits = torch.tensor([-30.0, 0.0]).view(1, 1, 1, 1, 2).requires_grad_()
        q, actions = one_step([[0.0, 1.0]]), torch.zeros(1, 1, 1, 1, dtype=torch.int64)
        found = policy_gradient_loss(logits, q, actions, torch.ones_like(q) > 0, one_step(True), exploration)
        (slope,) = torch.autograd.grad(found.sum(), logits)
        loss[exploration] = found.item(), slope[..., 0].item()
    assert loss[0.4] == pytest.approx((0.8 * math.log(0.2), 0.0), abs=1e-5)
    assert loss[0.0] == pytest.approx((-30.0, 1.0), abs=1e-5)


def test_the_policy_gradient_on_numbers() -> None:
    """π = (½, ½, 0), A = 4 − 3 = 1: loss −log ½, gradient −A (1h − π). What is unavailable or padding has no part."""
    logits = torch.zeros(1, 2, 1, 1, 3, requires_grad=True)
    q = torch.tensor([[4.0, 2.0, 100.0], [math.nan] * 3]).view(1, 2, 1, 1, 3).requires_grad_()
    available = torch.tensor([[True, True, False], [False] * 3]).view(1, 2, 1, 1, 3)
    valid, actions = torch.tensor([True, False]).view(1, 2, 1), torch.zeros(1, 2, 1, 1, dtype=torch.int64)
    loss = policy_gradient_loss(logits, q, actions, available, valid, 0.0)
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].flatten().tolist() == [-0.5, 0.5, 0.0]
    assert logits.grad[0, 1].flatten().tolist() == [0.0, 0.0, 0.0]
    assert q.grad is None


def test_imitation_on_numbers() -> None:
    """The best available action is the first, and π = (¼, ¾, 0): log 4."""
    logits, q = one_step([[0.0, math.log(3), 50.0]]), one_step([[4.0, 2.0, 100.0]])
    found = imitation_loss(logits, q, one_step([[True, True, False]]), one_step(True))
    assert float(found) == pytest.approx(math.log(4))
