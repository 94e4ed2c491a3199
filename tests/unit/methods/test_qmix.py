"""QMIX-CQL and QMIX-BCQ: losses against plain loops in float64, special cases of them, and updates."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.algorithms.value_team import ValueTrainer
from methods.base import Budget, Run
from methods.data.sequences import SequenceBatch
from methods.learners.qmix_bcq import QMIXBCQ, QMIXBCQConfig, QMIXBCQTrainer
from tests.unit.methods.plain import mixed, outputs, require_equal_gradients
from tests.unit.methods.problems import acted, mean_game
from tests.unit.methods.small_trainers import REPLICAS, SHAPES, datasets, made, small

# -- against plain loops ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients_of_qmix_cql_equal_plain_loops(
    shape: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batch = made("qmix-cql", shape, memory=memory, cql_samples=3, conservatism=2.0)
    drawn = trainer.drawn(batch)
    monkeypatch.setattr(trainer, "drawn", lambda _: drawn)
    (loss,), told = trainer.losses(batch)
    slow, of_td = [], []
    for r in range(REPLICAS):
        errors, gaps = [], []
        for q, q_bar, t, b in steps_of(trainer, batch, r):
            y, state = plain_target(trainer, batch, r, t, b, q[t + 1], q_bar[t + 1], batch.available)
            total = mixed(trainer.team.mixer, r, state, [q[t][i][a] for i, a in enumerate(batch.actions[r, t, b])])
            errors.append(0.5 * (total - y) ** 2)
            every = [total.exp()]
            for k in range(3):
                actions = drawn[r, t, b, :, k]
                every.append(mixed(trainer.team.mixer, r, state, [q[t][i][a] for i, a in enumerate(actions)]).exp())
            gaps.append(torch.stack(every).sum().log() - total)
        of_td.append(torch.stack(errors).mean())
        slow.append(of_td[-1] + 2.0 * torch.stack(gaps).mean())
    require_equal_gradients(loss, slow, list(trainer.team.parameters()))
    torch.testing.assert_close(told["td_loss"], torch.stack(of_td), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients_of_qmix_bcq_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made("qmix-bcq", shape, memory=memory, threshold=0.9)
    assert batch.available is not None
    (of_values, cloning), told = trainer.losses(batch)
    slow_td, slow_cloning = [], []
    for r in range(REPLICAS):
        errors, surprise = [], []
        for q, q_bar, t, b in steps_of(trainer, batch, r):
            length = int(batch.valid[r, :, b].sum())
            behaviour = outputs(trainer.behaviour, r, batch.observations[r, : length + 1, b])
            allowed = batch.available.clone()
            for i in range(3):
                legal = batch.available[r, t + 1, b, i]
                p = torch.where(legal, behaviour[t + 1][i].softmax(0), 0.0)
                allowed[r, t + 1, b, i] = legal & (p / p.max() >= 0.9)
                action = batch.actions[r, t, b, i]
                surprise.append(-behaviour[t][i].log_softmax(0)[action])
            y, state = plain_target(trainer, batch, r, t, b, q[t + 1], q_bar[t + 1], allowed)
            total = mixed(trainer.team.mixer, r, state, [q[t][i][a] for i, a in enumerate(batch.actions[r, t, b])])
            errors.append(0.5 * (total - y) ** 2)
        slow_td.append(torch.stack(errors).mean())
        slow_cloning.append(torch.stack(surprise).mean())
    require_equal_gradients(of_values, slow_td, list(trainer.team.parameters()))
    require_equal_gradients(cloning, slow_cloning, list(trainer.behaviour.parameters()))
    assert (told["likely"] < 1).all()
    alone = torch.autograd.grad(of_values.sum(), list(trainer.behaviour.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in alone)  # the values teach the behaviour nothing


def steps_of(trainer: ValueTrainer, batch: SequenceBatch, r: int) -> Any:
    """Values of online and target agents along each episode without its padding, and every valid (t, b)."""
    for b in range(batch.valid.shape[2]):
        length = int(batch.valid[r, :, b].sum())
        rows = batch.observations[r, : length + 1, b]
        q, q_bar = outputs(trainer.team.agent, r, rows), outputs(trainer.target.agent, r, rows)
        for t in range(length):
            yield q, q_bar, t, b


def plain_target(
    trainer: ValueTrainer, batch: SequenceBatch, r: int, t: int, b: int, q: Any, q_bar: Any, allowed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(y, s): the mean reward, and the best allowed action of each agent by the online values."""
    assert allowed is not None
    rows = batch.observations[r, :, b].flatten(1) if batch.states is None else batch.states[r, :, b]
    y = batch.rewards[r, t, b].mean()
    if not batch.terminals[r, t, b]:
        picked = []
        for i in range(len(q)):
            legal = [a for a in range(5) if allowed[r, t + 1, b, i, a]]
            picked.append(q_bar[i][max(legal, key=lambda a: float(q[i][a].detach()))])
        y = y + 0.99 * mixed(trainer.target.mixer, r, rows[t + 1], picked)
    return y.detach(), rows[t]


