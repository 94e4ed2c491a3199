"""The equations of CFCQL, on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.networks.mixers import MixingNet
from methods.objectives import counterfactual
from methods.objectives.behaviour_vae import importance_log_likelihood, importance_log_weight
from methods.objectives.conservative import uniform_log_density
from methods.objectives.counterfactual import (
    counterfactual_actions,
    counterfactual_actor_loss,
    counterfactual_gap,
    counterfactual_totals,
    distance_from_behaviour,
    divergence_weights,
    weighted_push,
)

# -- continuous actions -----------------------------------------------------------------------------------------------


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


# -- discrete actions -------------------------------------------------------------------------------------------------


def test_the_team_is_mixed_again_with_one_agent_in_another_action() -> None:
    """q = (1, 3): h = 1 + 2 · 3 − 1 = 6 and 3 · 6 + 0.5; with q_0 = 2 h = 7, with q_1 = 0 h = 0."""
    net = MixingNet(
        first=torch.tensor([[[[1.0], [2.0]]]]),
        first_bias=torch.tensor([[[-1.0]]]),
        second=torch.tensor([[[3.0]]]),
        second_bias=torch.tensor([[0.5]]),
    )
    q = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]]]])
    found = counterfactual_totals(net, q, torch.tensor([[[0, 1]]]))
    assert found.tolist() == [[[[18.5, 21.5], [0.5, 18.5]]]]


def random_team(steps: tuple[int, ...], n: int, a: int, embed: int) -> tuple[MixingNet, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*steps, *shape, generator=draw, dtype=torch.float64).requires_grad_()

    net = MixingNet(numbers(n, embed), numbers(embed), numbers(embed), numbers())
    return net, numbers(n, a), torch.randint(a, (*steps, n), generator=draw)


@pytest.mark.parametrize("hidden_values", [2**25, 500, 1])
def test_counterfactual_totals_equal_mixes_one_by_one(hidden_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole, by slices of several steps whose last is shorter, and step by step."""
    net, q, recorded = random_team((2, 3, 5), n=3, a=4, embed=6)
    monkeypatch.setattr(counterfactual, "_HIDDEN_VALUES", hidden_values)
    found = counterfactual_totals(net, q, recorded)
    own = q.gather(-1, recorded.unsqueeze(-1)).squeeze(-1)
    slow = []
    for i in range(3):
        for a in range(4):
            values = torch.stack([q[..., i, a] if j == i else own[..., j] for j in range(3)], dim=-1)
            slow.append(net.total(values))
    expected = torch.stack(slow, dim=-1).view(q.shape)
    torch.testing.assert_close(found, expected)
    push = torch.randn(q.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine, plain = (torch.autograd.grad((x * push).sum(), [q, *net]) for x in (found, expected))
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_the_distance_from_the_behaviour_on_numbers() -> None:
    """μ = (3/4, 1/4), β = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2 = 0.130812; what is unavailable has no part."""
    totals = torch.tensor([[math.log(3.0), 0.0, 1e4], [5.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    behaviour = torch.tensor([[1.0, 1.0, 9.0], [0.0, 3.0, 3.0], [3.0, 2.0, 1.0]])
    available = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    assert distance_from_behaviour(totals, behaviour, available).tolist() == pytest.approx([0.130812, 0, 0], abs=1e-5)


def test_what_the_behaviour_never_does_is_far_but_not_infinitely() -> None:
    """μ is sure of the first action, β of the second: (1 + ε) ln ((1 + ε) / ε) + ε ln (ε / (1 + ε)) = 11.5129."""
    totals, behaviour = torch.tensor([[1e3, 0.0]]), torch.tensor([[0.0, 1e3]])
    found = distance_from_behaviour(totals, behaviour, torch.ones(1, 2) > 0)
    assert float(found) == pytest.approx(11.5129, abs=1e-3)


def test_agents_alike_have_the_same_weight_and_one_far_from_the_data_more() -> None:
    """Two agents of a sum, with the same values, actions, masks and behaviour; then the second one's data change."""
    net = MixingNet(
        torch.ones(1, 1, 2, 1), torch.full((1, 1, 1), 100.0), torch.ones(1, 1, 1), torch.full((1, 1), -100.0)
    )
    q = torch.tensor([0.0, 1.0, 2.0]).expand(1, 1, 2, 3)
    totals = counterfactual_totals(net, q, torch.full((1, 1, 2), 2))
    torch.testing.assert_close(totals, q + 2.0)
    behaviour, every = q.clone(), torch.ones(1, 1, 2, 3) > 0
    weights = divergence_weights(distance_from_behaviour(totals, behaviour, every), 5.0)
    assert weights.tolist() == [[[0.5, 0.5]]]
    behaviour[..., 1, :] = torch.tensor([2.0, 1.0, 0.0])
    weights = divergence_weights(distance_from_behaviour(totals, behaviour, every), 5.0)
    assert float(weights[0, 0, 1]) > 0.9


def test_the_gap_of_a_constant_value_is_the_logarithm_of_the_number_of_available_actions() -> None:
    totals = torch.full((1, 4, 2, 5), -3.0)
    available = torch.tensor([True, True, False, True, False]).expand(1, 4, 2, 5)
    totals = torch.where(available, totals, torch.nan)
    weights = torch.tensor([0.3, 0.7]).expand(1, 4, 2)
    found = counterfactual_gap(totals, available, torch.full((1, 4), -3.0), weights, torch.ones(1, 4) > 0)
    assert float(found) == pytest.approx(math.log(3.0), abs=1e-5)


def test_the_gap_weighs_agents_on_numbers_and_forgets_padding() -> None:
    """0.25 ln (e^0 + e^1) + 0.75 ln (e^0 + e^2) − 1 = 0.923511; no gradient from padding, whatever is there."""
    totals = torch.tensor([[[[0.0, 1.0], [0.0, 2.0]], [[math.nan, 1.0], [2.0, 3.0]]]], requires_grad=True)
    available = torch.tensor([[[[True, True]] * 2, [[False, False]] * 2]])
    recorded, valid = torch.tensor([[1.0, math.nan]]), torch.tensor([[True, False]])
    weights = torch.tensor([0.25, 0.75]).expand(1, 2, 2)
    found = counterfactual_gap(totals, available, recorded, weights, valid)
    assert float(found.detach()) == pytest.approx(0.923511, abs=1e-5)
    found.sum().backward()
    assert totals.grad is not None
    assert totals.grad[0, 0, 0].tolist() == pytest.approx([0.25 / (1 + math.e), 0.25 * math.e / (1 + math.e)])
    assert not totals.grad[0, 1].any()


def test_the_gap_is_never_negative() -> None:
    net, q, recorded = random_team((50, 4), n=3, a=4, embed=5)
    net = net._replace(first=net.first.abs(), second=net.second.abs())
    totals, of_data = counterfactual_totals(net, 5 * q, recorded), 5 * q.gather(-1, recorded.unsqueeze(-1)).squeeze(-1)
    available = torch.rand(q.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    available.scatter_(-1, recorded.unsqueeze(-1), True)
    weights = torch.rand(50, 4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    valid = torch.ones(50, 4, dtype=torch.bool)
    gap = counterfactual_gap(totals, available, net.total(of_data), weights, valid)
    assert (gap > -1e-9).all()
