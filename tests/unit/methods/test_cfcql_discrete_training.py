"""CFCQL for discrete actions: the model of the data and its own budget, clipping, and trainings that are killed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Budget, LearnedPolicy, Run
from methods.data.sequences import episode_sequences, transition_sequences
from methods.learners.cfcql import CFCQL
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.discrete import DiscreteCFCQL
from tests.unit.checkpoints import KilledError, Memory
from tests.unit.methods.problems import game
from tests.unit.methods.small_trainers import REPLICAS, datasets, generators, small


def test_the_behaviour_stays_as_it_is() -> None:
    data = datasets("discrete")
    trainer = small("cfcql").new_trainer(data, Run(seeds=(0, 1)))
    assert trainer.behaviour is not None

    def weights(net: torch.nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    behaviour = weights(trainer.behaviour)
    for batch in episode_sequences(data, generators(), batch_size=4, updates=6, device="cpu"):
        trainer.update(batch)
    assert torch.equal(weights(trainer.behaviour), behaviour)
    assert trainer.done == 6


def test_gradients_of_agents_and_mixer_are_clipped_together() -> None:
    data = [d.replace(rewards=1e4 * d.rewards) for d in datasets("discrete")]
    trainer = small("cfcql").new_trainer(data, Run(seeds=(0, 1)))
    trainer.update(next(episode_sequences(data, generators(), batch_size=4, updates=1, device="cpu")))
    flat = [p.grad.view(REPLICAS, -1) for p in trainer.team.parameters() if p.grad is not None]
    torch.testing.assert_close(torch.cat(flat, dim=1).norm(dim=1), torch.full((2,), 10.0))


def test_the_behaviour_knows_the_data_and_counts_the_agent_that_leaves_them() -> None:
    """Agent 0 does anything, agent 1 always the same: at equal values it is the second that is far from the data."""
    data = game(np.zeros((3, 3)), shown=[(a, 2) for a in range(3)])
    fast: dict[str, Any] = {"behaviour_updates": 60, "behaviour_batch_size": 32, "behaviour_learning_rate": 2e-2}
    config = CFCQLConfig(**fast, hidden=16, memory="none", temperature=1e4)
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


def test_the_model_of_the_data_has_a_budget_of_its_own() -> None:
    """The protocol's is that of the team; with uniform weights there is no model."""
    told: list[tuple[int, str]] = []
    run = Run(
        seeds=(0, 1),
        budget=Budget(updates=2, batch_size=4),
        progress=lambda done, total, message: told.append((total, message.split()[0])),
    )
    CFCQL(small("cfcql").config).fit(datasets("discrete"), run)
    assert told == [(3, "behaviour"), (2, "td_loss")]
    policy = CFCQL(small("cfcql", weights="uniform").config).fit(datasets("discrete"), run)
    assert told[2:] == [(2, "td_loss")]
    assert set(policy.diagnosis(0)) == {"final_td_loss", "final_q", "final_cql_gap"}
    learner, unbound = small("cfcql"), Run(seeds=(0, 1))
    mine, other = (learner.fitted_behaviour(datasets("discrete"), own).state_dict() for own in (run, unbound))
    assert all(torch.equal(mine[name], other[name]) for name in mine)


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
