"""QMIX-CQL and QMIX-BCQ: plain loops in float64, and games with a known answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from benchmark.plugins import method_checks
from methods.algorithms.sequence_learner import unrolled
from methods.algorithms.value_team import ValueTeam, ValueTeamConfig, ValueTrainer
from methods.base import Budget, Run, UnsupportedError
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.learners.qmix_bcq import QMIXBCQ, QMIXBCQConfig, QMIXBCQTrainer
from methods.learners.qmix_cql import QMIXCQL, QMIXCQLConfig, QMIXCQLTrainer
from methods.networks.agents import GRUAgent
from methods.networks.mixers import QMixer
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods import problems
from tests.unit.methods.plain import outputs, perceptron

REPLICAS = 2
SMALL: dict[str, Any] = {"hidden": 7, "mixer_embed": 4, "mixer_hidden": 6}
Learned = QMIXCQL | QMIXBCQ


# -- against plain loops ----------------------------------------------------------------------------------------------


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(REPLICAS)]


def datasets(shape: str) -> list[OfflineDataset]:
    return [sample_dataset(shape, episodes=6, seed=seed).without_privileged() for seed in range(REPLICAS)]


def made(learner: Learned, data: Sequence[OfflineDataset]) -> tuple[Any, SequenceBatch]:
    """A trainer in float64 whose target differs from what it follows, and a batch of four episodes or steps."""
    run = Run(seeds=tuple(range(len(data))))
    trainer = learner.new_trainer(data, run)
    for net in (trainer.team, trainer.target, *trainer.agents):
        net.double()
    shift = torch.Generator().manual_seed(3)
    for parameter in trainer.target.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    batch = next(draw(data, generators()[: len(data)], batch_size=4, updates=1, device="cpu"))
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    doubles = {k: v.double() for k, v in found.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return trainer, replace(batch, **doubles)


def mixed(mixer: QMixer, r: int, state: Tensor, q: Sequence[Tensor]) -> Tensor:
    first = perceptron(mixer.first, r, state).abs()
    hidden, total = perceptron(mixer.first_bias, r, state), perceptron(mixer.second_bias, r, state)[0]
    for i, value in enumerate(q):
        hidden = hidden + value * first[i * mixer.embed : (i + 1) * mixer.embed]
    for weight, h in zip(perceptron(mixer.second, r, state).abs(), hidden, strict=True):
        total = total + weight * (h if h > 0 else h.exp() - 1)
    return total


def require_equal_gradients(fast: Tensor, slow: list[Tensor], parameters: list[Tensor]) -> None:
    expected = torch.stack(slow)
    torch.testing.assert_close(fast, expected, atol=1e-6, rtol=1e-6)
    mine = torch.autograd.grad(fast.sum(), parameters, retain_graph=True)
    plain = torch.autograd.grad(expected.sum(), parameters, retain_graph=True)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_losses_and_gradients_of_qmix_cql_equal_plain_loops(
    shape: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = QMIXCQL(QMIXCQLConfig(**SMALL, memory=memory, cql_samples=3, conservatism=2.0))
    trainer, batch = made(learner, datasets(shape))
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
@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_losses_and_gradients_of_qmix_bcq_equal_plain_loops(shape: str, memory: str) -> None:
    learner = QMIXBCQ(QMIXBCQConfig(**SMALL, memory=memory, threshold=0.9))
    trainer, batch = made(learner, datasets(shape))
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
    trainer, batch = made(QMIXBCQ(QMIXBCQConfig(**SMALL, threshold=1.0)), data)
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


@pytest.mark.parametrize("learner", [QMIXCQL(QMIXCQLConfig(**SMALL)), QMIXBCQ(QMIXBCQConfig(**SMALL))])
@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_padding_changes_nothing(shape: str, learner: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = made(learner, datasets(shape))
    if isinstance(trainer, QMIXCQLTrainer):
        drawn = trainer.drawn(batch)
        monkeypatch.setattr(trainer, "drawn", lambda _: drawn)
    padded = ~batch.valid  # (R, T, B)
    assert padded.any()
    rows = torch.cat([torch.zeros_like(padded[:, :1]), padded], dim=1)  # behind the final row
    other = replace(
        batch,
        observations=batch.observations + 3.0 * rows[..., None, None],
        states=None if batch.states is None else batch.states - 2.0 * rows[..., None],
        rewards=batch.rewards.masked_fill(padded[..., None], math.nan),
        terminals=batch.terminals ^ padded,
        actions=batch.actions.masked_fill(padded[..., None], 4),
    )
    parameters = [p for agent in trainer.agents for p in agent.parameters()]
    for first, second in zip(trainer.losses(batch)[0], trainer.losses(other)[0], strict=True):
        torch.testing.assert_close(first, second)
        gradients = [torch.autograd.grad(x.sum(), parameters, allow_unused=True) for x in (first, second)]
        for one, two in zip(*gradients, strict=True):
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                torch.testing.assert_close(one, two)


def test_a_cut_episode_bootstraps_from_its_own_final_row_alone() -> None:
    """Only the final row of a cut episode changes the target of its last step; behind a true end none does."""
    trainer, batch = made(QMIXCQL(QMIXCQLConfig(**SMALL)), datasets("discrete"))
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
    cql = QMIXCQL(QMIXCQLConfig(**SMALL, conservatism=0.0)).fit(data, run)
    bcq = QMIXBCQ(QMIXBCQConfig(**SMALL, threshold=0.0)).fit(data, run)
    for r in range(REPLICAS):
        for name, array in cql.state(r).items():
            np.testing.assert_array_equal(array, bcq.state(r)[name])
        assert cql.diagnosis(r)["final_td_loss"] == bcq.diagnosis(r)["final_td_loss"]
        assert bcq.diagnosis(r)["final_likely"] == 1.0
        assert "final_cql_loss" not in cql.diagnosis(r)


def test_the_penalty_adds_to_the_double_q_loss_by_its_weight() -> None:
    trainer, batch = made(QMIXCQL(QMIXCQLConfig(**SMALL)), datasets("discrete"))
    (loss,), told = trainer.losses(batch)
    torch.testing.assert_close(loss, told["td_loss"] + 3.0 * told["cql_loss"])
    assert (told["cql_loss"] >= 0).all()


def test_targets_are_copied_every_so_many_updates_and_rest_between() -> None:
    data, run = datasets("discrete"), Run(seeds=(0, 1))
    learner = QMIXBCQ(QMIXBCQConfig(**SMALL, target_every=3))
    trainer = learner.new_trainer(data, run)

    def weights(team: ValueTeam) -> Tensor:
        return torch.cat([p.detach().flatten() for p in team.parameters()])

    assert torch.equal(weights(trainer.target), weights(trainer.team))
    first, same = weights(trainer.target), []
    for batch in episode_sequences(data, generators(), batch_size=4, updates=6, device="cpu"):
        trainer.update(batch)
        same.append(torch.equal(weights(trainer.target), weights(trainer.team)))
        if len(same) < 3:
            assert torch.equal(weights(trainer.target), first)
    assert same == [False, False, True, False, False, True]


def test_an_update_is_a_step_of_adam_on_values_and_another_on_the_behaviour() -> None:
    """The first step of Adam is −lr g / (|g| + ε), both gradients being those of the weights before it."""
    trainer, batch = made(QMIXBCQ(QMIXBCQConfig(**SMALL)), datasets("discrete"))
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
    trainer, batch = made(QMIXCQL(QMIXCQLConfig(**SMALL)), data)
    drawn = trainer.drawn(batch)  # (R, T, B, N, K)
    assert batch.available is not None
    assert batch.available[:, :-1].gather(-1, drawn).all()
    everything, _ = made(QMIXCQL(QMIXCQLConfig(**SMALL, cql_actions="all")), data)
    assert not batch.available[:, :-1].gather(-1, everything.drawn(batch)).all()
    single, alone = made(QMIXCQL(QMIXCQLConfig(**SMALL)), data[:1])
    torch.testing.assert_close(single.drawn(alone)[0], drawn[0, : alone.valid.shape[1]])


# -- known answers ----------------------------------------------------------------------------------------------------


def game(payoff: Any, **given: Any) -> OfflineDataset:
    """See `problems.game`; every agent is paid all of it, for these learners take the agents' mean."""
    data = problems.game(payoff, **given)
    return data.replace(rewards=2 * data.rewards)


