"""BCQ for discrete actions: plain loops in float64, targets at both ends of the filter, games with a known answer."""

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
from methods.base import Budget, Run, UnsupportedError
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.learners.bcq import BCQ
from methods.learners.bcq.config import DISCRETE, LOCOMOTION, PARTICLES, BCQConfig
from methods.learners.bcq.discrete import DiscreteBCQ, DiscreteBCQTrainer
from methods.networks.agents import GRUAgent
from methods.networks.heads import greedy_choice
from methods.objectives.q_learning import likely_actions
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.plain import outputs
from tests.unit.methods.problems import PAYOFF, first_choice, game

REPLICAS, AGENTS = 2, 3
SHAPES = ["discrete", "states-and-deaths"]


def generators(count: int = REPLICAS) -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(count)]


def datasets(shape: str) -> list[OfflineDataset]:
    return [sample_dataset(shape, episodes=6, seed=seed).without_privileged() for seed in range(REPLICAS)]


def made(shape: str = "discrete", **config: Any) -> tuple[DiscreteBCQTrainer, SequenceBatch]:
    """A trainer in float64 whose target differs from what it follows, and a batch of three episodes or steps."""
    learner, data = DiscreteBCQ(BCQConfig(hidden=7, **config)), datasets(shape)
    trainer = learner.new_trainer(data, Run(seeds=tuple(range(REPLICAS))))
    for net in (trainer.target, *trainer.agents):
        net.double()
    shift = torch.Generator().manual_seed(3)
    for parameter in trainer.target.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    batch = next(draw(data, generators(), batch_size=3, updates=1, device="cpu"))
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return trainer, replace(
        batch, **{k: v.double() for k, v in found.items() if v is not None and v.is_floating_point()}
    )


def available(batch: SequenceBatch) -> Tensor:
    assert batch.available is not None
    return batch.available


# -- against plain loops ----------------------------------------------------------------------------------------------


