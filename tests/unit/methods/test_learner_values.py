"""Values with a known answer: those of a game and of its continuation, and those of what the data never show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.algorithms.sequence_learner import unrolled
from methods.base import Budget, Run
from methods.data.sequences import SequenceBatch
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.continuous import ContinuousBCQ
from methods.learners.bcq.discrete import DiscreteBCQ, DiscreteBCQTrainer
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import ContinuousCFCQL
from methods.learners.cfcql.discrete import DiscreteCFCQL
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.learners.omar.discrete import DiscreteOMAR, DiscreteOMARTrainer
from methods.learners.qmix_bcq import QMIXBCQ, QMIXBCQConfig, QMIXBCQTrainer
from methods.learners.qmix_cql import QMIXCQL, QMIXCQLConfig
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.discrete import DiscreteTD3BC
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.problems import game
from tests.unit.methods.small_trainers import AGENTS, sequences

FAST: dict[str, Any] = {"learning_rate": 2e-2, "target_every": 5, "hidden": 16}
OMAR: dict[str, Any] = {**FAST, "critic_hidden": 16}
BY_DATA: dict[str, Any] = {"behaviour_batch_size": 32, "behaviour_learning_rate": 2e-2}
CFCQL: dict[str, Any] = {**FAST, **BY_DATA, "behaviour_updates": 20}
TD3BC: dict[str, Any] = {"learning_rate": 2e-2, "polyak": 0.2, "hidden": 16, "critic_hidden": 16}


def read(trainer: Any, batch: SequenceBatch) -> Tensor:
    """At the first row of a game: (N, A) of the agents' own actions, or (A, A) of all joint ones."""
    seen = batch.observations[:, :1, :1]  # (1, 1, 1, N, D)
    with torch.no_grad():
        if isinstance(trainer, DiscreteOMARTrainer):
            found: Tensor = trainer.critics(trainer.view(batch).states[:, :1, :1], seen)[0, 0, 0, 0]
        elif isinstance(trainer, DiscreteBCQTrainer):
            found = unrolled(trainer.values, seen)[0, 0, 0]
        else:
            none_yet = None if batch.last_actions is None else batch.last_actions[:, :1, :1]
            q = trainer.team.each(seen, none_yet)[0, 0, 0]  # (N, A)
            a = q.shape[-1]
            joint = torch.stack([q[0][:, None].expand(a, a), q[1][None].expand(a, a)], dim=-1)
            found = trainer.team.mixing(seen, None).totals(joint.view(1, 1, 1, a * a, 2)).view(a, a)
    return found


def values(learner: Any, data: OfflineDataset, updates: int, head_start: float = 0.0) -> Tensor:
    """What `read` tells after training. `head_start`: how much the last action is believed in before."""
    trainer = learner.new_trainer([data], Run(seeds=(0,)))
    if head_start > 0:
        team = isinstance(trainer, QMIXBCQTrainer)
        with torch.no_grad():
            for net in (trainer.team.agent, trainer.target.agent) if team else (trainer.values, trainer.target):
                list(net.parameters())[-1][..., -1] += head_start  # the last bias
    for batch in sequences(learner, [data], updates, batch_size=32):
        trainer.update(batch)
    return read(trainer, batch)


# -- what follows -----------------------------------------------------------------------------------------------------

STEPS: dict[str, Any] = {"memory": "none", "discount": 0.5}
FREE: dict[str, Any] = {**STEPS, "conservatism": 0.0}
VALUED: dict[str, tuple[Any, float, int]] = {  # learner, payoff by which it is paid 1, updates
    "bcq": (DiscreteBCQ(BCQConfig(**FAST, **STEPS)), 2.0, 150),
    "cfcql": (DiscreteCFCQL(CFCQLConfig(**CFCQL, **FREE)), 1.0, 150),
    "omar": (DiscreteOMAR(OMARConfig(**OMAR, **FREE)), 2.0, 100),
    "qmix-cql": (QMIXCQL(QMIXCQLConfig(**FAST, **FREE)), 2.0, 150),
}
ENDS = pytest.mark.parametrize(("ends", "value"), [(True, 1.0), (False, 2.0)])
"""Paid 1: at a true end the value is 1; at a time limit, with γ = 0.5, it is 1 / (1 − 0.5) = 2."""


@ENDS
@pytest.mark.parametrize("name", VALUED)
def test_values_are_those_of_the_game_and_of_its_continuation(name: str, ends: bool, value: float) -> None:
    learner, payoff, updates = VALUED[name]
    found = values(learner, game(np.full((2, 2), payoff), ends=ends), updates)
    assert found.flatten().tolist() == pytest.approx([value] * 4, abs=0.1)


