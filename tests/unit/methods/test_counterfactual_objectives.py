"""The equations of CFCQL for continuous actions, on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from methods.objectives.behaviour_vae import importance_log_likelihood, importance_log_weight
from methods.objectives.conservative import uniform_log_density
from methods.objectives.counterfactual import (
    counterfactual_actions,
    counterfactual_actor_loss,
    divergence_weights,
    weighted_push,
)


def test_one_agent_deviates_at_a_time() -> None:
    """Two agents with one-dimensional actions 1 and 2, and two candidates each."""
    candidates = torch.tensor([[[-1.0], [-2.0]], [[-3.0], [-4.0]]])  # (N, K, A)
    found = counterfactual_actions(torch.tensor([[1.0], [2.0]]), candidates)
    assert found.tolist() == [[[-1.0, 2.0], [-2.0, 2.0]], [[1.0, -3.0], [1.0, -4.0]]]


def test_the_push_of_a_constant_value() -> None:
    """Ten uniform candidates of two dimensions: ln 10 + 2 ln 2 above the value, for each twin, whatever the weights."""
    q = torch.full((2, 5, 3, 10), 7.0)
    weights = torch.tensor([0.2, 0.3, 0.5]).expand(5, 3)
    assert float(weighted_push(q, uniform_log_density(2), weights)) - 14 == pytest.approx(2 * 3.688879, abs=1e-4)


def test_the_push_weighs_agents_on_numbers() -> None:
    """One candidate each, of log density −1: (3 + 1) / 4 + 3 (5 + 1) / 4 for one twin, 1/4 + 3/4 for the other."""
    q = torch.stack([torch.tensor([[[3.0], [5.0]]]), torch.zeros(1, 2, 1)])  # (2, B = 1, N = 2, K = 1)
    assert float(weighted_push(q, -1.0, torch.tensor([[0.25, 0.75]]))) == pytest.approx(5.5 + 1.0)


def test_weights_follow_the_distance_from_the_behaviour() -> None:
    ratio = torch.tensor([[0.0, math.log(3.0)], [4.0, 4.0]])
    assert divergence_weights(ratio, 1.0).tolist() == [pytest.approx([0.25, 0.75]), [0.5, 0.5]]
    assert divergence_weights(ratio, -1.0).tolist() == [pytest.approx([0.75, 0.25]), [0.5, 0.5]]
    assert divergence_weights(ratio, 0.0).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_the_actor_loss_on_numbers() -> None:
    """Mean Q is 2.5; the outputs' squares are 1 on average for agent 0 and 4 for agent 1."""
    q, policy = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[[1.0], [2.0]], [[-1.0], [-2.0]]])
    assert float(counterfactual_actor_loss(q, policy, 0.1)) == pytest.approx(0.1 * 5 - 2.5)


def test_the_importance_estimate_on_numbers() -> None:
    """Two draws: densities N(e; 0, 1) of errors 0 and 1, weights 1 and 3, for the only agent."""
    errors, weights = torch.tensor([[[0.0]], [[1.0]]]), torch.tensor([0.0, math.log(3.0)])  # (L, N, A), (L,)
    peak = 1 / math.sqrt(2 * math.pi)
    expected = math.log((peak + 3 * peak * math.exp(-0.5)) / 2)
    assert float(importance_log_likelihood(errors, weights, 1.0)) == pytest.approx(expected)


def test_importance_weights_compare_prior_and_posterior() -> None:
    mean, std, noise = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0]), torch.tensor([1.5, -0.2])
    z = mean + std * noise
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
    posterior = torch.distributions.Normal(mean, std).log_prob(z).sum()
    torch.testing.assert_close(importance_log_weight(z, noise, std.log()), prior - posterior)
