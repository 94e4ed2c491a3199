"""Targets, penalties, filters and mixers of Q-learning teams: numbers worked by hand, and properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from methods.networks.mixers import MixingNet, QMixer
from methods.objectives.q_learning import joint_conservative_gap, likely_actions, random_actions, td_loss, td_target


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(2)]


# -- equations --------------------------------------------------------------------------------------------------------


def test_a_target_bootstraps_except_behind_a_true_end() -> None:
    """1 + 0.9 · 10 = 10; at a terminal the reward alone, even where the next value is not a number."""
    reward, terminal = torch.tensor([1.0, 1.0]), torch.tensor([False, True])
    assert td_target(reward, terminal, torch.tensor([10.0, math.nan]), 0.9).tolist() == [10.0, 1.0]


def test_the_td_loss_is_half_the_mean_square_over_valid_steps() -> None:
    """½ (1² + 3²) / 2 = 2.5; padding has no part, not even as NaN, and no gradient."""
    total = torch.tensor([[1.0, 5.0, math.nan]], requires_grad=True)
    target = torch.tensor([[2.0, 2.0, 7.0]], requires_grad=True)
    loss = td_loss(total, target, torch.tensor([[True, True, False]]))
    assert loss.tolist() == [2.5]
    loss.sum().backward()
    assert total.grad is not None
    assert total.grad[0, :2].tolist() == [-0.5, 1.5]
    assert target.grad is None


@pytest.mark.parametrize(("k", "expected"), [(20, 3.044522), (10, 2.397895)])
def test_the_penalty_of_a_constant_value_is_the_logarithm_of_k_plus_one(k: int, expected: float) -> None:
    constant = torch.full((1, 2, 3), -7.0)
    found = joint_conservative_gap(constant.unsqueeze(-1).expand(1, 2, 3, k), constant, torch.ones(1, 2, 3) > 0)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_the_penalty_on_numbers_is_masked_and_never_negative() -> None:
    """log(e^1 + e^2 + e^0) − 0 = 2.407606 at the one valid step."""
    sampled, recorded = torch.tensor([[[1.0, 2.0], [math.inf, 0.0]]]), torch.tensor([[0.0, 1.0]])
    found = joint_conservative_gap(sampled, recorded, torch.tensor([[True, False]]))
    assert float(found) == pytest.approx(2.407606, abs=1e-5)
    draw = torch.Generator().manual_seed(0)
    values, own = 10 * torch.randn(500, 1, 6, generator=draw), 10 * torch.randn(500, 1, generator=draw)
    assert (joint_conservative_gap(values, own, torch.ones(500, 1) > 0) >= 0).all()


def test_a_random_action_is_the_n_th_available_one() -> None:
    """Of actions 1 and 3: 0.49 · 2 -> the first, 0.5 · 2 -> the second; of the action 2 alone always that one."""
    available = torch.tensor([[False, True, False, True], [False, False, True, False]])
    uniform = torch.tensor([[0.0, 0.49, 0.5, 0.99999994], [0.0, 0.3, 0.7, 0.99999994]])
    assert random_actions(uniform, available).tolist() == [[1, 1, 3, 3], [2, 2, 2, 2]]


def test_random_actions_are_legal_and_uniform() -> None:
    rng = np.random.default_rng(0)
    available = torch.from_numpy(rng.random((50, 9)) < 0.4)
    available[:, 0] = True
    uniform = torch.from_numpy(rng.random((50, 20_000), dtype=np.float32))
    drawn = random_actions(uniform, available)
    assert available.gather(-1, drawn).all()
    counts = torch.stack([(drawn == a).sum(-1) for a in range(9)], dim=-1) / 20_000  # (50, 9)
    expected = available / available.sum(-1, keepdim=True)
    assert float((counts - expected).abs().max()) < 0.02


def test_the_filter_on_numbers() -> None:
    """p = (0.5, 0.2, 0.05, 0.25) of all; without the first 0.25 is the largest, and 0.2 / 0.25 = 0.8."""
    logits = torch.tensor([0.5, 0.2, 0.05, 0.25]).log()
    every, some = torch.tensor([True] * 4), torch.tensor([False, True, True, True])
    assert likely_actions(logits, every, 0.39).tolist() == [True, True, False, True]
    assert likely_actions(logits, every, 0.41).tolist() == [True, False, False, True]
    assert likely_actions(logits, some, 0.41).tolist() == [False, True, False, True]
    assert likely_actions(logits, some, 0.0).tolist() == some.tolist()
    assert likely_actions(logits, some, 1.0).tolist() == [False, False, False, True]


def test_the_filter_always_leaves_an_available_action() -> None:
    """Even where the behaviour gives legal actions a probability that no float can hold, or is not a number."""
    available = torch.tensor([[False, True, True]])
    assert likely_actions(torch.tensor([[1e4, 0.0, -1e4]]), available, 0.4).tolist() == [[False, True, False]]
    assert likely_actions(torch.full((1, 3), math.nan), available, 0.4).tolist() == available.tolist()
    assert not likely_actions(torch.zeros(1, 3), torch.zeros(1, 3) > 0, 0.4).any()


# -- the mixer --------------------------------------------------------------------------------------------------------


def test_a_mixing_net_on_numbers() -> None:
    """q = (1, 2): h = (1 + 4 − 1, 1 − 8 + 1) = (4, −6); elu -> (4, e^−6 − 1); 2 · 4 + 3 (e^−6 − 1) + 0.5."""
    net = MixingNet(
        first=torch.tensor([[[[1.0, 1.0], [2.0, -4.0]]]]),
        first_bias=torch.tensor([[[-1.0, 1.0]]]),
        second=torch.tensor([[[2.0, 3.0]]]),
        second_bias=torch.tensor([[0.5]]),
    )
    expected = 8 + 3 * (math.exp(-6) - 1) + 0.5
    assert float(net.total(torch.tensor([[[1.0, 2.0]]]))) == pytest.approx(expected)
    both = net.totals(torch.tensor([[[[1.0, 2.0], [0.0, 0.0]]]]))
    assert both[0, 0].tolist() == pytest.approx([expected, 2 * (math.exp(-1) - 1) + 3 + 0.5])


def test_the_team_never_loses_by_an_agent_that_gains() -> None:
    mixer, draw = (
        QMixer(4, 3, 8, 6, generators()),
        torch.Generator().manual_seed(0),
    )
    states, values = torch.randn(2, 50, 4, generator=draw), 5 * torch.randn(2, 50, 3, generator=draw)
    values.requires_grad_()
    (slopes,) = torch.autograd.grad(mixer(states).total(values).sum(), values)
    assert (slopes >= 0).all()
    for i in range(3):
        raised = values.detach() + 2 * torch.nn.functional.one_hot(torch.tensor(i), 3)
        assert (mixer(states).total(raised) >= mixer(states).total(values)).all()


def test_the_best_joint_action_is_that_of_each_agent() -> None:
    mixer, draw = (
        QMixer(4, 2, 8, 6, generators()),
        torch.Generator().manual_seed(1),
    )
    net, q = mixer(torch.randn(2, 30, 4, generator=draw)), torch.randn(2, 30, 2, 3, generator=draw)
    joint = torch.tensor(list(itertools.product(range(3), repeat=2)))  # (9, 2)
    candidates = torch.stack([q[..., 0, :][..., joint[:, 0]], q[..., 1, :][..., joint[:, 1]]], dim=-1)  # (2, 30, 9, 2)
    best = joint[net.totals(candidates).argmax(-1)]  # (2, 30, 2)
    torch.testing.assert_close(best, q.argmax(-1))
