"""OMIGA: its losses on numbers worked by hand, against plain loops in float64, and on games with a known answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.base import Budget, Run
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.omiga import OMIGA, OMIGAConfig, OMIGATrainer
from methods.networks.mixers import LinearMixer
from methods.networks.stacked import StackedLinear, StackedMLP
from methods.objectives.omiga import (
    Mixture,
    policy_loss,
    q_target,
    scaled_advantage,
    tanh_gaussian_log_density,
    value_loss,
)
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ScoreReferences
from tests.unit.methods.problems import PAYOFF, first_choice, game

REPLICAS = 2


def test_a_target_mixes_the_next_values_and_stops_at_a_true_end() -> None:
    mixture = Mixture(torch.tensor([[[1.0, 2.0]] * 2]), torch.tensor([[0.5, 0.5]]))
    values = torch.tensor([[[3.0, 4.0]] * 2])  # 1 · 3 + 2 · 4 + 0.5 = 11.5
    found = q_target(torch.tensor([[1.0, 1.0]]), torch.tensor([[False, True]]), values, mixture, 0.9)
    assert found.tolist() == [[pytest.approx(11.35), 1.0]]


def test_the_advantage_is_scaled_and_clipped() -> None:
    q, v, w = torch.tensor([5.0, 200.0, -200.0]), torch.zeros(3), torch.tensor([2.0, 1.0, 1.0])
    assert scaled_advantage(q, v, w, 10.0).tolist() == [1.0, 10.0, -10.0]


def test_the_value_loss_on_numbers() -> None:
    """M = max(−1, 0.5) = 0.5; each term exp(z − M) + exp(−M) w V / α."""
    z, v, w = torch.tensor([[[0.5, -2.0]]]), torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[2.0, 1.0]]])
    expected = (1 + math.exp(-0.5) * 0.2 + math.exp(-2.5) + math.exp(-0.5) * 0.3) / 2
    assert float(value_loss(z, v, w, 10.0)) == pytest.approx(expected)
    low = torch.tensor([[[-3.0, -4.0]]])  # M = −1, not −3
    expected = (math.exp(-2) + math.e * 0.2 + math.exp(-3) + math.e * 0.3) / 2
    assert float(value_loss(low, v, w, 10.0)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(2.0, math.log((math.exp(0.5) + math.exp(1.5)) / 2) * 2), (1e3, 2.0), (0.05, 3.0)],
    ids=["log-mean-exp", "mean", "maximum"],
)
def test_the_best_value_is_a_soft_maximum(alpha: float, expected: float) -> None:
    """Of Q = 1 and 3 with w = 1: α ln mean exp(Q / α), the mean for large and nearly the maximum for small α."""
    q = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    grid = torch.linspace(0.5, 3.2, 2701, dtype=torch.float64)
    losses = []
    for v in grid:
        level = torch.full_like(q, float(v))
        z = (q - level) / alpha
        losses.append(float((z.exp() + level / alpha).mean()))  # as `value_loss` with M = 0
        if abs(float(z.max())) < 10:
            largest = max(-1.0, float(z.max()))
            mine = float(
                value_loss(scaled_advantage(q, level, torch.ones_like(q), alpha), level, torch.ones_like(q), alpha)
            )
            assert mine == pytest.approx(losses[-1] * math.exp(-largest))
    assert float(grid[int(np.argmin(losses))]) == pytest.approx(expected, abs=0.05)


def test_the_policy_loss_is_cloning_where_nothing_is_better_and_has_no_gradient_to_z() -> None:
    log_p = torch.tensor([[[-1.0, -3.0]]])
    assert float(policy_loss(torch.zeros(1, 1, 2), log_p)) == pytest.approx(2.0)
    z = torch.tensor([[[math.log(2.0), 0.0]]], requires_grad=True)
    loss = policy_loss(z, log_p)
    assert float(loss) == pytest.approx((2 * 1 + 3) / 2)
    assert not loss.requires_grad


def test_the_density_of_a_squashed_gaussian_integrates_to_one() -> None:
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1, None]
    raw = torch.tensor([0.3, -0.4], dtype=torch.float64).expand(len(grid), 2)
    density = tanh_gaussian_log_density(raw, grid).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=1e-3)
    transform = torch.distributions.TanhTransform()
    normal = torch.distributions.Normal(raw[:, 0], raw[:, 1].exp())
    reference = torch.distributions.TransformedDistribution(normal, [transform])
    torch.testing.assert_close(density.log(), reference.log_prob(grid[:, 0]))
    assert torch.isfinite(tanh_gaussian_log_density(torch.zeros(1, 2), torch.ones(1, 1))).all()  # a at its bound


def test_mixer_weights_are_never_negative_and_are_the_slopes_of_the_total() -> None:
    mixer = LinearMixer(4, 8, 3, [np.random.default_rng(0)])
    states = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    mixture, values = Mixture(*mixer(states)), torch.randn(1, 50, 3, requires_grad=True)
    assert float(mixture.weights.detach().min()) >= 0
    (slopes,) = torch.autograd.grad(mixture.total(values).sum(), values)
    torch.testing.assert_close(slopes, mixture.weights)


# -- against plain loops ----------------------------------------------------------------------------------------------


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(REPLICAS)]


def made(shape: str) -> tuple[OMIGATrainer, TransitionBatch]:
    data = [sample_dataset(shape, episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
    learner = OMIGA(OMIGAConfig(hidden=8, mixer_hidden=6, reward_scale=2.0, alpha=0.5))
    trainer = learner.new_trainer(data, Run(seeds=(0, 1)))
    trainer.agent.double()
    trainer.values.double()
    trainer.target.double()
    shift = torch.Generator().manual_seed(3)
    for parameter in trainer.target.parameters():  # targets that differ from what they follow
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    batch = next(joint_transitions(data, generators(), batch_size=12, updates=1, device="cpu"))
    floats = {
        name: value.double()
        for name in TransitionBatch.__slots__
        if isinstance(value := getattr(batch, name), Tensor) and value.is_floating_point()
    }
    return trainer, replace(batch, **floats)


def perceptron(net: StackedMLP | StackedLinear, r: int, x: Tensor) -> Tensor:
    """One replica's slice by plain products: x (F,)."""
    parameters = list(net.parameters())
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        x = x @ weight[r] + bias[r, 0]
        if weight is not parameters[-2]:
            x = x.relu()
    return x


