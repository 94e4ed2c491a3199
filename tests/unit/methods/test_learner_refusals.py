"""Data that learners of values cannot learn from: nothing, what is not finite, and steps without what a form needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.base import Budget, Run, UnsupportedError
from methods.learners import LEARNERS
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.problems import single_transitions

FORMS = [
    *[(name, "discrete") for name in ("bcq", "cfcql", "cql", "icq", "omar", "omiga", "qmix-bcq", "qmix-cql", "td3bc")],
    *[(name, "continuous") for name in ("bcq", "cfcql", "cql", "icq", "omar", "omiga", "td3bc")],
]


def learner(name: str, **params: Any) -> Any:
    return LEARNERS.load(name).tiny({**LEARNERS.entry(name).params, **params})


@pytest.mark.parametrize(("name", "shape"), FORMS)
def test_data_without_a_transition_are_refused(name: str, shape: str) -> None:
    with pytest.raises(UnsupportedError, match="no transition"):
        learner(name).fit([OfflineDataset.empty(sample_dataset(shape).spec)], Run(seeds=(0,)))


@pytest.mark.parametrize(("name", "shape"), FORMS)
def test_rewards_that_are_not_finite_are_an_error_before_training(name: str, shape: str) -> None:
    data, updates = sample_dataset(shape).without_privileged(), []
    rewards = data.rewards.copy()
    rewards[7, 1] = np.nan
    run = Run(seeds=(0,), progress=lambda done, total, message: updates.append(done))
    with pytest.raises(DataError, match="1 rewards are not finite, the first at step 7"):
        learner(name).fit([data.replace(rewards=rewards)], run)
    with pytest.raises(DataError, match="not finite"):
        learner(name).fit([data.replace(rewards=np.full_like(rewards, np.nan))], run)
    assert not updates


@pytest.mark.parametrize(("name", "shape"), FORMS)
def test_every_seed_needs_a_dataset(name: str, shape: str) -> None:
    with pytest.raises(UsageError, match="1 datasets for 2 seeds"):
        learner(name).fit([sample_dataset(shape).without_privileged()], Run(seeds=(0, 1)))


@pytest.mark.parametrize("name", ["qmix-bcq", "qmix-cql"])
def test_continuous_actions_are_refused_where_values_of_all_are_compared(name: str) -> None:
    with pytest.raises(UnsupportedError, match="continuous"):
        learner(name).fit([sample_dataset("continuous")], Run(seeds=(0,)))


# -- single transitions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bcq", "cfcql", "cql", "omar", "omiga", "qmix-bcq", "qmix-cql", "td3bc"])
def test_single_transitions_need_agents_without_memory(name: str) -> None:
    run, owner = Run(seeds=(0,), budget=Budget(updates=2, batch_size=8)), "omar" if name == "cql" else name
    with pytest.raises(UnsupportedError, match=rf"Use {owner}\[memory=none\]"):
        learner(name, memory="gru").fit([single_transitions()], run)
    learner(name, memory="none").fit([single_transitions()], run)


def single_steps(terminal: bool, shape: str = "continuous") -> OfflineDataset:
    """Transitions as episodes of one step each, of a task of six steps."""
    whole = sample_dataset(shape, episodes=2).without_privileged()
    step, row = np.arange(whole.n_steps), whole.row_of_step()
    ends, rows = np.full(len(step), terminal), np.stack([row, row + 1], axis=1).ravel()
    return whole.replace(
        observations=whole.observations[rows],
        available_actions=None if whole.available_actions is None else whole.available_actions[rows],
        terminals=ends,
        truncations=~ends,
        episode_starts=np.arange(len(step) + 1),
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_icq_draws_what_was_done_behind_single_transitions(terminal: bool) -> None:
    run, icq = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4)), LEARNERS.load("icq")
    assert icq().fit([single_steps(terminal=terminal)], run).diagnosis(0)["final_used"] == 1.0


@pytest.mark.parametrize("terminal", [False, True])
def test_a_recurrent_icq_refuses_them_and_names_a_way_that_is_one(terminal: bool) -> None:
    run, icq = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4)), LEARNERS.load("icq")
    with pytest.raises(UnsupportedError, match=r"Use icq\[memory=none\]"):
        icq().fit([single_steps(terminal=terminal, shape="discrete")], run)
    chosen = icq.from_params({"memory": "none"})
    assert chosen.fit([single_steps(terminal=terminal, shape="discrete")], run).diagnosis(0)["final_used"] == 1.0
