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
from methods.objectives.returns import lambda_return


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_weights_are_a_softmax_over_the_valid_entries_times_their_number() -> None:
    """Of 0 and 2 ln 3 at temperature 2: shares 1/4 and 3/4 of two entries; at the next time there is one entry."""
    values = torch.tensor([[[0.0, 2 * math.log(3.0), 99.0], [99.0, 5.0, -7.0]]])
    found = batch_weights(values, torch.tensor([[[True, True, False], [False, True, False]]]), 2.0)
    torch.testing.assert_close(found, torch.tensor([[[0.5, 1.5, 0.0], [0.0, 1.0, 0.0]]]))


def test_weights_sum_to_the_number_of_valid_entries_and_ignore_a_shift() -> None:
    valid = torch.tensor([[True] * 7, [True, False, True, True, False, False, False], [False] * 7]).expand(2, 3, 7)
    values = noise(2, 3, 7, 4)
    found = batch_weights(values, valid, 0.1)
    counts = torch.tensor([[7.0], [3.0], [0.0]], dtype=torch.float64).expand(2, 3, 4)
    torch.testing.assert_close(found.sum(dim=2), counts)  # at each time, of every agent
    assert not found[~valid].any()
    shift = noise(2, 3, 1, 1, seed=1)
    torch.testing.assert_close(batch_weights(values + 50.0 * shift, valid, 0.1), found)


def test_weights_of_a_replica_ignore_the_others_and_invalid_entries() -> None:
    valid, values = torch.tensor([[[True, True, False]]] * 2), noise(2, 1, 3, 2)
    poisoned = values.clone()
    poisoned[0], poisoned[1, 0, 2] = torch.nan, torch.inf
    torch.testing.assert_close(batch_weights(poisoned, valid, 0.1)[1], batch_weights(values, valid, 0.1)[1])


def test_a_target_of_one_step_weights_the_next_value_and_stops_at_a_true_end() -> None:
    ends = torch.tensor([[[False, True]]])
    found = q_target(
        torch.ones(1, 1, 2),
        ends,
        torch.tensor([[[4.0, math.nan]]]),
        torch.tensor([[[1.5, 0.0]]]),
        torch.ones_like(ends),
        discount=0.9,
        trace=0.8,  # of no meaning here
    )
    torch.testing.assert_close(found, torch.tensor([[[1 + 0.9 * 1.5 * 4, 1.0]]]))


def test_a_cut_sequence_ends_at_the_value_of_its_last_recorded_action() -> None:
    """r = (1, 2, 3), g = (4, 8, ·), γ = λ = ½; one sequence ends truly, one is cut, and one is cut and padded.

    End: G_2 = 3, G_1 = 2 + ½ (½ 8 + ½ 3) = 4.75, G_0 = 1 + ½ (½ 4 + ½ 4.75) = 3.1875.
    Cut: G_2 is unknown, G_1 = 2 + ½ 8 = 6, G_0 = 1 + ½ (½ 4 + ½ 6) = 3.5.
    Cut after two steps: G_1 is unknown, G_0 = 1 + ½ 4 = 3.
    """
    nan = math.nan
    reward = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, nan], [3.0, nan, nan]])[None]  # (1, T, B)
    following = torch.tensor([[4.0, 4.0, 4.0], [8.0, 8.0, nan], [nan, nan, nan]])[None]
    ends = torch.tensor([[False] * 3, [False] * 3, [True, False, False]])[None]
    known = torch.tensor([[True] * 3, [True, True, False], [True, False, False]])[None]
    found = q_target(reward, ends, following, torch.ones_like(following), known, discount=0.5, trace=0.5)
    assert found[0, :, 0].tolist() == [3.1875, 4.75, 3.0]
    assert found[0, :2, 1].tolist() == [3.5, 6.0]
    assert found[0, 0, 2] == 3.0


def test_an_infinite_beta_gives_sarsa_and_along_episodes_sarsa_lambda() -> None:
    following, reward, known = noise(2, 4, 6), noise(2, 4, 6, seed=1), torch.ones(2, 4, 6, dtype=torch.bool)
    weights = batch_weights(following, known, math.inf)
    torch.testing.assert_close(weights, torch.ones_like(weights))
    for trace in (0.0, 0.8):
        found = q_target(reward, ~known, following, weights, known, discount=0.9, trace=trace)
        plain = lambda_return(reward, ~known, following, known, 0.9, trace)
        torch.testing.assert_close(found, plain)
        assert torch.equal(plain, reward + 0.9 * following) == (trace == 0.0)


