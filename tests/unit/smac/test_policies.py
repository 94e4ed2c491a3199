"""Shipped policies of battles: their cards, their ladder, and what one of them does on the engine."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.behaviour.evaluation import evaluate
from tasks.common.files import sha256_of
from tasks.datasets import regimes
from tasks.policies import MLPPolicy, SoftmaxPolicy, load_card
from tasks.registry import make_task
from tasks.smac.maps import BATTLES
from tasks.smac.task import SMACTask


def task_of(name: str) -> SMACTask:
    task = make_task(name)
    assert isinstance(task, SMACTask)
    return task


SHIPPED = [name for name in BATTLES if task_of(name).checkpoint("expert").exists()]


def test_the_battles_of_the_first_tables_have_policies() -> None:
    assert {"smac/3m", "smac/2s3z", "smacv2/terran_5_vs_5"} <= set(SHIPPED)
    folders = {path.name for path in SMACTask.checkpoints.iterdir()}
    assert folders == {task_of(name).folder for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_belong_to_their_files_and_levels_form_a_ladder(name: str) -> None:
    task, means = task_of(name), {}
    for level in task.behaviour_levels:
        path = task.checkpoint(level)
        card = load_card(path)
        assert card["sha256"] == sha256_of(path) == task.behaviour_digest(level)
        assert (card["task"], card["engine_version"]) == (name, task.spec.engine_version)
        assert card["evaluation"]["episodes"] == 1000
        assert path.stat().st_size < 700_000
        assert isinstance(task.behaviour_policy(level), MLPPolicy if level == "expert" else SoftmaxPolicy)
        means[level] = card["evaluation"]["mean"]
    references = task.spec.score_references
    assert references is not None
    low, high = references.random_return, means["expert"]
    shares = {level: (means[level] - low) / (high - low) for level in ("poor", "medium")}
    assert shares["poor"] == pytest.approx(0.25, abs=0.08)
    assert shares["medium"] == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_history_goes_on_to_the_expert_and_medium_is_reached_on_the_way(name: str) -> None:
    task = task_of(name)
    whole, until_medium = task.training_history("expert"), task.training_history()
    assert task.checkpoint("history").stat().st_size < 1_500_000
    assert all(isinstance(phase.policy, SoftmaxPolicy) and phase.episodes > 0 for phase in whole)
    assert 0 < sum(p.episodes for p in until_medium) < sum(p.episodes for p in whole)


def test_what_the_cards_of_3m_promise_is_played() -> None:
    pytest.importorskip("jaxmarl", reason="needs the extra smax")
    task = task_of("smac/3m")
    for level in task.behaviour_levels:
        promised = load_card(task.checkpoint(level))["evaluation"]
        returns = evaluate(task, task.behaviour_policy(level), 200, seed=77)
        error = promised["std"] * np.sqrt(1 / 200 + 1 / promised["episodes"])
        assert returns.mean() == pytest.approx(promised["mean"], abs=3 * error)


def test_regimes_of_3m_are_ordered_and_legal() -> None:
    """Means of 128 episodes each; good and poor are ten standard errors apart."""
    pytest.importorskip("jaxmarl", reason="needs the extra smax")
    task, means = task_of("smac/3m"), {}
    for name in ("good", "medium", "poor", "exp", "exp-m", "one-expert", "replay"):
        data = regimes.collect(task, regimes.resolve(task, name), 128, 0, lambda *_: None)
        data.validate()
        means[name] = data.returns().mean()
    assert means["good"] > means["medium"] > means["poor"]
    assert means["exp"] > means["exp-m"] > means["one-expert"]
    assert means["poor"] < means["replay"] < means["good"]
