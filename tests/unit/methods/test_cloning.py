import math

import pytest
import torch

from methods.networks.heads import bounded, greedy_choice, masked_log_softmax
from methods.objectives.cloning import doubled_negative_log_likelihood, negative_log_likelihood, squared_error
from tasks.spec import ActionSpec


def test_optimum_of_action_counts_three_to_one() -> None:
    """Counts (3, 1): π = (0.75, 0.25) and the loss 0.562335."""
    logits = torch.tensor([math.log(3.0), 0.0]).expand(1, 4, 1, 2).clone().requires_grad_()
    targets = torch.tensor([[[0], [0], [0], [1]]])
    available = torch.ones(1, 4, 1, 2, dtype=torch.bool)
    loss = negative_log_likelihood(logits, targets, available)
    assert loss.item() == pytest.approx(0.562335, abs=1e-6)  # −(3 ln 0.75 + ln 0.25) / 4
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(1, 1, 2))  # the optimum


def test_loss_and_gradient_ignore_unavailable_logits() -> None:
    available = torch.tensor([True, True, False]).expand(1, 2, 1, 3)
    targets = torch.tensor([[[0], [1]]])
    results = []
    for forbidden in (-5.0, 80.0):
        logits = torch.tensor([0.3, -0.2, forbidden]).expand(1, 2, 1, 3).clone().requires_grad_()
        loss = negative_log_likelihood(logits, targets, available)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert (gradient[..., 2] == 0).all()
        results.append((loss.detach(), gradient))
    torch.testing.assert_close(results[0], results[1])
    assert (masked_log_softmax(logits, available).exp()[..., 2] == 0).all()


def test_padding_counts_for_nothing_and_has_no_nan_gradient() -> None:
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 3.0], [7.0, 7.0]])[None, :, None].requires_grad_()
    available = torch.tensor([[True, True], [True, True], [False, False]])[None, :, None]
    valid = torch.tensor([[True, False, False]])
    loss = negative_log_likelihood(logits, torch.tensor([[[1], [0], [0]]]), available, valid)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)))  # −log σ(1)
    masked = torch.tensor([[0.0, 1.0], [7.0, 7.0]])[None, :, None].requires_grad_()
    loss = negative_log_likelihood(masked, torch.tensor([[[1], [0]]]), available[:, ::2], valid[:, ::2])
    (gradient,) = torch.autograd.grad(loss.sum(), masked)
    assert gradient.isfinite().all()
    assert (gradient[0, 1] == 0).all()


def test_losses_are_one_number_a_replica_and_a_nan_stays_in_its_own() -> None:
    actions = torch.zeros(3, 2, 1, 2)
    targets = torch.tensor([1.0, 3.0]).expand(3, 2, 1, 2).clone()
    targets[1] = float("nan")
    loss = squared_error(actions, targets)
    assert loss[0].item() == loss[2].item() == 5.0  # (1 + 9) / 2
    assert loss[1].isnan()
    valid = torch.tensor([[True, False], [True, True], [False, False]])
    targets[0, 1] = 100.0
    loss = squared_error(actions, targets, valid)
    assert (loss[0].item(), loss[2].item()) == (5.0, 0.0)  # no valid entry: 0


def test_greedy_choice_is_legal_even_for_logits_of_a_diverged_policy() -> None:
    available = torch.tensor([[False, True, True], [False, False, True], [False, True, False]])
    logits = torch.tensor([[9.0, 1.0, 2.0], [float("nan")] * 3, [0.0, -torch.inf, 0.0]])
    assert greedy_choice(logits, available).tolist() == [2, 2, 1]


def test_bounded_actions_fill_the_box() -> None:
    raw = torch.tensor([-100.0, 0.0, 100.0])
    assert bounded(raw, ActionSpec(kind="continuous", size=1)).tolist() == [-1.0, 0.0, 1.0]
    assert bounded(raw, ActionSpec(kind="continuous", size=1, low=0.0, high=4.0)).tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(("actions", "floor"), [(5, 0.904833), (9, 1.371951)])
def test_the_doubled_loss_has_a_floor(actions: int, floor: float) -> None:
    """A policy that is sure of the recorded action: −log(e / (e + A − 1))."""
    logits = torch.full((1, 1, 1, actions), -100.0)
    logits[..., 2] = 100.0
    every = torch.ones(1, 1, 1, actions, dtype=torch.bool)
    loss = doubled_negative_log_likelihood(logits, torch.tensor([[[2]]]), every, None, 0.0)
    assert loss.item() == pytest.approx(floor, abs=1e-5)


def test_the_doubled_loss_on_numbers() -> None:
    """p = (1/4, 3/4, 0), and ε = 0.5 mixes in (1/2, 1/2, 0): (3/8, 5/8, 0), of which the softmax; padding is out."""
    logits = torch.tensor([[0.0, math.log(3.0), 9.0], [math.nan] * 3])[None, :, None]
    available = torch.tensor([[True, True, False], [False, False, False]])[None, :, None]
    valid = torch.tensor([[True, False]])
    loss = doubled_negative_log_likelihood(logits, torch.tensor([[[1], [0]]]), available, valid, 0.5)
    e = [math.exp(0.375), math.exp(0.625), 1.0]
    assert loss.item() == pytest.approx(-math.log(e[1] / sum(e)), abs=1e-6)