@pytest.mark.parametrize("shape", ["continuous", "states-and-deaths"])
def test_losses_and_gradients_equal_plain_loops(shape: str) -> None:
    trainer, batch = made(shape)
    spec, n = trainer._spec, batch.rewards.shape[2]
    policy, of_q, of_v, _ = trainer.losses(batch)
    expected: dict[str, list[Tensor]] = {"policy": [], "q": [], "v": []}
    scaler = trainer.agent.scaler

    def mixture(values: Any, r: int, state: Tensor) -> tuple[Tensor, Tensor]:
        x = perceptron(values.mixer.encoder, r, state).relu()
        return perceptron(values.mixer.weight, r, x).abs(), perceptron(values.mixer.bias, r, x)[0]

    for r in range(REPLICAS):
        q_terms, z_all, v_all, w_all, log_all = [], [], [], [], []
        for b in range(batch.rewards.shape[1]):
            o = (batch.observations[r, b] - scaler.mean[r]) / scaler.scale[r]
            o2 = (batch.next_observations[r, b] - scaler.mean[r]) / scaler.scale[r]
            s = o.flatten() if batch.states is None else batch.states[r, b]
            s2 = o2.flatten() if batch.next_states is None else batch.next_states[r, b]
            eye = torch.eye(n, dtype=torch.float64)

            def q(values: Any, i: int) -> Tensor:
                x = torch.cat([o[i], eye[i]])  # noqa: B023
                if spec.action.discrete:
                    return perceptron(values.q_net, r, x)[batch.actions[r, b, i]]  # noqa: B023
                return perceptron(values.q_net, r, torch.cat([x, batch.actions[r, b, i]]))[0]  # noqa: B023

            def v(values: Any, i: int, rows: Tensor) -> Tensor:
                return perceptron(values.v_net, r, torch.cat([rows[i], eye[i]]))[0]  # noqa: B023

            w2, b2 = mixture(trainer.target, r, s2)
            w_bar, _ = mixture(trainer.target, r, s)
            w, bias = mixture(trainer.values, r, s)
            y = batch.rewards[r, b].sum() / 2.0
            if not batch.terminals[r, b]:
                y = y + 0.99 * (sum(w2[i] * v(trainer.target, i, o2) for i in range(n)) + b2)
            q_terms.append((sum(w[i] * q(trainer.values, i) for i in range(n)) + bias - y.detach()) ** 2)
            for i in range(n):
                value = v(trainer.values, i, o)
                z_all.append((w_bar[i].detach() / 0.5 * (q(trainer.target, i).detach() - value)).clamp(-10, 10))
                v_all.append(value)
                w_all.append(w_bar[i].detach())
                raw = perceptron(trainer.agent.net, r, torch.cat([o[i], eye[i]]))
                if spec.action.discrete:
                    assert batch.available is not None
                    allowed = batch.available[r, b, i]
                    action = int(batch.actions[r, b, i])
                    log_all.append(raw[action] - raw[allowed].logsumexp(0))
                else:
                    size = spec.action.size
                    u = batch.actions[r, b, i].clamp(-1 + 1e-7, 1 - 1e-7).atanh()
                    normal = torch.distributions.Normal(raw[:size].clamp(-9, 9), raw[size:].clamp(-5, 2).exp())
                    log_all.append((normal.log_prob(u) - (1 - u.tanh() ** 2).log()).sum())
        z, v_stack, w_stack = torch.stack(z_all), torch.stack(v_all), torch.stack(w_all)
        largest = z.max().detach().clamp(min=-1)
        expected["q"].append(torch.stack(q_terms).mean())
        expected["v"].append(((z - largest).exp() + (-largest).exp() * w_stack * v_stack / 0.5).mean())
        expected["policy"].append(-(z.detach().exp() * torch.stack(log_all)).mean())
    values = trainer.values
    for mine, theirs, parameters in (
        (policy, expected["policy"], list(trainer.agent.net.parameters())),
        (of_q, expected["q"], [*values.q_net.parameters(), *values.mixer.parameters()]),
        (of_v, expected["v"], list(values.v_net.parameters())),
    ):
        slow = torch.stack(theirs)
        torch.testing.assert_close(mine, slow, atol=1e-6, rtol=1e-6)
        gradients = torch.autograd.grad(mine.sum(), parameters, retain_graph=True)
        for fast, plain in zip(gradients, torch.autograd.grad(slow.sum(), parameters, retain_graph=True), strict=True):
            torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)


