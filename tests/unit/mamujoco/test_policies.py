"""The shipped policies of robots."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmark.behaviour.evaluation import evaluate
from benchmark.behaviour.references import measured_tasks
from tasks.common.files import sha256_of
from tasks.mamujoco.robots import ROBOTS
from tasks.mamujoco.task import REFERENCES, MAMuJoCoTask
from tasks.policies import MLPPolicy, load_card

ANT = MAMuJoCoTask("mamujoco/4ant")
SHIPPED = [task for task in map(MAMuJoCoTask, ROBOTS) if task.checkpoint("expert").exists()]


def test_cards_belong_to_their_files_and_levels_form_a_ladder() -> None:
    assert "mamujoco/4ant" in [task.spec.id for task in SHIPPED]
    for task in SHIPPED:
        for level in (*task.behaviour_levels, "history"):
            path = task.checkpoint(level)
            card = load_card(path)
            assert card["sha256"] == sha256_of(path) == task.behaviour_digest(level)
            assert (card["task"], card["engine_version"]) == (task.spec.id, task.spec.engine_version)
            assert path.stat().st_size < 1_500_000
        low, medium, expert = (
            load_card(task.checkpoint("medium"))["random_return"],
            *(load_card(task.checkpoint(level))["evaluation"]["mean"] for level in task.behaviour_levels),
        )
        assert (medium - low) / (expert - low) == pytest.approx(0.5, abs=0.08)


def test_references_are_those_of_the_shipped_expert() -> None:
    rows = json.loads(REFERENCES.read_text())["references"]
    assert set(rows) == {task.spec.id for task in SHIPPED}
    for task in SHIPPED:
        assert f"shipped expert {task.behaviour_digest('expert')[:12]}" in rows[task.spec.id]["provenance"]
        known = task.spec.score_references
        assert known is not None
        assert (known.random_return, known.expert_return) == (
            rows[task.spec.id]["random"]["mean"],
            load_card(task.checkpoint("expert"))["evaluation"]["mean"],
        )


def test_the_history_acts_with_its_own_noise_and_goes_on_to_the_expert() -> None:
    whole, until_medium = ANT.training_history("expert"), ANT.training_history()
    assert all(isinstance(phase.policy, MLPPolicy) and phase.epsilon == 0.0 for phase in whole)
    assert whole[0].noise_std == pytest.approx(0.5)  # as the recipe begins
    assert whole[-1].noise_std < 0.3
    assert 0 < sum(phase.episodes for phase in until_medium) < sum(phase.episodes for phase in whole)


def test_what_the_cards_promise_is_played() -> None:
    pytest.importorskip("mujoco", reason="needs the extra mamujoco")
    assert ANT.spec.id in [task.spec.id for task in measured_tasks("mamujoco")]
    for level in ANT.behaviour_levels:
        promised = load_card(ANT.checkpoint(level))["evaluation"]
        returns = evaluate(ANT, ANT.behaviour_policy(level), 10, seed=77)
        error = promised["std"] * np.sqrt(1 / 10 + 1 / promised["episodes"])
        assert returns.mean() == pytest.approx(promised["mean"], abs=4 * error)
