"""OMIGA: its losses on numbers worked by hand, against plain loops in float64, and on games with a known answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from benchmark.plugins import method_checks
from methods.algorithms.training import restore, stored_parts
from methods.base import Budget, Run, UnsupportedError
from methods.data.sequences import SequenceBatch
from methods.learners.omiga import OMIGA
from methods.learners.omiga.config import OMIGAConfig
from methods.learners.omiga.trainer import OMIGATrainer, Values
from methods.networks.mixers import LinearMixer
from methods.objectives.omiga import (
    Mixture,
    policy_loss,
    q_loss,
    q_target,
    scaled_advantage,
    tanh_gaussian_log_density,
    value_loss,
)
from tasks.common.errors import UsageError
from tasks.spec import ScoreReferences
from tests.unit.methods.plain import acted_along, in_float64, one_hot, padded_further, perceptron, poisoned_behind
from tests.unit.methods.problems import PAYOFF, game

REPLICAS = 2


def test_a_target_mixes_the_next_values_and_stops_at_a_true_end() -> None:
    mixture = Mixture(torch.tensor([[[1.0, 2.0]] * 2]), torch.tensor([[0.5, 0.5]]))
    values = torch.tensor([[[3.0, 4.0]] * 2])  # 1 · 3 + 2 · 4 + 0.5 = 11.5
    found = q_target(torch.tensor([[1.0, 1.0]]), torch.tensor([[False, True]]), values, mixture, 0.9)
    assert found.tolist() == [[pytest.approx(11.35), 1.0]]


def test_the_advantage_is_scaled_and_clipped() -> None:
    q, v, w = torch.tensor([5.0, 200.0, -200.0]), torch.zeros(3), torch.tensor([2.0, 1.0, 1.0])
    assert scaled_advantage(q, v, w, 10.0).tolist() == [1.0, 10.0, -10.0]


def test_a_q_loss_is_the_mean_square_over_valid_steps() -> None:
    """(1² + 3²) / 2; padding has no part, not even as NaN, and no gradient."""
    total = torch.tensor([[[1.0, 5.0, math.nan]]], requires_grad=True)
    loss = q_loss(total, torch.tensor([[[2.0, 2.0, math.nan]]]), torch.tensor([[[True, True, False]]]))
    assert loss.tolist() == [5.0]
    loss.sum().backward()
    assert total.grad is not None
    assert total.grad.tolist() == [[[-1.0, 3.0, 0.0]]]


ONE = torch.ones(1, 1, 1) > 0  # (R, T, B)


def test_the_value_loss_on_numbers() -> None:
    """M = max(−1, 0.5) = 0.5; each term exp(z − M) + exp(−M) w V / α."""
    z, v, w = torch.tensor([[[[0.5, -2.0]]]]), torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 1.0]]]])
    expected = (1 + math.exp(-0.5) * 0.2 + math.exp(-2.5) + math.exp(-0.5) * 0.3) / 2
    assert float(value_loss(z, v, w, 10.0, ONE)) == pytest.approx(expected)
    low = torch.tensor([[[[-3.0, -4.0]]]])  # M = −1, not −3
    expected = (math.exp(-2) + math.e * 0.2 + math.exp(-3) + math.e * 0.3) / 2
    assert float(value_loss(low, v, w, 10.0, ONE)) == pytest.approx(expected)


def test_padding_has_no_part_in_the_value_loss_nor_in_its_maximum() -> None:
    z, v, w = torch.tensor([[0.5, -2.0], [9.0, 4.0]]), torch.tensor([[1.0, 3.0], [50.0, 7.0]]), torch.ones(2, 2)
    whole = [x.view(1, 2, 1, 2) for x in (z, v, w)]  # two steps of one episode
    first = [x[:, :1] for x in whole]
    valid = torch.tensor([True, False]).view(1, 2, 1)
    torch.testing.assert_close(value_loss(*whole, 10.0, valid), value_loss(*first, 10.0, ONE))
    torch.testing.assert_close(policy_loss(whole[0], whole[1], valid), policy_loss(first[0], first[1], ONE))
    assert not torch.allclose(value_loss(*whole, 10.0, valid | True), value_loss(*first, 10.0, ONE))


def test_a_maximum_is_that_of_the_replica_alone() -> None:
    z = torch.tensor([[[[0.5]]], [[[math.nan]]], [[[3.0]]]])
    v = w = torch.ones(3, 1, 1, 1)
    found = value_loss(z, v, w, 10.0, torch.ones(3, 1, 1) > 0)
    assert found[0] == pytest.approx(1 + math.exp(-0.5) * 0.1)
    assert found[2] == pytest.approx(1 + math.exp(-3.0) * 0.1)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(2.0, math.log((math.exp(0.5) + math.exp(1.5)) / 2) * 2), (1e3, 2.0), (0.05, 3.0)],
    ids=["log-mean-exp", "mean", "maximum"],
)
def test_the_best_value_is_a_soft_maximum(alpha: float, expected: float) -> None:
    """Of Q = 1 and 3 with w = 1: α ln mean exp(Q / α), the mean for large and nearly the maximum for small α."""
    q, valid = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 1, 2, 1), torch.ones(1, 1, 2) > 0
    grid = torch.linspace(0.5, 3.2, 541, dtype=torch.float64)
    losses = []
    for v in grid:
        level = torch.full_like(q, float(v))
        z = (q - level) / alpha
        losses.append(float((z.exp() + level / alpha).mean()))  # as `value_loss` with M = 0
        if abs(float(z.max())) < 10:
            largest, one = max(-1.0, float(z.max())), torch.ones_like(q)
            mine = value_loss(scaled_advantage(q, level, one, alpha), level, one, alpha, valid)
            assert float(mine) == pytest.approx(losses[-1] * math.exp(-largest))
    assert float(grid[int(np.argmin(losses))]) == pytest.approx(expected, abs=0.05)


def test_the_policy_loss_is_cloning_where_nothing_is_better_and_has_no_gradient_to_z() -> None:
    log_p = torch.tensor([[[[-1.0, -3.0]]]])
    assert float(policy_loss(torch.zeros(1, 1, 1, 2), log_p, ONE)) == pytest.approx(2.0)
    z = torch.tensor([[[[math.log(2.0), 0.0]]]], requires_grad=True)
    loss = policy_loss(z, log_p, ONE)
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


@pytest.mark.parametrize("relu", [True, False])
def test_mixer_weights_are_never_negative_and_are_the_slopes_of_the_total(relu: bool) -> None:
    mixer = LinearMixer(4, 8, 3, [np.random.default_rng(0)], relu=relu)
    states = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    mixture, values = Mixture(*mixer(states)), torch.randn(1, 50, 3, requires_grad=True)
    assert float(mixture.weights.detach().min()) >= 0
    (slopes,) = torch.autograd.grad(mixture.total(values).sum(), values)
    torch.testing.assert_close(slopes, mixture.weights)


# -- against plain loops ----------------------------------------------------------------------------------------------


FORMS = [("continuous", "none"), ("states-and-deaths", "none"), ("discrete", "gru"), ("states-and-deaths", "gru")]


def made(shape: str, memory: str = "gru", **given: Any) -> tuple[OMIGATrainer, SequenceBatch]:
    """A trainer in float64 whose target differs from what it follows, and a batch of 12 steps or four episodes."""
    data = [sample_dataset(shape, episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
    small: dict[str, Any] = {"hidden": 8, "gru_hidden": 6, "mixer_hidden": 6}
    learner = OMIGA(OMIGAConfig(**small, reward_scale=2.0, alpha=0.5, memory=memory, **given))
    run = Run(seeds=(0, 1))
    trainer = learner.new_trainer(data, run)
    for net in (trainer.agent, trainer.values, trainer.target):
        net.double()
    shift = torch.Generator().manual_seed(3)
    for parameter in trainer.target.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    batch = next(learner.batches(data, run, "omiga/batches", 1, 4 if memory == "gru" else 12))
    return trainer, in_float64(batch)


def groups_of(trainer: OMIGATrainer) -> list[list[Tensor]]:
    """What each of the three losses is to change."""
    of_q = [*trainer.values.q_net.parameters(), *trainer.values.mixer.parameters()]
    return [list(trainer.agent.parameters()), of_q, list(trainer.values.v_net.parameters())]


class Slow:
    """Values of one net at one row of one replica, agent by agent."""

    def __init__(self, values: Values, r: int, seen: list[Tensor], state: Tensor) -> None:
        self.values, self.r, self.seen, self.state = values, r, seen, state

    def q(self, i: int, action: Tensor) -> Tensor:
        if self.values.discrete:
            return perceptron(self.values.q_net, self.r, self.seen[i])[action]
        return perceptron(self.values.q_net, self.r, torch.cat([self.seen[i], action]))[0]

    def v(self, i: int) -> Tensor:
        return perceptron(self.values.v_net, self.r, self.seen[i])[0]

    def mixture(self) -> tuple[Tensor, Tensor]:
        mixer = self.values.mixer
        x = perceptron(mixer.encoder, self.r, self.state)
        x = x.relu() if mixer.relu else x
        return perceptron(mixer.weight, self.r, x).abs(), perceptron(mixer.bias, self.r, x)[0]

    def total(self, each: Sequence[Tensor]) -> Tensor:
        w, bias = self.mixture()
        return sum((w[i] * x for i, x in enumerate(each)), bias)


def slow_losses(trainer: OMIGATrainer, batch: SequenceBatch, r: int) -> list[Tensor]:
    """Of policy, Q and V of one replica, step by step."""
    spec, scaler, n = trainer._spec, trainer.agent.scaler, batch.rewards.shape[-1]
    q_terms, z_all, v_all, w_all, log_all = [], [], [], [], []
    for b in range(batch.valid.shape[2]):
        length = int(batch.valid[r, :, b].sum())
        rows = (batch.observations[r, : length + 1, b] - scaler.mean[r]) / scaler.scale[r]  # (L + 1, N, D)
        last = None if batch.last_actions is None else batch.last_actions[r, : length + 1, b]
        acted = acted_along(trainer.agent, r, rows, last)

        def at(values: Values, t: int, rows: Tensor = rows, last: Tensor | None = last, b: int = b) -> Slow:
            of_last = [one_hot(-1, 0) if last is None else one_hot(int(last[t, i]), 5) for i in range(n)]
            seen = [torch.cat([rows[t, i], of_last[i], one_hot(i, n)]) for i in range(n)]
            return Slow(values, r, seen, rows[t].flatten() if batch.states is None else batch.states[r, t, b])

        for t in range(length):
            here, bar, actions = at(trainer.values, t), at(trainer.target, t), batch.actions[r, t, b]
            y = batch.rewards[r, t, b].sum() / 2.0
            if not batch.terminals[r, t, b]:
                after = at(trainer.target, t + 1)
                y = y + 0.99 * after.total([after.v(i) for i in range(n)])
            q_terms.append((here.total([here.q(i, actions[i]) for i in range(n)]) - y.detach()) ** 2)
            w_bar = bar.mixture()[0].detach()
            for i in range(n):
                v_all.append(here.v(i))
                z_all.append((w_bar[i] / 0.5 * (bar.q(i, actions[i]).detach() - v_all[-1])).clamp(-10, 10))
                w_all.append(w_bar[i])
                raw = acted[t][i]
                if spec.action.discrete:
                    assert batch.available is not None
                    log_all.append(raw[actions[i]] - raw[batch.available[r, t, b, i]].logsumexp(0))
                else:
                    size = spec.action.size
                    u = actions[i].clamp(-1 + 1e-7, 1 - 1e-7).atanh()
                    normal = torch.distributions.Normal(raw[:size].clamp(-9, 9), raw[size:].clamp(-5, 2).exp())
                    log_all.append((normal.log_prob(u) - (1 - u.tanh() ** 2).log()).sum())
    z, v, w = torch.stack(z_all), torch.stack(v_all), torch.stack(w_all)
    largest = z.max().detach().clamp(min=-1)
    return [
        -(z.detach().exp() * torch.stack(log_all)).mean(),
        torch.stack(q_terms).mean(),
        ((z - largest).exp() + (-largest).exp() * w * v / 0.5).mean(),
    ]


@pytest.mark.parametrize(("shape", "memory"), FORMS)
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made(shape, memory, mixer_relu=shape != "discrete")
    assert bool(batch.valid.all()) == (memory == "none")
    slow = [slow_losses(trainer, batch, r) for r in range(REPLICAS)]
    for k, (mine, parameters) in enumerate(zip(trainer.losses(batch)[:3], groups_of(trainer), strict=True)):
        plain = torch.stack([own[k] for own in slow])
        torch.testing.assert_close(mine, plain, atol=1e-6, rtol=1e-6)
        gradients = torch.autograd.grad(mine.sum(), parameters, retain_graph=True)
        for fast, expected in zip(
            gradients, torch.autograd.grad(plain.sum(), parameters, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(fast, expected, atol=1e-6, rtol=1e-6)


def test_no_loss_reaches_the_networks_of_another() -> None:
    trainer, batch = made("discrete")
    groups = groups_of(trainer)
    for k, loss in enumerate(trainer.losses(batch)[:3]):
        for other in (group for j, group in enumerate(groups) if j != k):
            assert not any(
                g is not None for g in torch.autograd.grad(loss.sum(), other, retain_graph=True, allow_unused=True)
            )


@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_padding_changes_nothing(shape: str) -> None:
    trainer, batch = made(shape)
    assert (~batch.valid).any()
    for other in (poisoned_behind(batch, ~batch.valid), padded_further(batch, 3)):
        for first, second in zip(trainer.losses(batch), trainer.losses(other), strict=True):
            torch.testing.assert_close(first, second)
        for k, parameters in enumerate(groups_of(trainer)):
            one, two = (torch.autograd.grad(trainer.losses(x)[k].sum(), parameters) for x in (batch, other))
            for mine, theirs in zip(one, two, strict=True):
                torch.testing.assert_close(mine, theirs)


def test_an_update_is_a_step_of_adam_on_each_group_and_then_of_the_targets() -> None:
    """The first step of Adam is −lr g / (|g| + ε), all gradients being those of the weights before it."""
    trainer, batch = made("discrete", max_grad_norm=0.0)
    plain = copy.deepcopy(trainer)
    groups = groups_of(plain)
    gradients = [
        torch.autograd.grad(loss.sum(), group) for loss, group in zip(plain.losses(batch)[:3], groups, strict=True)
    ]
    with torch.no_grad():
        for group, own in zip(groups, gradients, strict=True):
            for parameter, gradient in zip(group, own, strict=True):
                parameter.sub_(5e-4 * gradient / (gradient.abs() + 1e-8))
        for target, current in zip(plain.target.parameters(), plain.values.parameters(), strict=True):
            target.lerp_(current, 0.005)
    trainer.update(batch)
    assert trainer.done == 1
    for mine, expected in zip(groups_of(trainer), groups, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(list(trainer.target.parameters()), list(plain.target.parameters()))


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_stored_trainer_goes_on_as_the_one_it_was(memory: str) -> None:
    trainer, batch = made("discrete", memory)
    trainer.update(batch)
    other, _ = made("discrete", memory)
    restore(other, stored_parts(trainer))
    assert other.done == 1
    for each in (trainer, other):
        each.update(batch)
    mine, theirs = trainer.parts().tensors, other.parts().tensors
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_values_see_the_last_action_where_policies_do() -> None:
    trainer, batch = made("discrete")
    assert batch.last_actions is not None
    other = replace(batch, last_actions=(batch.last_actions + 1) % 6)
    before, after = (trainer.losses(x)[:3] for x in (batch, other))
    assert all((one != two).all() for one, two in zip(before, after, strict=True))
    memoryless, _ = made("discrete", "none")
    for net, without in (
        (trainer.values.q_net, memoryless.values.q_net),
        (trainer.values.v_net, memoryless.values.v_net),
    ):
        assert next(net.parameters()).shape[1] == next(without.parameters()).shape[1] + 5


# -- known answers ----------------------------------------------------------------------------------------------------


FAST: dict[str, Any] = {"hidden": 32, "gru_hidden": 16, "alpha": 0.3, "polyak": 0.1, "learning_rate": 1e-2}


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_the_best_joint_action_of_a_game_is_found_and_the_next_best_where_it_is_masked(memory: str) -> None:
    data = [game(PAYOFF), game(PAYOFF, masked=(0, 1))]
    learner = OMIGA(OMIGAConfig(**FAST, memory=memory))
    policy = learner.fit(data, Run(seeds=(0, 1), budget=Budget(updates=120, batch_size=32)))
    rows = np.stack([d.observations[:1] for d in data])
    mask = np.stack([d.available_actions[:1] for d in data if d.available_actions is not None])
    assert policy.act(rows, mask)[0][:, 0].tolist() == [[1, 2], [2, 2]]


# -- settings and contracts -------------------------------------------------------------------------------------------

CHECKS = [
    pytest.param(check, id=check.name)
    for check in method_checks("omiga[memory=gru,hidden=16,gru_hidden=8,mixer_relu=false]")[1]
    if check.name.startswith(("discrete", "states-and-deaths"))
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_recurrent_form_keeps_the_contract(check: Any) -> None:
    assert check.run() is None


def test_a_memory_is_refused_where_actions_are_continuous() -> None:
    data, run = sample_dataset("continuous").without_privileged(), Run(seeds=(0,), budget=Budget(updates=1))
    with pytest.raises(UnsupportedError, match="memory=gru is for discrete actions"):
        OMIGA(OMIGAConfig(memory="gru")).fit([data], run)


def test_batches_are_transitions_or_episodes_unless_set() -> None:
    spec = sample_dataset("discrete").spec
    assert OMIGA().own_budget(spec) == (100_000, 128)
    assert OMIGA(OMIGAConfig(memory="gru")).own_budget(spec) == (100_000, 32)
    assert OMIGA(OMIGAConfig(memory="gru", batch_size=7)).own_budget(spec) == (100_000, 7)


def test_rewards_are_scaled_by_the_task_alone() -> None:
    spec = sample_dataset("continuous").spec
    assert OMIGAConfig().scale(spec) == 1.0
    references = ScoreReferences(random_return=0.0, expert_return=-60.0, episodes=1, seed=0, provenance="")
    assert OMIGAConfig().scale(replace(spec, score_references=references)) == 10.0  # 60 in six steps
    assert OMIGAConfig(reward_scale=3.0).scale(replace(spec, score_references=references)) == 3.0


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 0.0},
        {"polyak": 0.0},
        {"hidden": 0},
        {"reward_scale": -1.0},
        {"discount": 1.1},
        {"memory": "lstm"},
        {"batch_size": 0},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        OMIGAConfig(**given)
