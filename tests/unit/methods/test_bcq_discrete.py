"""BCQ for discrete actions: plain loops in float64, targets at both ends of the filter, and acting."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Budget, Run
from methods.data.sequences import SequenceBatch, episode_sequences
from methods.learners.bcq import BCQ
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.discrete import DiscreteBCQTrainer
from methods.networks.heads import greedy_choice
from methods.objectives.q_learning import likely_actions
from tests.unit.methods.plain import available, outputs, require_equal_gradients
from tests.unit.methods.problems import PAYOFF, acted, game
from tests.unit.methods.small_trainers import AGENTS, REPLICAS, SHAPES, datasets, generators, made, small

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
    trainer, batch = made("bcq", shape, memory=memory, threshold=0.9)
    assert memory == "none" or not batch.valid.all()
    losses, told = trainer.losses(batch)
    slow = [plain_losses(trainer, batch, r, 0.9) for r in range(REPLICAS)]
    for fast, plain, net in zip(losses, zip(*slow, strict=True), trainer.agents, strict=True):
        require_equal_gradients(fast, plain, list(net.parameters()))
    assert (told["likely"] < 1).all()
    others = list(trainer.behaviour.parameters()), list(trainer.values.parameters())
    for loss, unmoved in zip(losses, others, strict=True):  # neither teaches the other's network
        assert all(g is None for g in torch.autograd.grad(loss.sum(), unmoved, allow_unused=True, retain_graph=True))


def test_without_a_filter_targets_are_those_of_double_q_learning_over_available_actions() -> None:
    trainer, batch = made("bcq", threshold=0.0)
    q, q_bar = (net(batch.observations)[0] for net in (trainer.values, trainer.target))  # (R, T + 1, B, N, A)
    logits = trainer.behaviour(batch.observations)[0]
    found = trainer.targets(batch, q, likely_actions(logits, available(batch), 0.0))
    best = q.masked_fill(~available(batch), -math.inf).argmax(-1, keepdim=True)
    following = q_bar.gather(-1, best)[..., 0][:, 1:]  # (R, T, B, N)
    expected = batch.rewards + 0.99 * following * (~batch.terminals).unsqueeze(-1)
    torch.testing.assert_close(found[batch.valid], expected[batch.valid])
    assert trainer.losses(batch)[1]["likely"].tolist() == [1.0, 1.0]


def test_with_the_strictest_filter_targets_are_of_the_behaviours_most_likely_available_action() -> None:
    trainer, batch = made("bcq", threshold=1.0)
    q_bar, logits = (net(batch.observations)[0] for net in (trainer.target, trainer.behaviour))
    mode = logits.masked_fill(~available(batch), -math.inf).argmax(-1, keepdim=True)
    assert available(batch).gather(-1, mode).all()
    assert (logits.argmax(-1, keepdim=True) != mode).any()  # the most likely of all is not always available
    expected = batch.rewards + 0.99 * q_bar.gather(-1, mode)[..., 0][:, 1:] * (~batch.terminals).unsqueeze(-1)
    allowed = likely_actions(logits, available(batch), 1.0)
    found = trainer.targets(batch, trainer.values(batch.observations)[0], allowed)
    torch.testing.assert_close(found[batch.valid], expected[batch.valid])


# -- updates ----------------------------------------------------------------------------------------------------------


def test_an_update_is_a_step_of_adam_on_each_network_without_clipping() -> None:
    """The first step of Adam is −lr g / (|g| + ε), both gradients being those of the weights before it."""
    trainer, batch = made("bcq")
    plain = copy.deepcopy(trainer)
    for loss, net in zip(plain.losses(batch)[0], plain.agents, strict=True):
        parameters = list(net.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss.sum(), parameters), strict=True):
            parameter.data -= 3e-4 * gradient / (gradient.abs() + 1e-8)
    trainer.update(batch)
    for mine, expected in zip(trainer.agents, plain.agents, strict=True):
        for one, other in zip(mine.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


# -- known answers ----------------------------------------------------------------------------------------------------


def fast(**config: Any) -> BCQ:
    return BCQ(BCQConfig(learning_rate=2e-2, target_every=5, hidden=16, memory="none", **config))


def test_an_agent_follows_its_own_reward() -> None:
    """Agent 0 is paid the payoff and agent 1 is charged it: it takes the column of least mean."""
    data = game(PAYOFF)
    opposed = data.replace(rewards=data.rewards * np.array([1, -1], np.float32))
    assert acted(fast(), [opposed], 100) == [[1, 0]]


def test_the_filter_holds_in_acting_unless_it_is_put_off() -> None:
    """Actions (0, 2) alone, which cost 1: without the filter what was never done looks better."""
    data = game(np.full((3, 3), -2.0), shown=[(0, 2)])
    assert acted(fast(), [data], 100) == [[0, 2]]
    (free,) = acted(fast(filter_at_eval=False), [data], 100)
    assert free != [0, 2]


def test_a_policy_remembers_with_both_of_its_networks() -> None:
    """Step by step it does what values and behaviour, unrolled from the first row on, say."""
    data, learner = datasets("discrete"), small("bcq", threshold=0.95)
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


def test_training_tells_its_losses() -> None:
    policy = BCQ.tiny().fit(datasets("discrete"), Run(seeds=(0, 1), budget=Budget(updates=2, batch_size=2)))
    assert set(policy.diagnosis(1)) == {"final_td_loss", "final_cloning_loss", "final_q", "final_likely"}
