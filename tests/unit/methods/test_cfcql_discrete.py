"""CFCQL for discrete actions: plain loops in float64, what must not matter, games with a known answer, and kills."""

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
from benchmark.plugins import method_checks
from methods.base import Arrays, Budget, LearnedPolicy, Run, UnsupportedError
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.learners.cfcql import CFCQL
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.discrete import DiscreteCFCQL, DiscreteCFCQLTrainer
from methods.networks.agents import GRUAgent
from methods.networks.mixers import QMixer
from methods.objectives.counterfactual import counterfactual_totals
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.plain import acted_along, in_float64, padded_further, perceptron, poisoned_behind
from tests.unit.methods.problems import first_choice, game

REPLICAS = 2
SMALL: dict[str, Any] = {"hidden": 7, "mixer_embed": 4, "mixer_hidden": 6, "behaviour_updates": 3}


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(REPLICAS)]


def datasets(shape: str) -> list[OfflineDataset]:
    return [sample_dataset(shape, episodes=6, seed=seed).without_privileged() for seed in range(REPLICAS)]


def made(data: Sequence[OfflineDataset], **config: Any) -> tuple[DiscreteCFCQLTrainer, SequenceBatch]:
    """A trainer in float64 whose target differs from what it follows, and a batch of four episodes or steps."""
    learner = DiscreteCFCQL(CFCQLConfig(**{**SMALL, "conservatism": 2.0, "temperature": 20.0, **config}))
    trainer = learner.new_trainer(data, Run(seeds=tuple(range(len(data)))))
    shift = torch.Generator().manual_seed(3)
    for net in (trainer.team, trainer.target, trainer.behaviour):
        if net is not None:
            net.double()
    for net in (trainer.target, trainer.behaviour):
        for parameter in net.parameters() if net is not None else ():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    return trainer, in_float64(next(draw(data, generators()[: len(data)], batch_size=4, updates=1, device="cpu")))


# -- against plain loops ----------------------------------------------------------------------------------------------


def mixed(mixer: QMixer, r: int, state: Tensor, q: Sequence[Tensor]) -> Tensor:
    first = perceptron(mixer.first, r, state).abs()
    hidden, total = perceptron(mixer.first_bias, r, state), perceptron(mixer.second_bias, r, state)[0]
    for i, value in enumerate(q):
        hidden = hidden + value * first[i * mixer.embed : (i + 1) * mixer.embed]
    for weight, h in zip(perceptron(mixer.second, r, state).abs(), hidden, strict=True):
        total = total + weight * (h if h > 0 else h.exp() - 1)
    return total