# -- known answers ----------------------------------------------------------------------------------------------------


def chosen(data: OfflineDataset, seeds: Sequence[int] = (0,)) -> list[list[int]]:
    learner = OMIGA(OMIGAConfig(hidden=32, alpha=0.3, learning_rate=3e-3, polyak=0.05))
    run = Run(seeds=tuple(seeds), budget=Budget(updates=500, batch_size=64))
    policy = learner.fit([data] * len(seeds), run)
    return first_choice(policy, data)


def test_the_best_joint_action_of_a_matrix_game_is_found() -> None:
    assert chosen(game(PAYOFF), seeds=(0, 1)) == [[1, 2], [1, 2]]


def test_an_action_that_is_not_available_is_not_chosen() -> None:
    assert chosen(game(PAYOFF, masked=(0, 1))) == [[2, 2]]


def test_rewards_are_scaled_by_the_task_alone() -> None:
    spec = sample_dataset("continuous").spec
    assert OMIGAConfig().scale(spec) == 1.0
    references = ScoreReferences(random_return=0.0, expert_return=-60.0, episodes=1, seed=0, provenance="")
    assert OMIGAConfig().scale(replace(spec, score_references=references)) == 10.0  # 60 in six steps
    assert OMIGAConfig(reward_scale=3.0).scale(replace(spec, score_references=references)) == 3.0


@pytest.mark.parametrize(
    "given", [{"alpha": 0.0}, {"polyak": 0.0}, {"hidden": 0}, {"reward_scale": -1.0}, {"discount": 1.1}]
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        OMIGAConfig(**given)
