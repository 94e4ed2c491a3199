"""Path-integrated gradients against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from methods.synthesis.credit import (
    automatic_rank_threshold,
    integrated_gradients,
    mean_ranks,
    path_credit,
    pointwise_credit,
    underperformers,
)


def network(seed: int, activation: type[torch.nn.Module], features: int) -> torch.nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers = [
        torch.nn.Linear(features, 64),
        activation(),
        torch.nn.Linear(64, 64),
        activation(),
        torch.nn.Linear(64, 1),
    ]
    for layer in layers:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            torch.nn.init.normal_(layer.bias, std=0.1, generator=generator)
    return torch.nn.Sequential(*layers).requires_grad_(False)


def completeness(activation: type[torch.nn.Module], steps: int) -> float:
    """Largest |Σ_i C_i(k) − (F(x_k) − F(x_{v−1}))| over a few segments whose last point is 5."""
    net = network(0, activation, 3 * 4)

    def function(points: Tensor) -> Tensor:
        return net(points.flatten(-2)).squeeze(-1)

    points = torch.randn(5, 7, 3, 4, generator=torch.Generator().manual_seed(1)).mul(0.1).cumsum(1)
    credit = path_credit(function, points, torch.full((5,), 6), steps)  # (5, 7, 3)
    assert not credit[:, 5:].any()
    wanted = (function(points) - function(points[:, 5:6]))[:, :6]
    return float((credit[:, :6].sum(-1) - wanted).abs().max())


def test_contributions_sum_to_the_difference_of_the_function() -> None:
    assert completeness(torch.nn.Tanh, 10) < 1e-3
    coarse, fine = completeness(torch.nn.ReLU, 10), completeness(torch.nn.ReLU, 256)
    assert fine < 5e-3
    assert fine < coarse


def test_midpoints_of_a_square() -> None:
    """F = x², from 1 to 3 with one midpoint: 2 · (2 · 2) = 8, exact for a quadratic; with x³ one midpoint gives 24."""
    point, base = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 1.0)
    assert integrated_gradients(lambda x: (x**2).sum((-1, -2)), point, base, 1).item() == 8.0
    assert integrated_gradients(lambda x: (x**3).sum((-1, -2)), point, base, 1).item() == 24.0
    # two midpoints, 1.5 and 2.5: 2 · (3 · 2.25 + 3 · 6.25) / 2 = 25.5, of the exact 26
    assert integrated_gradients(lambda x: (x**3).sum((-1, -2)), point, base, 2).item() == 25.5


def test_only_pairs_of_valid_points_count() -> None:
    """F = sum of all; agent 0 walks 0, 1, 3, 6; with three valid points its credits are -3, -2, 0."""
    points = torch.tensor([0.0, 1.0, 3.0, 6.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 1).clone()
    points[:, :, 1] *= -1
    credit = path_credit(lambda x: x.sum((-1, -2)), points, torch.tensor([3]), 4)
    assert credit[0, :, 0].tolist() == [-3.0, -2.0, 0.0, 0.0]
    assert credit[0, :, 1].tolist() == [3.0, 2.0, 0.0, 0.0]


def test_return_to_go_credits_who_improves_and_the_reward_blames_him() -> None:
    """Agent A walks from distance 1 to 0.2 in eight steps, B stays at 1; the reward is −Σ d.

    The return-to-go of the rest of the segment is −Σ of what is still to come: for A it rises from −4.2 to −0.2,
    for B from −7 to −1, so that A keeps −4.0 and B −6.0.
    """
    distance = torch.stack([torch.linspace(1.0, 0.2, 7), torch.ones(7)], dim=-1)  # (V, N)
    to_go = -distance.flip(0).cumsum(0).flip(0)  # (V, N), undiscounted, per agent
    points = torch.stack([distance, to_go], dim=-1).unsqueeze(0)  # (1, V, N, 2)
    valid = torch.tensor([7])
    rtg = path_credit(lambda x: x[..., 1].sum(-1), points, valid, 10)
    reward = path_credit(lambda x: -x[..., 0].sum(-1), points, valid, 10)
    torch.testing.assert_close(rtg[0, 0], torch.tensor([-4.0, -6.0]))
    torch.testing.assert_close(reward[0, 0], torch.tensor([-0.8, 0.0]))
    assert (rtg[0, :6, 0] > rtg[0, :6, 1]).all()
    assert mean_ranks(rtg, valid).tolist() == [[2.0, 1.0]]
    assert mean_ranks(reward, valid).tolist() == [[1.0, 2.0]]
    assert underperformers(rtg, valid, 1.5).tolist() == [[False, True]]


def test_pointwise_credit_is_taken_against_one_baseline() -> None:
    points = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    credit = pointwise_credit(lambda x: x.sum((-1, -2)), points, torch.tensor([2]), torch.tensor([[0.5]]), 3)
    assert credit[0, :, 0].tolist() == [2.0, 1.5, 0.0]


def test_ranks_average_ties_as_scipy_does() -> None:
    credit = torch.tensor([[[3.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0], [9.0, 8.0, 7.0, 6.0]]])
    assert mean_ranks(credit, torch.tensor([2])).tolist() == [rankdata([3, 1, 1, 2]).tolist()]
    assert mean_ranks(credit, torch.tensor([3])).tolist() == [[3.25, 2.0, 2.0, 2.75]]
    assert not underperformers(credit, torch.tensor([1]), 99.0).any()  # one point has no pair


def test_segments_do_not_depend_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(6, 5, 2, 3, generator=generator)
    valid = torch.tensor([1, 2, 3, 4, 5, 5])
    net = network(2, torch.nn.Tanh, 6)
    together = path_credit(lambda x: net(x.flatten(-2)).squeeze(-1), points, valid, 4)
    alone = [
        path_credit(lambda x: net(x.flatten(-2)).squeeze(-1), points[i : i + 1], valid[i : i + 1], 4) for i in range(6)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_the_automatic_threshold_is_the_papers_for_three_agents() -> None:
    assert automatic_rank_threshold(3) == np.float64(2.33)