class Episode:
    """One episode of one replica, without its padding."""

    def __init__(self, trainer: DiscreteCFCQLTrainer, batch: SequenceBatch, r: int, b: int) -> None:
        self.trainer, self.r, self.length = trainer, r, int(batch.valid[r, :, b].sum())
        rows = batch.observations[r, : self.length + 1, b]
        last = None if batch.last_actions is None else batch.last_actions[r, : self.length + 1, b]
        assert batch.available is not None
        self.mask, self.actions = batch.available[r, :, b], batch.actions[r, :, b]
        self.states = rows.flatten(1) if batch.states is None else batch.states[r, :, b]
        self.rewards, self.ends = batch.rewards[r, :, b], batch.terminals[r, :, b]
        self.q = acted_along(trainer.team.agent, r, rows, last)
        self.q_bar = acted_along(trainer.target.agent, r, rows, last)
        behaviour = trainer.behaviour
        self.logits = None if behaviour is None else acted_along(behaviour, r, rows, last)
        self.n = rows.shape[1]

    def legal(self, t: int, i: int) -> list[int]:
        return [a for a, allowed in enumerate(self.mask[t, i]) if allowed]

    def returns(self) -> list[float]:
        found: list[float] = []
        for t in range(self.length - 1, -1, -1):
            best = []
            for i in range(self.n):
                values = {a: float(self.q[t + 1][i][a].detach()) for a in self.legal(t + 1, i)}
                best.append(self.q_bar[t + 1][i][max(values, key=lambda a: values[a])])
            following = float(mixed(self.trainer.target.mixer, self.r, self.states[t + 1], best))
            if found:
                following = 0.4 * following + 0.6 * found[-1]
            reward = float(self.rewards[t].sum())
            found.append(reward if self.ends[t] else reward + 0.99 * following)
        return found[::-1]

    def total(self, t: int, actions: Sequence[int]) -> Tensor:
        chosen = [self.q[t][i][a] for i, a in enumerate(actions)]
        return mixed(self.trainer.team.mixer, self.r, self.states[t], chosen)

    def recorded(self, t: int) -> Tensor:
        return self.total(t, self.actions[t].tolist())

    def gap(self, t: int) -> tuple[Tensor, list[float]]:
        """The penalty of a step, and the weights of the agents."""
        pushed, distances = [], []
        for i in range(self.n):
            totals = []
            for a in self.legal(t, i):
                joint = self.actions[t].tolist()
                joint[i] = a
                totals.append(self.total(t, joint))
            pushed.append(torch.stack(totals).exp().sum().log())
            if self.logits is not None:
                mu = torch.stack(totals).detach().softmax(0) + 1e-5
                beta = self.logits[t][i][self.legal(t, i)].softmax(0) + 1e-5
                distances.append(float((mu * (mu / beta).log()).sum()))
        z = [math.exp(20.0 * d) for d in distances] or [1.0] * self.n
        weights = [value / sum(z) for value in z]
        terms = [w * push for w, push in zip(weights, pushed, strict=True)]
        return torch.stack(terms).sum() - self.recorded(t), weights


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ("discrete", {}),
        ("discrete", {"memory": "none"}),
        ("states-and-deaths", {"td_weight": 0.5}),
        ("states-and-deaths", {"weights": "uniform", "memory": "none"}),
    ],
    ids=["gru", "none", "states", "uniform"],
)
def test_losses_and_gradients_equal_plain_loops(shape: str, config: dict[str, Any]) -> None:
    trainer, batch = made(datasets(shape), **config)
    (loss,), told = trainer.losses(batch)
    slow, gaps, largest = [], [], []
    for r in range(REPLICAS):
        errors, penalties, weights = [], [], []
        for b in range(batch.valid.shape[2]):
            episode = Episode(trainer, batch, r, b)
            for t, y in enumerate(episode.returns()):
                errors.append((episode.recorded(t) - y) ** 2)
                gap, own = episode.gap(t)
                penalties.append(gap)
                weights.append(max(own))
        slow.append(config.get("td_weight", 1.0) * torch.stack(errors).mean() + 2.0 * torch.stack(penalties).mean())
        gaps.append(torch.stack(penalties).mean())
        largest.append(sum(weights) / len(weights))
    expected, parameters = torch.stack(slow), list(trainer.team.parameters())
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(told["cql_gap"], torch.stack(gaps), atol=1e-6, rtol=1e-6)
    if "weights" in config:
        assert "largest_weight" not in told
    else:
        assert told["largest_weight"].tolist() == pytest.approx(largest, abs=1e-6)
        assert min(largest) > 0.38  # agents do not all count alike
    mine = torch.autograd.grad(loss.sum(), parameters)
    plain = torch.autograd.grad(expected.sum(), parameters)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_without_conservatism_the_loss_is_the_temporal_difference_alone() -> None:
    data = datasets("discrete")
    trainer, batch = made(data, conservatism=0.0)
    assert trainer.behaviour is None  # it would serve nothing
    penalised, _ = made(data, conservatism=2.0)
    (loss,), told = trainer.losses(batch)
    torch.testing.assert_close(loss, penalised.losses(batch)[1]["td_loss"])
    assert set(told) == {"td_loss", "q"}
    for one, other in zip(
        torch.autograd.grad(loss.sum(), list(trainer.team.parameters())),
        torch.autograd.grad(penalised.losses(batch)[1]["td_loss"].sum(), list(penalised.team.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_penalty_of_one_agent_is_that_of_cql() -> None:
    """Its weight is 1; the penalty is ⟨log Σ_a exp Q_tot(a) − Q_tot(a_data)⟩."""
    data = [
        replace(
            d,
            spec=replace(d.spec, n_agents=1, agent_groups=((0,),)),
            observations=d.observations[:, :1],
            actions=d.actions[:, :1],
            rewards=d.rewards[:, :1],
            available_actions=None if d.available_actions is None else d.available_actions[:, :1],
        )
        for d in datasets("discrete")
    ]
    trainer, batch = made(data)
    (_,), told = trainer.losses(batch)
    assert batch.available is not None
    q = trainer.team.each(batch.observations, batch.last_actions)[:, :-1, ..., 0, :]  # (R, T, B, A)
    net = trainer.team.mixing(batch.observations[:, :-1], None)
    totals = net.totals(q.unsqueeze(-1)).masked_fill(~batch.available[:, :-1, ..., 0, :], -1e10)
    recorded = totals.gather(-1, batch.actions).squeeze(-1)
    gap = (totals.logsumexp(-1) - recorded).masked_fill(~batch.valid, 0.0).sum(dim=(1, 2)) / batch.valid.sum(dim=(1, 2))
    torch.testing.assert_close(told["cql_gap"], gap)
    assert told["largest_weight"].tolist() == [1.0, 1.0]


def test_all_agents_count_alike_at_temperature_zero() -> None:
    trainer, batch = made(datasets("discrete"), temperature=0.0)
    (loss,), told = trainer.losses(batch)
    torch.testing.assert_close(told["largest_weight"], torch.full((2,), 1 / 3, dtype=torch.float64))
    uniform, _ = made(datasets("discrete"), weights="uniform")
    torch.testing.assert_close(loss, uniform.losses(batch)[0][0])


# -- what must not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["discrete", "states-and-deaths"])
def test_padding_changes_nothing(shape: str) -> None:
    trainer, batch = made(datasets(shape))
    assert (~batch.valid).any()
    parameters = list(trainer.team.parameters())
    expected, told = trainer.losses(batch)
    gradients = torch.autograd.grad(expected[0].sum(), parameters)
    for other in (poisoned_behind(batch, ~batch.valid), padded_further(batch, 3)):
        (loss,), found = trainer.losses(other)
        torch.testing.assert_close(loss, expected[0])
        for name, value in told.items():
            torch.testing.assert_close(found[name], value)
        for one, two in zip(gradients, torch.autograd.grad(loss.sum(), parameters), strict=True):
            torch.testing.assert_close(one, two)


def test_unavailable_actions_have_no_influence() -> None:
    """An action that no row of the batch allows is believed in as much as one likes."""
    trainer, batch = made(datasets("discrete"), memory="none")
    assert batch.available is not None
    available = batch.available.clone()
    available[..., 4] = False
    batch = replace(batch, available=available, actions=batch.actions.clamp(max=3))
    before = trainer.losses(batch)[0][0]
    assert trainer.behaviour is not None
    with torch.no_grad():
        for agent in (trainer.team.agent, trainer.target.agent, trainer.behaviour):
            list(agent.parameters())[-1][..., 4] += 50.0
    torch.testing.assert_close(trainer.losses(batch)[0][0], before)


def test_the_behaviour_stays_as_it_is_and_the_target_is_a_copy_now_and_then() -> None:
    data = datasets("discrete")
    trainer = DiscreteCFCQL(CFCQLConfig(**SMALL, target_every=3)).new_trainer(data, Run(seeds=(0, 1)))
    assert trainer.behaviour is not None

    def weights(net: torch.nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    behaviour, same = weights(trainer.behaviour), []
    for batch in episode_sequences(data, generators(), batch_size=4, updates=6, device="cpu"):
        trainer.update(batch)
        same.append(torch.equal(weights(trainer.target), weights(trainer.team)))
    assert torch.equal(weights(trainer.behaviour), behaviour)
    assert same == [False, False, True, False, False, True]
    assert trainer.done == 6


def test_gradients_of_agents_and_mixer_are_clipped_together() -> None:
    data = [d.replace(rewards=1e4 * d.rewards) for d in datasets("discrete")]
    trainer = DiscreteCFCQL(CFCQLConfig(**SMALL)).new_trainer(data, Run(seeds=(0, 1)))
    trainer.update(next(episode_sequences(data, generators(), batch_size=4, updates=1, device="cpu")))
    flat = [p.grad.view(REPLICAS, -1) for p in trainer.team.parameters() if p.grad is not None]
    torch.testing.assert_close(torch.cat(flat, dim=1).norm(dim=1), torch.full((2,), 10.0))


def test_agents_see_their_last_action_and_have_pymarls_network() -> None:
    agent = DiscreteCFCQL(CFCQLConfig()).new_agent(sample_dataset("discrete").spec, generators())
    assert isinstance(agent, GRUAgent)
    assert agent.last_action
    assert not agent.relu_after
    assert agent.memory.hidden == 64


# -- known answers ----------------------------------------------------------------------------------------------------

PAYOFF = [[0.0, 1.0, 2.0], [1.0, 2.0, 5.0], [0.0, 1.0, 3.0]]
FAST: dict[str, Any] = {
    "hidden": 16,
    "learning_rate": 2e-2,
    "target_every": 5,
    "behaviour_updates": 20,
    "behaviour_batch_size": 32,
    "behaviour_learning_rate": 2e-2,
}


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("weights", ["behaviour", "uniform"])
def test_the_best_joint_action_of_a_matrix_game_is_found_and_the_next_best_where_it_is_masked(
    memory: str, weights: str
) -> None:
    learner = CFCQL(CFCQLConfig(**FAST, memory=memory, weights=weights, conservatism=0.1))
    data = [game(PAYOFF), game(PAYOFF, masked=(0, 1))]
    policy = learner.fit(data, Run(seeds=(0, 1), budget=Budget(updates=150, batch_size=32)))
    assert [first_choice(policy, d)[r] for r, d in enumerate(data)] == [[1, 2], [2, 2]]


def team_values(config: CFCQLConfig, data: OfflineDataset, updates: int = 100) -> Tensor:
    """(A, A) Q_tot of all joint actions of a game at its first row."""
    learner = DiscreteCFCQL(config)
    trainer = learner.new_trainer([data], Run(seeds=(0,)))
    draw = episode_sequences if config.memory == "gru" else transition_sequences
    for batch in draw([data], generators()[:1], batch_size=32, updates=updates, device="cpu"):
        trainer.update(batch)
    a = data.spec.action.size
    with torch.no_grad():
        seen = torch.zeros(1, 1, 1, 2, data.spec.obs_dim)
        q, net = trainer.team.each(seen, torch.full((1, 1, 1, 2), a)), trainer.team.mixing(seen, None)
        rows = [counterfactual_totals(net, q, torch.tensor([[[[own, 0]]]]))[0, 0, 0, 1] for own in range(a)]
    return torch.stack(rows)


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_a_value_never_shown_stays_below_that_of_plain_q_learning(memory: str) -> None:
    data = game([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], shown=[(0, 0), (1, 1)])
    plain = team_values(CFCQLConfig(**FAST, memory=memory, conservatism=0.0), data)
    careful = team_values(CFCQLConfig(**FAST, memory=memory, conservatism=5.0), data)
    unseen = torch.ones(3, 3, dtype=torch.bool)
    unseen[:2, :2] = False  # an agent does what it never did
    assert (careful[unseen] < plain[unseen]).all()
    assert (careful[unseen] < careful[0, 0] - 1).all()
    assert (plain[unseen] > plain[0, 0] - 1).all()


@pytest.mark.parametrize(("ends", "value"), [(True, 1.0), (False, 2.0)])
def test_a_time_limit_bootstraps_and_an_end_does_not(ends: bool, value: float) -> None:
    """The team is paid 1: at a true end the value is 1; at a time limit, with γ = 0.5, it is 1 / (1 − 0.5)."""
    config = CFCQLConfig(**FAST, memory="none", conservatism=0.0, discount=0.5)
    found = team_values(config, game(np.ones((2, 2)), ends=ends), updates=150)
    assert found.flatten().tolist() == pytest.approx([value] * 4, abs=0.1)


def test_the_behaviour_knows_the_data_and_counts_the_agent_that_leaves_them() -> None:
    """Agent 0 does anything, agent 1 always the same: at equal values it is the second that is far from the data."""
    data = game(np.zeros((3, 3)), shown=[(a, 2) for a in range(3)])
    config = CFCQLConfig(**{**FAST, "behaviour_updates": 60}, memory="none", temperature=1e4)
    trainer = DiscreteCFCQL(config).new_trainer([data], Run(seeds=(0,)))
    batch = next(transition_sequences([data], generators()[:1], batch_size=32, updates=1, device="cpu"))
    _, told = trainer.losses(batch)
    assert float(told["behaviour_loss"]) == pytest.approx(math.log(3.0) / 2, abs=0.1)
    assert float(told["largest_weight"]) == pytest.approx(1.0)
    with torch.no_grad():
        assert trainer.behaviour is not None
        p = trainer.behaviour(batch.observations[:, 0])[0, 0].softmax(-1)
    assert p[0].tolist() == pytest.approx([1 / 3] * 3, abs=0.1)
    assert float(p[1, 2]) > 0.9


# -- kills ------------------------------------------------------------------------------------------------------------


class KilledError(Exception):
    """The end of a process."""


class Memory:
    """A checkpoint that is always due, in a process that is killed right after its n-th save."""

    def __init__(self, kill_at: int) -> None:
        self.stored: dict[str, np.ndarray] | None = None
        self.saves, self._kill_at = 0, kill_at

    def load(self) -> Arrays | None:
        return self.stored

    def due(self) -> bool:
        return True

    def save(self, arrays: Arrays) -> None:
        self.stored, self.saves = {name: np.array(array) for name, array in arrays.items()}, self.saves + 1
        if self.saves == self._kill_at:
            raise KilledError


@pytest.mark.parametrize(("shape", "given"), [("continuous", {}), ("discrete", {"target_every": 4})])
def test_a_killed_training_goes_on_as_if_it_had_never_stopped(shape: str, given: dict[str, Any]) -> None:
    """Five updates of the model of the data, which save five times, and once as they finish; then six of the team.

    The last kill is behind a step of the targets.
    """
    small = {"behaviour_hidden": 8, "behaviour_updates": 5, "behaviour_batch_size": 8, "hidden": 7}
    learner = CFCQL(CFCQLConfig(**small, weights="behaviour", **given))
    data, told = datasets(shape), list[str]()
    points: list[tuple[int, LearnedPolicy]] = []

    def fit(memory: Memory | None) -> LearnedPolicy:
        told.clear()
        points.clear()
        run = Run(
            seeds=(3, 4),
            budget=Budget(updates=6, batch_size=4, snapshots=3),
            progress=lambda done, total, message: told.append(message),
            snapshot=lambda *point: points.append(point),
            checkpoint=memory,
        )
        return learner.fit(data, run)

    def found(policy: LearnedPolicy) -> list[np.ndarray]:
        return [np.array(a) for own in (policy, *(p for _, p in points)) for r in (0, 1) for a in own.state(r).values()]

    undisturbed = fit(None)
    expected = found(undisturbed)
    assert [message.split()[0] for message in told][:1] == ["behaviour"]
    for kill_at in (2, 5, 6, 11):
        memory = Memory(kill_at)
        with pytest.raises(KilledError):
            fit(memory)
        resumed = fit(memory)
        assert any("behaviour loss" in message for message in told) == (kill_at < 5)  # it is not trained again
        assert [done for done, _ in points] == [2, 4, 6]
        for mine, other in zip(found(resumed), expected, strict=True):
            np.testing.assert_array_equal(mine, other)
        assert [resumed.diagnosis(r) for r in (0, 1)] == [undisturbed.diagnosis(r) for r in (0, 1)]


# -- contracts and refusals -------------------------------------------------------------------------------------------

CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in ("cfcql[memory=none]", "cfcql[weights=uniform,normalise=true]")
    for check in method_checks(name)[1]
    if check.name.startswith(("discrete", "states-and-deaths"))
]


@pytest.mark.parametrize("check", CHECKS)
def test_variants_keep_the_contract(check: Any) -> None:
    assert check.run() is None


def test_the_model_of_the_data_has_a_budget_of_its_own() -> None:
    """The protocol's is that of the team; with uniform weights there is no model."""
    told: list[tuple[int, str]] = []
    run = Run(
        seeds=(0, 1),
        budget=Budget(updates=2, batch_size=4),
        progress=lambda done, total, message: told.append((total, message.split()[0])),
    )
    CFCQL(CFCQLConfig(**SMALL)).fit(datasets("discrete"), run)
    assert told == [(3, "behaviour"), (2, "td_loss")]
    policy = CFCQL(CFCQLConfig(**SMALL, weights="uniform")).fit(datasets("discrete"), run)
    assert told[2:] == [(2, "td_loss")]
    assert set(policy.diagnosis(0)) == {"final_td_loss", "final_q", "final_cql_gap"}
    learner, unbound = DiscreteCFCQL(CFCQLConfig(**SMALL)), Run(seeds=(0, 1))
    mine, other = (learner.fitted_behaviour(datasets("discrete"), own).state_dict() for own in (run, unbound))
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_single_transitions_need_an_agent_without_memory() -> None:
    single = game(PAYOFF)
    single = single.replace(spec=replace(single.spec, episode_limit=25))
    with pytest.raises(UnsupportedError, match=r"Use cfcql\[memory=none\]"):
        CFCQL(CFCQLConfig(**SMALL)).fit([single], Run(seeds=(0,)))
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=8))
    CFCQL(CFCQLConfig(**SMALL, memory="none")).fit([single], run)


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ("discrete", {"output_penalty": 0.1}, "output_penalty=0.1 has no meaning for discrete actions"),
        ("continuous", {"trace": 0.5}, "trace=0.5 has no meaning for continuous actions"),
    ],
)
def test_settings_of_the_other_form_are_refused(shape: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CFCQL(CFCQLConfig(**given)).fit([sample_dataset(shape)], Run(seeds=(0,)))


def test_settings_follow_the_kind_of_actions_and_the_memory() -> None:
    spec = sample_dataset("discrete").spec
    found, without = CFCQLConfig().settings(spec), CFCQLConfig(memory="none", hidden=32).settings(spec)
    assert (found.conservatism, found.temperature, found.weights) == (50.0, 5.0, "behaviour")
    assert (found.batch_size, found.behaviour_batch_size, found.behaviour_updates) == (32, 32, 20_000)
    assert (found.learning_rate, found.max_grad_norm, found.normalise) == (1e-3, 10.0, False)
    assert (without.batch_size, without.behaviour_batch_size) == (640, 640)
    assert (without.hidden, without.behaviour_hidden) == (32, 32)
    continuous = CFCQLConfig().settings(sample_dataset("continuous").spec)
    assert (continuous.conservatism, continuous.temperature, continuous.weights) == (1.0, -1.0, "uniform")
    assert (continuous.behaviour_updates, continuous.behaviour_hidden) == (100_000, 750)


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "lstm"},
        {"trace": 1.5},
        {"td_weight": float("nan")},
        {"mixer_embed": 0},
        {"target_every": 2.5},
        {"conservatism": "much"},
        {"normalise": 1},
        {"max_grad_norm": float("inf")},
        {"behaviour_updates": True},
        {"polyak": 0.0},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        CFCQLConfig(**given)