def plain_losses(trainer: DiscreteBCQTrainer, batch: SequenceBatch, r: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Of the values and of the behaviour, of one replica: every episode without its padding, step by step."""
    errors, surprise = [], []
    for b in range(batch.valid.shape[2]):
        length = int(batch.valid[r, :, b].sum())
        rows = batch.observations[r, : length + 1, b]
        q, q_bar, logits = (outputs(net, r, rows) for net in (trainer.values, trainer.target, trainer.behaviour))
        for t in range(length):
            for i in range(AGENTS):
                y, a = float(batch.rewards[r, t, b, i]), int(batch.actions[r, t, b, i])
                if not batch.terminals[r, t, b]:
                    legal = [x for x in range(5) if available(batch)[r, t + 1, b, i, x]]
                    p = {x: math.exp(float(logits[t + 1][i][x].detach())) for x in legal}
                    likely = [x for x in legal if p[x] / max(p.values()) >= threshold]
                    best = max(likely, key=lambda x: float(q[t + 1][i][x].detach()))
                    y += 0.99 * float(q_bar[t + 1][i][best])
                errors.append(0.5 * (q[t][i][a] - y) ** 2)
                mask = available(batch)[r, t, b, i]
                surprise.append(logits[t][i][mask].logsumexp(0) - logits[t][i][a])
    return torch.stack(errors).mean(), torch.stack(surprise).mean()


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made(shape, memory=memory, threshold=0.9)
    assert memory == "none" or not batch.valid.all()
    losses, told = trainer.losses(batch)
    slow = [plain_losses(trainer, batch, r, 0.9) for r in range(REPLICAS)]
    for fast, plain, net in zip(losses, zip(*slow, strict=True), trainer.agents, strict=True):
        torch.testing.assert_close(fast, torch.stack(plain), atol=1e-6, rtol=1e-6)
        parameters = list(net.parameters())
        mine = torch.autograd.grad(fast.sum(), parameters, retain_graph=True)
        theirs = torch.autograd.grad(torch.stack(plain).sum(), parameters, retain_graph=True)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert (told["likely"] < 1).all()
    others = list(trainer.behaviour.parameters()), list(trainer.values.parameters())
    for loss, unmoved in zip(losses, others, strict=True):  # neither teaches the other's network
        assert all(g is None for g in torch.autograd.grad(loss.sum(), unmoved, allow_unused=True, retain_graph=True))


def test_without_a_filter_targets_are_those_of_double_q_learning_over_available_actions() -> None:
    trainer, batch = made(threshold=0.0)
    q, q_bar = (net(batch.observations)[0] for net in (trainer.values, trainer.target))  # (R, T + 1, B, N, A)
    logits = trainer.behaviour(batch.observations)[0]
    found = trainer.targets(batch, q, likely_actions(logits, available(batch), 0.0))
    best = q.masked_fill(~available(batch), -math.inf).argmax(-1, keepdim=True)
    following = q_bar.gather(-1, best)[..., 0][:, 1:]  # (R, T, B, N)
    expected = batch.rewards + 0.99 * following * (~batch.terminals).unsqueeze(-1)
    torch.testing.assert_close(found[batch.valid], expected[batch.valid])
    assert trainer.losses(batch)[1]["likely"].tolist() == [1.0, 1.0]


def test_with_the_strictest_filter_targets_are_of_the_behaviours_most_likely_available_action() -> None:
    trainer, batch = made(threshold=1.0)
    q_bar, logits = (net(batch.observations)[0] for net in (trainer.target, trainer.behaviour))
    mode = logits.masked_fill(~available(batch), -math.inf).argmax(-1, keepdim=True)
    assert available(batch).gather(-1, mode).all()
    assert (logits.argmax(-1, keepdim=True) != mode).any()  # the most likely of all is not always available
    expected = batch.rewards + 0.99 * q_bar.gather(-1, mode)[..., 0][:, 1:] * (~batch.terminals).unsqueeze(-1)
    allowed = likely_actions(logits, available(batch), 1.0)
    found = trainer.targets(batch, trainer.values(batch.observations)[0], allowed)
    torch.testing.assert_close(found[batch.valid], expected[batch.valid])


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_changes_nothing(shape: str) -> None:
    trainer, batch = made(shape)
    padded = ~batch.valid  # (R, T, B)
    assert padded.any()
    rows = torch.cat([torch.zeros_like(padded[:, :1]), padded], dim=1)  # behind the final row
    other = replace(
        batch,
        observations=batch.observations + 3.0 * rows[..., None, None],
        available=available(batch) & ~rows[..., None, None],
        rewards=batch.rewards.masked_fill(padded[..., None], math.nan),
        terminals=batch.terminals ^ padded,
        actions=batch.actions.masked_fill(padded[..., None], 4),
    )
    parameters = [p for net in trainer.agents for p in net.parameters()]
    (of_td, cloning), told = trainer.losses(batch)
    (other_td, other_cloning), also = trainer.losses(longer(other, 2))
    assert told.keys() == also.keys()
    for name, value in told.items():
        torch.testing.assert_close(value, also[name])
    gradients = [torch.autograd.grad(x.sum(), parameters) for x in (of_td + cloning, other_td + other_cloning)]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def longer(batch: SequenceBatch, steps: int) -> SequenceBatch:
    """The batch with more padding, as one that stands beside a longer episode."""
    found: dict[str, Tensor | None] = {}
    for field in fields(batch):
        column = getattr(batch, field.name)
        more = None if column is None else column[:, -1:].repeat_interleave(steps, dim=1)
        found[field.name] = None if more is None else torch.cat([column, more], dim=1)
    assert found["valid"] is not None
    found["valid"][:, -steps:] = False
    return replace(batch, **found)


# -- updates ----------------------------------------------------------------------------------------------------------


def test_an_update_is_a_step_of_adam_on_each_network_without_clipping() -> None:
    """The first step of Adam is −lr g / (|g| + ε), both gradients being those of the weights before it."""
    trainer, batch = made()
    plain = copy.deepcopy(trainer)
    for loss, net in zip(plain.losses(batch)[0], plain.agents, strict=True):
        parameters = list(net.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss.sum(), parameters), strict=True):
            parameter.data -= 3e-4 * gradient / (gradient.abs() + 1e-8)
    trainer.update(batch)
    for mine, expected in zip(trainer.agents, plain.agents, strict=True):
        for one, other in zip(mine.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_the_target_is_copied_every_so_many_updates_and_rests_between() -> None:
    data, same = datasets("discrete"), []
    trainer = DiscreteBCQ(BCQConfig(hidden=7, target_every=3)).new_trainer(data, Run(seeds=(0, 1)))
    first = [p.clone() for p in trainer.target.parameters()]
    for batch in episode_sequences(data, generators(), batch_size=4, updates=6, device="cpu"):
        trainer.update(batch)
        pairs = list(zip(trainer.target.parameters(), trainer.values.parameters(), strict=True))
        same.append(all(torch.equal(target, current) for target, current in pairs))
        if len(same) < 3:
            assert all(torch.equal(a, b) for a, b in zip(first, trainer.target.parameters(), strict=True))
    assert same == [False, False, True, False, False, True]
    assert trainer.done == 6


# -- known answers ----------------------------------------------------------------------------------------------------

FAST: dict[str, Any] = {"learning_rate": 2e-2, "target_every": 5, "hidden": 16}


def acted(data: Sequence[OfflineDataset], **config: Any) -> list[list[int]]:
    """What the policy of each dataset does at first, all trained together."""
    run = Run(seeds=tuple(range(len(data))), budget=Budget(updates=100, batch_size=32))
    policy = BCQ(BCQConfig(**FAST, **config)).fit(data, run)
    return [first_choice(policy, d)[r] for r, d in enumerate(data)]


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_the_best_action_of_a_game_is_found_and_the_next_best_where_it_is_masked(memory: str) -> None:
    """By the means of rows and columns, for a value of an agent's own action knows no more: (8/3, 8/3), which is best.

    Without agent 0's action 1 the best of what is left, (2, 2).
    """
    assert acted([game(PAYOFF), game(PAYOFF, masked=(0, 1))], memory=memory) == [[1, 2], [2, 2]]


def test_an_agent_follows_its_own_reward() -> None:
    """Agent 0 is paid the payoff and agent 1 is charged it: it takes the column of least mean."""
    data = game(PAYOFF)
    opposed = data.replace(rewards=data.rewards * np.array([1, -1], np.float32))
    assert acted([opposed], memory="none") == [[1, 0]]


def test_the_filter_holds_in_acting_unless_it_is_put_off() -> None:
    """Actions (0, 2) alone, which cost 1: without the filter what was never done looks better."""
    data = game(np.full((3, 3), -2.0), shown=[(0, 2)])
    assert acted([data], memory="none") == [[0, 2]]
    (free,) = acted([data], memory="none", filter_at_eval=False)
    assert free != [0, 2]


def test_a_policy_remembers_with_both_of_its_networks() -> None:
    """Step by step it does what values and behaviour, unrolled from the first row on, say."""
    data, learner = datasets("discrete"), DiscreteBCQ(BCQConfig(hidden=7, threshold=0.95))
    trainer = learner.new_trainer(data, Run(seeds=(0, 1)))
    policy = learner.new_policy(trainer.agents, data[0].spec, REPLICAS, "cpu")
    batch = next(episode_sequences(data, generators(), batch_size=5, updates=1, device="cpu"))
    q, logits = (net(batch.observations)[0].detach() for net in trainer.agents)
    expected = greedy_choice(q, likely_actions(logits, available(batch), 0.95))  # (R, T + 1, B, N)
    memory, forgetful = None, False
    for t in range(expected.shape[1]):
        rows = batch.observations[:, t : t + 1]
        action, memory = policy.act(rows[:, 0].numpy(), available(batch)[:, t].numpy(), memory)
        np.testing.assert_array_equal(action, expected[:, t].numpy())
        fresh = likely_actions(trainer.behaviour(rows)[0][:, 0].detach(), available(batch)[:, t], 0.95)
        forgetful |= not torch.equal(greedy_choice(q[:, t], fresh), expected[:, t])
    assert forgetful  # what was seen before has a part in it


def values(trainer: DiscreteBCQTrainer, data: OfflineDataset) -> Tensor:
    """(N, A) after 150 updates on transitions."""
    batch: SequenceBatch
    for batch in transition_sequences([data], generators(1), batch_size=32, updates=150, device="cpu"):
        trainer.update(batch)
    found: Tensor = trainer.values(batch.observations[:, :1, :1].flatten(1, 2)).detach()[0, 0]
    return found


def test_values_are_those_of_the_game_and_of_its_continuation() -> None:
    """Each agent is paid 1: at a true end the value is 1; at a time limit, with γ = 0.5, it is 1 / (1 − 0.5) = 2."""
    learner = DiscreteBCQ(BCQConfig(**FAST, memory="none", discount=0.5))
    for ends, value in ((True, 1.0), (False, 2.0)):
        data = game(np.full((2, 2), 2.0), ends=ends)
        found = values(learner.new_trainer([data], Run(seeds=(0,))), data)
        assert found.flatten().tolist() == pytest.approx([value] * 4, abs=0.1)


def test_targets_of_the_filter_ignore_what_was_never_done() -> None:
    """Action 0 alone, no reward, no end: whatever is believed of action 2, y is γ Q̄_i(0), which tends to 0."""
    data = game(np.zeros((3, 3)), shown=[(0, 0)], ends=False)

    def value(threshold: float) -> float:
        config = BCQConfig(**FAST, memory="none", discount=0.5, threshold=threshold)
        trainer = DiscreteBCQ(config).new_trainer([data], Run(seeds=(0,)))
        with torch.no_grad():
            for net in (trainer.values, trainer.target):
                list(net.parameters())[-1][..., 2] += 3.0  # the last bias
        return float(values(trainer, data)[:, 0].abs().max())

    assert value(0.4) < 0.1
    assert value(0.0) > 0.5  # it believes in what was never done


# -- contracts and refusals -------------------------------------------------------------------------------------------

CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in ("bcq[memory=none]", "bcq[filter_at_eval=false]", "bcq[normalise=true]")
    for check in method_checks(name)[1]
    if check.name.startswith("states-and-deaths" if "none" in name else "discrete")
]


@pytest.mark.parametrize("check", CHECKS)
def test_variants_keep_the_contract(check: Any) -> None:
    assert check.run() is None


def test_training_tells_its_losses() -> None:
    policy = BCQ.tiny().fit(datasets("discrete"), Run(seeds=(0, 1), budget=Budget(updates=2, batch_size=2)))
    assert set(policy.diagnosis(1)) == {"final_td_loss", "final_cloning_loss", "final_q", "final_likely"}


def test_agents_are_those_of_og_marl() -> None:
    learner, spec = DiscreteBCQ(), sample_dataset("discrete").spec
    agent = learner.new_agent(spec, generators())
    assert isinstance(agent, GRUAgent)
    assert agent.relu_after
    assert not agent.last_action
    assert agent.encoder.weight.shape == (REPLICAS, spec.obs_dim + AGENTS, 64)


def test_settings_follow_the_kind_of_actions() -> None:
    continuous, discrete = sample_dataset("continuous").spec, sample_dataset("discrete").spec
    assert BCQConfig().sizes(continuous) == PARTICLES
    assert BCQConfig().sizes(replace(continuous, family="mamujoco")) == LOCOMOTION
    assert BCQConfig(vae_hidden=7).sizes(continuous) == replace(PARTICLES, vae_hidden=7)
    assert BCQConfig().sizes(discrete) == DISCRETE
    assert BCQConfig(memory="none").sizes(discrete) == replace(DISCRETE, batch_size=640)
    assert BCQConfig(hidden=7, normalise=True).sizes(discrete) == replace(DISCRETE, hidden=7, normalise=True)
    assert DiscreteBCQ().own_budget(discrete) == (100_000, 32)


def test_a_parameter_of_the_other_form_is_refused() -> None:
    run = Run(seeds=(0,))
    with pytest.raises(UsageError, match="proposals=5 has no meaning for discrete actions"):
        BCQ(BCQConfig(proposals=5)).fit([sample_dataset("discrete")], run)
    with pytest.raises(UsageError, match="threshold=0.3 has no meaning for continuous actions"):
        BCQ(BCQConfig(threshold=0.3)).fit([sample_dataset("continuous")], run)


def test_what_cannot_be_learned_from_is_refused() -> None:
    run, data = Run(seeds=(0,)), sample_dataset("discrete")
    with pytest.raises(UnsupportedError, match="no transition"):
        BCQ().fit([OfflineDataset.empty(data.spec)], run)
    with pytest.raises(DataError, match="not finite"):
        BCQ().fit([data.replace(rewards=np.full_like(data.rewards, np.nan))], run)
    single = game(PAYOFF)
    single = single.replace(spec=replace(single.spec, episode_limit=25))
    with pytest.raises(UnsupportedError, match=r"Use bcq\[memory=none\]"):
        BCQ().fit([single], run)
    BCQ(BCQConfig(memory="none")).fit([single], Run(seeds=(0,), budget=Budget(updates=2, batch_size=8)))


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "lstm"},
        {"threshold": 1.5},
        {"target_every": 0},
        {"filter_at_eval": "no"},
        {"normalise": 3},
        {"learning_rate": "fast"},
        {"batch_size": 2.5},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"bcq: {next(iter(given))}"):
        BCQConfig(**given)