def test_losses_leave_unknown_entries_out() -> None:
    """(1 + 25) / 2; what is unknown may be NaN, and has no gradient."""
    total = torch.tensor([[[1.0, 5.0, 9.0]]], requires_grad=True)
    y, known = torch.tensor([[[0.0, 0.0, math.nan]]]), torch.tensor([[[True, True, False]]])
    loss = critic_loss(total, y, known)
    assert loss.tolist() == [13.0]
    loss.sum().backward()
    assert total.grad is not None
    assert total.grad.tolist() == [[[1.0, 5.0, 0.0]]]
    assert critic_loss(total, y, torch.zeros_like(known)).tolist() == [0.0]


def test_the_policy_loss_on_numbers_and_without_a_gradient_to_its_weights() -> None:
    """Two agents with k = (0.25, 0.75), ω = (2, 1), log π = (−1, −4): (0.5 · 1 + 0.75 · 4) / 2; then padding."""
    log_p = torch.tensor([[[[-1.0, -4.0]], [[-9.0, math.nan]]]], requires_grad=True)
    weights = torch.tensor([[[[2.0, 1.0]], [[3.0, 3.0]]]], requires_grad=True)
    mixture = torch.tensor([[[[0.25, 0.75]], [[0.5, 0.5]]]], requires_grad=True)
    loss = policy_loss(log_p, weights, mixture, torch.tensor([[[True], [False]]]))
    assert loss.tolist() == [1.75]
    loss.sum().backward()
    assert log_p.grad is not None
    assert log_p.grad[0, 0].tolist() == [[-0.25, -0.375]]
    assert weights.grad is None
    assert mixture.grad is None


def test_an_infinite_alpha_gives_cloning_weighted_by_the_mixture() -> None:
    shape, known = (2, 3, 5, 4), torch.ones(2, 3, 5, dtype=torch.bool)
    log_p, k = -noise(*shape).abs(), noise(*shape, seed=1).softmax(-1)
    found = policy_loss(log_p, batch_weights(noise(*shape, seed=2), known, math.inf), k, known)
    torch.testing.assert_close(found, -(k * log_p).mean(dim=(1, 2, 3)))


def test_the_baseline_is_the_mean_value_under_the_policy() -> None:
    q, p = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([0.5, 0.5, 0.0])
    assert float(expected_value(q, p.log().clamp(min=-1e30))) == 2.0


def test_the_effective_share_is_one_for_equal_weights_and_one_of_n_for_a_single_one() -> None:
    """At another time with two steps, of which one has all the weight: (4 + 1) / 6 and (1 + 1) / 6."""
    known = torch.tensor([[[True] * 4 + [False], [True] * 2 + [False] * 3], [[False] * 5] * 2])
    even, single = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), torch.tensor([4.0, 0.0, 0.0, 0.0, 0.0])
    two = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0])
    weights = torch.stack([torch.stack([even, two]), torch.stack([single, two])], dim=-1)  # (T, B, N)
    weights = torch.stack([weights, torch.zeros(2, 5, 2)])
    assert effective_share(weights[:, :1], known[:, :1]).tolist() == [(1 + 0.25) / 2, 0.0]
    torch.testing.assert_close(effective_share(weights, known), torch.tensor([(5 + 2) / 12, 0.0]))


def test_mixer_weights_are_shares_and_equal_values_pass_through() -> None:
    mixer = ICQMixer(4, 8, 3, [np.random.default_rng(r) for r in range(2)]).double()
    states = noise(2, 50, 4)
    k = mixer(states)
    assert float(k.detach().min()) >= 0
    torch.testing.assert_close(k.sum(dim=-1), torch.ones(2, 50, dtype=torch.float64))
    q = noise(2, 50, 1).expand(-1, -1, 3)
    torch.testing.assert_close((k * q).sum(dim=-1), q[..., 0])