FAST: dict[str, Any] = {"learning_rate": 2e-2, "target_every": 5, "hidden": 16}
PAYOFF = [[0.0, 1.0, 2.0], [1.0, 2.0, 5.0], [0.0, 1.0, 3.0]]
FAST_LEARNERS = [
    QMIXCQL(QMIXCQLConfig(**FAST)),
    QMIXCQL(QMIXCQLConfig(**FAST, memory="none")),
    QMIXBCQ(QMIXBCQConfig(**FAST)),
    QMIXBCQ(QMIXBCQConfig(**FAST, memory="none", filter_at_eval=True)),
]


def acted(learner: Learned, data: Sequence[OfflineDataset]) -> list[list[int]]:
    """What a policy of each game does, all trained together."""
    run = Run(seeds=tuple(range(len(data))), budget=Budget(updates=150, batch_size=32))
    policy = learner.fit(data, run)
    rows = np.stack([d.observations[:1] for d in data])
    mask = np.stack([d.available_actions[:1] for d in data if d.available_actions is not None])
    action, _ = policy.act(rows, mask)
    return action[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("learner", FAST_LEARNERS)
def test_the_best_joint_action_of_a_matrix_game_is_found_and_the_next_best_where_it_is_masked(learner: Learned) -> None:
    assert acted(learner, [game(PAYOFF), game(PAYOFF, masked=(0, 1))]) == [[1, 2], [2, 2]]


def team_values(learner: Learned, data: OfflineDataset, *, head_start: float = 0.0) -> Tensor:
    """(A, A) Q_tot of all joint actions of a game at its first row, the last action being believed in at first."""
    run = Run(seeds=(0,))
    trainer = learner.new_trainer([data], run)
    with torch.no_grad():
        for team in (trainer.team, trainer.target):
            list(team.agent.parameters())[-1][..., -1] += head_start
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    batch: SequenceBatch
    for batch in draw([data], [np.random.default_rng(0)], batch_size=32, updates=150, device="cpu"):
        trainer.update(batch)
    with torch.no_grad():
        seen = batch.observations[:, :1, :1]  # (1, 1, 1, N, D)
        q, net = trainer.team.each(seen)[0, 0, 0], trainer.team.mixing(seen, None)  # (N, A)
        a = q.shape[-1]
        joint = torch.stack([q[0][:, None].expand(a, a), q[1][None].expand(a, a)], dim=-1).view(1, 1, 1, a * a, 2)
        return net.totals(joint).view(a, a)


def test_values_are_those_of_the_game_and_of_its_continuation() -> None:
    """Reward 1: at a true end the value is 1; at a time limit, with γ = 0.5, it is 1 / (1 − 0.5) = 2."""
    learner = QMIXCQL(QMIXCQLConfig(**FAST, memory="none", conservatism=0.0, discount=0.5))
    ones = np.ones((2, 2))
    for ends, value in ((True, 1.0), (False, 2.0)):
        assert team_values(learner, game(ones, ends=ends)).flatten().tolist() == pytest.approx([value] * 4, abs=0.1)


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_a_value_never_shown_stays_below_that_of_plain_q_learning(memory: str) -> None:
    data = game([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], shown=[(0, 0), (1, 1)])
    plain = team_values(QMIXCQL(QMIXCQLConfig(**FAST, memory=memory, conservatism=0.0)), data)
    careful = team_values(QMIXCQL(QMIXCQLConfig(**FAST, memory=memory)), data)
    unseen = torch.ones(3, 3, dtype=torch.bool)
    unseen[:2, :2] = False  # an agent does what it never did
    assert (careful[unseen] < plain[unseen]).all()
    assert (careful[unseen] < careful[0, 0]).all()


def test_targets_of_the_filter_ignore_what_was_never_done() -> None:
    """Actions of 0 alone, reward 0, no end: whatever Q_i of the last one is, y is γ Q̄_tot(0, 0), which tends to 0."""
    data, config = (
        game(np.zeros((3, 3)), shown=[(0, 0)], ends=False),
        QMIXBCQConfig(**FAST, discount=0.5, memory="none"),
    )
    found = team_values(QMIXBCQ(config), data, head_start=3.0)
    assert abs(float(found[0, 0])) < 0.1
    unfiltered = team_values(QMIXBCQ(replace(config, threshold=0.0)), data, head_start=3.0)
    assert float(unfiltered[0, 0]) > 0.5  # it believes in what was never done


def test_a_filtered_policy_acts_as_the_data_do() -> None:
    data = game(np.zeros((3, 3)), shown=[(0, 2)])
    assert acted(QMIXBCQ(QMIXBCQConfig(**FAST, filter_at_eval=True)), [data]) == [[0, 2]]


# -- contracts and refusals -------------------------------------------------------------------------------------------

VARIANTS = [
    "qmix-cql[memory=none]",
    "qmix-bcq[memory=none]",
    "qmix-bcq[filter_at_eval=true]",
    "qmix-cql[normalise=true]",
]
CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in VARIANTS
    for check in method_checks(name)[1]
    if check.name.startswith(("discrete", "states-and-deaths"))
]


