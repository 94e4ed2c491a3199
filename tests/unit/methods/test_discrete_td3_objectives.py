"""Actions sampled with Gumbel noise and the actor's losses of discrete TD3+BC: numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.objectives.discrete_td3 import mixed_actor_loss, normalised_actor_loss
from methods.objectives.gumbel import gumbel, straight_through


def test_gumbel_values_on_numbers() -> None:
    """−log E: of 1 it is 0, of 1/e it is 1; a draw of 0 is no infinity."""
    found = gumbel(torch.tensor([1.0, math.exp(-1), 0.0]))
    assert found[:2].tolist() == pytest.approx([0.0, 1.0])
    assert torch.isfinite(found).all()


def test_a_sampled_action_is_one_hot_and_has_the_gradient_of_the_softmax() -> None:
    """ℓ + g = (0, ln 3, 9, 0) without the third: p = (1, 3, 0, 1) / 5, so ∂p_1/∂ℓ = 3/5 (−1/5, 2/5, 0, −1/5)."""
    logits = torch.tensor([0.0, math.log(3.0) - 1, 5.0, 2.0], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.0, 1.0, 4.0, -2.0], dtype=torch.float64)
    found = straight_through(logits, torch.tensor([True, True, False, True]), noise)
    assert found.tolist() == [0.0, 1.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(found[1], logits)
    assert gradient.tolist() == pytest.approx([-3 / 25, 6 / 25, 0.0, -3 / 25])


def test_draws_follow_the_categorical_over_available_actions() -> None:
    logits, available = torch.tensor([1.0, 0.0, 3.0, -1.0]), torch.tensor([True, True, False, True])
    noise = gumbel(torch.from_numpy(np.random.default_rng(0).standard_exponential((20_000, 4), dtype=np.float32)))
    found = straight_through(logits.expand(20_000, 4), available.expand(20_000, 4), noise).mean(dim=0)
    expected = logits.masked_fill(~available, -math.inf).softmax(-1)
    assert float((found - expected).abs().max()) < 0.02
    assert found[2] == 0


def test_the_actors_losses_on_numbers() -> None:
    """Q = (1, −3) and (2, −2) of two agents at two steps, the third is padding: ⟨|Q|⟩ = 2 and ⟨Q⟩ = −1/2."""
    q = torch.tensor([[[1.0, -3.0], [2.0, -2.0], [math.nan, 9.0]]], requires_grad=True)
    valid, cloning = torch.tensor([[True, True, False]]), torch.tensor([0.75])
    assert normalised_actor_loss(q, cloning, valid, 3.0).tolist() == [0.75 + 3.0 / 2 * 0.5]
    assert mixed_actor_loss(q, cloning, valid, 0.75).tolist() == [0.75 * 0.75 + 0.25 * 0.5]
    (gradient,) = torch.autograd.grad(normalised_actor_loss(q, cloning, valid, 3.0).sum(), q)
    assert gradient[0].tolist() == [[-0.375, -0.375], [-0.375, -0.375], [0.0, 0.0]]  # none through λ


def test_the_scale_of_values_does_not_matter_and_positive_ones_weigh_alpha() -> None:
    q, valid = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.1, torch.ones(2, 4) > 0
    cloning = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(normalised_actor_loss(q, cloning, valid, 2.5), cloning - 2.5)
    torch.testing.assert_close(
        normalised_actor_loss(q - 0.4, cloning, valid, 2.5), normalised_actor_loss(7 * (q - 0.4), cloning, valid, 2.5)
    )
    nothing = torch.zeros_like(q)
    assert normalised_actor_loss(nothing, cloning, valid, 2.5).tolist() == cloning.tolist()