@ENDS
def test_the_value_that_td3bc_tells_is_that_of_the_game_and_of_its_continuation(ends: bool, value: float) -> None:
    data, told = game(np.ones((2, 2)), ends=ends), {}
    learner = DiscreteTD3BC(TD3BCConfig(**TD3BC, **STEPS))
    trainer = learner.new_trainer([data], Run(seeds=(0,)))
    for batch in sequences(learner, [data], 100, batch_size=32):
        told = trainer.update(batch)
    assert float(told["q"]) == pytest.approx(value, abs=0.1)


LATER: dict[str, tuple[Any, float, tuple[int, int]]] = {  # learner, reward of an agent, updates without and with ends
    "bcq": (
        ContinuousBCQ(
            BCQConfig(
                hidden=32,
                second_hidden=32,
                vae_hidden=32,
                discount=0.5,
                polyak=0.1,
                learning_rate=3e-3,
                target_samples=2,
            )
        ),
        1.0,
        (300, 200),
    ),
    "cfcql": (
        ContinuousCFCQL(CFCQLConfig(hidden=32, conservatism=0.0, discount=0.5, polyak=0.3, learning_rate=0.01)),
        1 / AGENTS,
        (400, 300),
    ),
    "omar": (
        ContinuousOMAR(OMARConfig(hidden=32, conservatism=0.0, tau=0.0, discount=0.5, polyak=0.1)),
        1.0,
        (300, 300),
    ),
}


@pytest.mark.parametrize("name", LATER)
def test_a_later_reward_counts_discounted_and_not_beyond_a_true_end(name: str) -> None:
    """Q of the data: paid 1 each step, cfcql's team by a third an agent; without an end 1 / (1 − γ), with one 1."""
    learner, reward, (without, with_ends) = LATER[name]
    data = sample_dataset("continuous", episodes=20).without_privileged()
    data = data.replace(rewards=np.full_like(data.rewards, reward))
    ended = data.replace(terminals=np.ones_like(data.terminals))

    def q(own: OfflineDataset, updates: int) -> float:
        policy = learner.fit([own], Run(seeds=(0,), budget=Budget(updates=updates, batch_size=64)))
        return float(policy.diagnosis(0)["final_q"])

    assert q(data, without) == pytest.approx(2.0, abs=0.15)
    assert q(ended, with_ends) == pytest.approx(1.0, abs=0.1)


# -- what was never shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_a_conservative_critic_of_omar_keeps_down_what_the_data_never_show(memory: str) -> None:
    data = game(np.full((3, 3), 2.0), shown=[(0, 0), (1, 1)])
    careful = values(DiscreteOMAR(OMARConfig(**OMAR, memory=memory)), data, 100)
    plain = values(DiscreteOMAR(OMARConfig(**OMAR, memory=memory, conservatism=0.0)), data, 100)
    assert (careful[:, 2] < careful[:, :2].amin(dim=1) - 2).all()
    assert (plain[:, 2] > plain[:, :2].amin(dim=1) - 1).all()


JOINT: dict[str, tuple[Any, Any, dict[str, Any], float, float, int]] = {
    "cfcql": (DiscreteCFCQL, CFCQLConfig, {**CFCQL, "conservatism": 5.0}, 1.0, 1.0, 100),
    "qmix-cql": (QMIXCQL, QMIXCQLConfig, FAST, 2.0, 0.0, 150),
}
"""Learner, its config, payoff of the best joint action, how far below it a value never shown is, updates."""


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("name", JOINT)
def test_a_value_never_shown_stays_below_that_of_plain_q_learning(name: str, memory: str) -> None:
    learner, config, given, best, margin, updates = JOINT[name]
    data = game(best * np.diag([1.0, 1.0, 0.0]), shown=[(0, 0), (1, 1)])
    careful = values(learner(config(**given, memory=memory)), data, updates)
    plain = values(learner(config(**{**given, "conservatism": 0.0}, memory=memory)), data, updates)
    unseen = torch.ones(3, 3, dtype=torch.bool)
    unseen[:2, :2] = False  # an agent does what it never did
    assert (careful[unseen] < plain[unseen]).all()
    assert (careful[unseen] < careful[0, 0] - margin).all()
    assert (plain[unseen] > plain[0, 0] - 1).all()


FILTERED = {"bcq": (DiscreteBCQ, BCQConfig), "qmix-bcq": (QMIXBCQ, QMIXBCQConfig)}


@pytest.mark.parametrize("name", FILTERED)
def test_targets_of_a_filter_ignore_what_was_never_done(name: str) -> None:
    """Actions of 0 alone, reward 0, no end: whatever is believed of the last one, y is γ Q̄ of 0, which tends to 0."""
    learner, config = FILTERED[name]
    data = game(np.zeros((3, 3)), shown=[(0, 0)], ends=False)

    def value(threshold: float) -> float:
        found = values(learner(config(**FAST, **STEPS, threshold=threshold)), data, 150, head_start=3.0)
        return float(found[0, 0] if name == "qmix-bcq" else found[:, 0].abs().max())

    assert abs(value(0.4)) < 0.1
    assert value(0.0) > 0.5  # it believes in what was never done