def test_a_sarsa_target_where_the_behaviour_is_certain() -> None:
    """ζ = 1 and a behaviour that always takes action 0: y = r + γ (1 − e) Q̄_tot(s', 0)."""
    data = [d.replace(actions=np.zeros_like(d.actions)) for d in datasets("discrete")]
    trainer, batch = made("qmix-bcq", data=data, threshold=1.0)
    with torch.no_grad():
        trainer.behaviour.decoder.bias[..., 0] += 50.0
    assert batch.available is not None
    (of_values, _), _ = trainer.losses(batch)
    q_bar = trainer.target.each(batch.observations)[:, 1:, ..., 0]  # (R, T, B, N)
    following = trainer.target.mixing(batch.observations[:, 1:], None).total(q_bar)
    y = batch.rewards.mean(-1) + 0.99 * (~batch.terminals) * following
    error = (trainer.evaluate(batch, batch.available).recorded - y).square().masked_fill(~batch.valid, 0.0)
    torch.testing.assert_close(of_values, 0.5 * error.sum(dim=(1, 2)) / batch.valid.sum(dim=(1, 2)))


# -- what must not matter ---------------------------------------------------------------------------------------------


def test_a_cut_episode_bootstraps_from_its_own_final_row_alone() -> None:
    """Only the final row of a cut episode changes the target of its last step; behind a true end none does."""
    trainer, batch = made("qmix-cql")
    assert batch.available is not None
    before = trainer.evaluate(batch, batch.available).target
    lengths = batch.valid.sum(dim=1)  # (R, B)
    final = torch.arange(batch.valid.shape[1] + 1)[None, :, None] == lengths[:, None]  # (R, T + 1, B)
    moved = replace(batch, observations=batch.observations + 1.0 * final[..., None, None])
    changed = (trainer.evaluate(moved, batch.available).target - before).abs() > 1e-12  # (R, T, B)
    expected = final[:, 1:] & ~batch.terminals
    assert expected.any()
    assert (final[:, 1:] & batch.terminals).any()
    assert torch.equal(changed & batch.valid, expected)


def test_without_penalty_and_without_filter_both_are_one_learner() -> None:
    data, run = datasets("discrete"), Run(seeds=(0, 1), budget=Budget(updates=8, batch_size=4))
    cql = small("qmix-cql", conservatism=0.0).fit(data, run)
    bcq = small("qmix-bcq", threshold=0.0).fit(data, run)
    for r in range(REPLICAS):
        for name, array in cql.state(r).items():
            np.testing.assert_array_equal(array, bcq.state(r)[name])
        assert cql.diagnosis(r)["final_td_loss"] == bcq.diagnosis(r)["final_td_loss"]
        assert bcq.diagnosis(r)["final_likely"] == 1.0
        assert "final_cql_loss" not in cql.diagnosis(r)


def test_the_penalty_adds_to_the_double_q_loss_by_its_weight() -> None:
    trainer, batch = made("qmix-cql")
    (loss,), told = trainer.losses(batch)
    torch.testing.assert_close(loss, told["td_loss"] + 3.0 * told["cql_loss"])
    assert (told["cql_loss"] >= 0).all()


def test_an_update_is_a_step_of_adam_on_values_and_another_on_the_behaviour() -> None:
    """The first step of Adam is −lr g / (|g| + ε), both gradients being those of the weights before it."""
    trainer, batch = made("qmix-bcq")
    assert isinstance(trainer, QMIXBCQTrainer)
    plain = copy.deepcopy(trainer)
    groups = list(plain.team.parameters()), list(plain.behaviour.parameters())
    for loss, group in zip(plain.losses(batch)[0], groups, strict=True):
        for parameter, gradient in zip(group, torch.autograd.grad(loss.sum(), group), strict=True):
            parameter.data -= 3e-4 * gradient / (gradient.abs() + 1e-8)
    trainer.update(batch)
    updated = [*trainer.team.parameters(), *trainer.behaviour.parameters()]
    for mine, expected in zip(updated, groups[0] + groups[1], strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-9, rtol=1e-9)


def test_random_joint_actions_are_available_and_a_replica_draws_its_own() -> None:
    data = datasets("discrete")
    trainer, batch = made("qmix-cql", data=data)
    drawn = trainer.drawn(batch)  # (R, T, B, N, K)
    assert batch.available is not None
    assert batch.available[:, :-1].gather(-1, drawn).all()
    everything, _ = made("qmix-cql", data=data, cql_actions="all")
    assert not batch.available[:, :-1].gather(-1, everything.drawn(batch)).all()
    single, alone = made("qmix-cql", data=data[:1])
    torch.testing.assert_close(single.drawn(alone)[0], drawn[0, : alone.valid.shape[1]])


def test_a_filtered_policy_acts_as_the_data_do() -> None:
    learner = QMIXBCQ(QMIXBCQConfig(learning_rate=2e-2, target_every=5, hidden=16, filter_at_eval=True))
    assert acted(learner, [mean_game(np.zeros((3, 3)), shown=[(0, 2)])], 150) == [[0, 2]]