@pytest.mark.parametrize("check", CHECKS)
def test_variants_keep_the_contract(check: Any) -> None:
    assert check.run() is None


def test_rewards_are_averaged_where_the_task_sums_them() -> None:
    spec = sample_dataset("discrete").spec
    assert ValueTeamConfig().settings(spec).reward == "mean"
    assert ValueTeamConfig(reward="task").settings(spec).reward == "sum"
    assert ValueTeamConfig().settings(replace(spec, team_reward="first")).reward == "first"


def test_a_recurrent_agent_starts_afresh_and_sees_no_last_action() -> None:
    agent = QMIXCQL(QMIXCQLConfig(**SMALL)).new_agent(sample_dataset("discrete").spec, generators())
    assert isinstance(agent, GRUAgent)
    seen = torch.randn(2, 4, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    whole, first = unrolled(agent, seen), unrolled(agent, seen[:, :1])
    torch.testing.assert_close(whole[:, :1], first)
    assert not agent.last_action
    assert agent.relu_after


@pytest.mark.parametrize("learner", [QMIXCQL(), QMIXBCQ()])
def test_what_cannot_be_learned_from_is_refused(learner: Learned) -> None:
    run = Run(seeds=(0,))
    with pytest.raises(UnsupportedError, match="continuous"):
        learner.fit([sample_dataset("continuous")], run)
    data = sample_dataset("discrete")
    with pytest.raises(UnsupportedError, match="no transition"):
        learner.fit([OfflineDataset.empty(data.spec)], run)
    with pytest.raises(DataError, match="not finite"):
        learner.fit([data.replace(rewards=np.full_like(data.rewards, np.nan))], run)
    with pytest.raises(UsageError, match="1 datasets for 2 seeds"):
        learner.fit([data], Run(seeds=(0, 1)))
    single = game(PAYOFF)
    single = single.replace(spec=replace(single.spec, episode_limit=25))
    with pytest.raises(UnsupportedError, match=rf"Use {learner.name}\[memory=none\]"):
        learner.fit([single], run)
    memoryless = type(learner)(replace(learner.config, memory="none"))
    memoryless.fit([single], Run(seeds=(0,), budget=Budget(updates=2, batch_size=8)))


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "lstm"},
        {"reward": "sum"},
        {"hidden": 0},
        {"target_every": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"discount": 1.1},
        {"conservatism": -1.0},
        {"cql_samples": 0},
        {"cql_actions": "legal"},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        QMIXCQLConfig(**given)


@pytest.mark.parametrize("given", [{"threshold": 1.5}, {"threshold": -0.1}])
def test_a_threshold_without_a_meaning_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="threshold"):
        QMIXBCQConfig(**given)
