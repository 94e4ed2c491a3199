"""ICQ's weights, targets, losses and mixer on numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from methods.networks.mixers import ICQMixer
from methods.objectives.icq import (
    batch_weights,
    critic_loss,
    effective_share,
    expected_value,
    policy_loss,
    q_target,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_weights_are_a_softmax_over_the_valid_entries_times_their_number() -> None:
    """Of 0 and 2 ln 3 at temperature 2: shares 1/4 and 3/4 of two entries."""
    values = torch.tensor([[0.0, 2 * math.log(3.0), 99.0]])
    found = batch_weights(values, torch.tensor([[True, True, False]]), 2.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5, 0.0]]))


def test_weights_sum_to_the_number_of_valid_entries_and_ignore_a_shift() -> None:
    valid = torch.tensor([[True] * 7, [True, False, True, True, False, False, False], [False] * 7])
    values = noise(3, 7, 4)
    found = batch_weights(values, valid, 0.1)
    counts = torch.tensor([[7.0], [3.0], [0.0]], dtype=torch.float64).expand(3, 4)
    torch.testing.assert_close(found.sum(dim=1), counts)  # of every agent
    assert not found[~valid].any()
    torch.testing.assert_close(batch_weights(values + 50.0, valid, 0.1), found)


def test_weights_of_a_replica_ignore_the_others_and_invalid_entries() -> None:
    valid, values = torch.tensor([[True, True, False]] * 2), noise(2, 3, 2)
    poisoned = values.clone()
    poisoned[0], poisoned[1, 2] = torch.nan, torch.inf
    torch.testing.assert_close(batch_weights(poisoned, valid, 0.1)[1], batch_weights(values, valid, 0.1)[1])


def test_a_target_weights_the_next_value_and_stops_at_a_true_end() -> None:
    reward, following = torch.tensor([[1.0, 1.0]]), torch.tensor([[4.0, 4.0]])
    found = q_target(reward, torch.tensor([[False, True]]), following, torch.tensor([[1.5, 0.0]]), 0.9)
    torch.testing.assert_close(found, torch.tensor([[1 + 0.9 * 1.5 * 4, 1.0]]))


def test_an_infinite_beta_gives_sarsa() -> None:
    following, valid = noise(2, 6), torch.ones(2, 6, dtype=torch.bool)
    weights = batch_weights(following, valid, math.inf)
    torch.testing.assert_close(weights, torch.ones_like(weights))
    found = q_target(torch.zeros_like(following), ~valid, following, weights, 0.9)
    torch.testing.assert_close(found, 0.9 * following)


def test_losses_leave_invalid_entries_out() -> None:
    total, y, valid = torch.tensor([[1.0, 5.0, 9.0]]), torch.zeros(1, 3), torch.tensor([[True, True, False]])
    assert critic_loss(total, y, valid).tolist() == [13.0]  # (1 + 25) / 2
    assert critic_loss(total, y, torch.zeros_like(valid)).tolist() == [0.0]


def test_the_policy_loss_on_numbers_and_without_a_gradient_to_its_weights() -> None:
    """Two agents with k = (0.25, 0.75), ω = (2, 1), log π = (−1, −4): (0.5 · 1 + 0.75 · 4) / 2."""
    log_p = torch.tensor([[[-1.0, -4.0]]], requires_grad=True)
    weights = torch.tensor([[[2.0, 1.0]]], requires_grad=True)
    mixture = torch.tensor([[[0.25, 0.75]]], requires_grad=True)
    loss = policy_loss(log_p, weights, mixture, torch.tensor([[True]]))
    assert loss.tolist() == [1.75]
    loss.sum().backward()
    assert log_p.grad is not None
    assert weights.grad is None
    assert mixture.grad is None


def test_an_infinite_alpha_gives_cloning_weighted_by_the_mixture() -> None:
    log_p, k, valid = -noise(2, 5, 3).abs(), noise(2, 5, 3, seed=1).softmax(-1), torch.ones(2, 5, dtype=torch.bool)
    found = policy_loss(log_p, batch_weights(noise(2, 5, 3, seed=2), valid, math.inf), k, valid)
    torch.testing.assert_close(found, -(k * log_p).mean(dim=(1, 2)))


def test_the_baseline_is_the_mean_value_under_the_policy() -> None:
    q, p = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([0.5, 0.5, 0.0])
    assert float(expected_value(q, p.log().clamp(min=-1e30))) == 2.0


def test_the_effective_share_is_one_for_equal_weights_and_one_of_n_for_a_single_one() -> None:
    valid = torch.tensor([[True, True, True, True, False], [False] * 5])
    even, single = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), torch.tensor([4.0, 0.0, 0.0, 0.0, 0.0])
    weights = torch.stack([torch.stack([even, single], dim=-1), torch.zeros(5, 2)])  # (2, 5, 2)
    assert effective_share(weights, valid).tolist() == [(1 + 0.25) / 2, 0.0]


def test_mixer_weights_are_shares_and_equal_values_pass_through() -> None:
    mixer = ICQMixer(4, 8, 3, [np.random.default_rng(r) for r in range(2)]).double()
    states = noise(2, 50, 4)
    k = mixer(states)
    assert float(k.detach().min()) >= 0
    torch.testing.assert_close(k.sum(dim=-1), torch.ones(2, 50, dtype=torch.float64))
    q = noise(2, 50, 1).expand(-1, -1, 3)
    torch.testing.assert_close((k * q).sum(dim=-1), q[..., 0])
