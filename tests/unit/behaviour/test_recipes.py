"""Which algorithm trains what, and what training leaves of a battle's run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.behaviour import train as training
from benchmark.behaviour.evaluation import Played, RandomPolicy
from benchmark.behaviour.recipes import recipe_of
from benchmark.behaviour.train import Rung, TrainingRun, train_behaviour
from tasks.common.errors import UsageError
from tasks.policies import MLPPolicy, PolicyTask, load_card, load_weights
from tasks.registry import make_task


def task_of(name: str) -> PolicyTask:
    task = make_task(name)
    assert isinstance(task, PolicyTask)
    return task


def test_every_family_has_its_algorithm_and_battles_a_second_one() -> None:
    first = {name: recipe_of(task_of(name)).algorithm for name in ("mpe/tag", "smac/3m", "mamujoco/4ant")}
    assert first == {"mpe/tag": "matd3", "smac/3m": "mappo", "mamujoco/4ant": "matd3"}
    assert recipe_of(task_of("smac/3m"), "qmix").algorithm == "qmix"
    with pytest.raises(UsageError, match="smac/3m: 'matd3' does not train it. Choose mappo or qmix"):
        recipe_of(task_of("smac/3m"), "matd3")
    with pytest.raises(UsageError, match="Choose matd3-gumbel"):
        recipe_of(task_of("mpe/tag[actions=discrete]"), "qmix")


def test_early_rounds_of_battles_are_evaluated_more_often() -> None:
    rungs = [index for index in range(101) if recipe_of(task_of("smac/3m")).is_rung(index)]
    assert rungs == [*range(0, 40, 2), 40, 60, 80, 100]


def test_a_battle_has_three_levels_and_a_history_to_the_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns rise from 0 to 16; a poor policy has 4 of it, a medium one 8."""
    means = {0: 1.0, 2: 3.0, 4: 5.0, 6: 9.0, 8: 12.0, 10: 15.0, 20: 16.0, 30: 14.0}
    rungs = [Rung(n, 100 * n, mean, {"w0": np.full((1, 1, 1), mean, np.float32)}) for n, mean in means.items()]
    actors = [{"w0": np.full((1, 1, 1), n, np.float16)} for n in range(30)]
    run = TrainingRun(ladder=rungs, actors=actors, epsilons=[0.0] * 30)

    def played(task: PolicyTask, policy: MLPPolicy | RandomPolicy, episodes: int, seed: int) -> Played:
        mean = policy.weights["w0"].item() if isinstance(policy, MLPPolicy) else 0.0
        return Played(np.full(episodes, mean), np.ones(episodes, dtype=np.bool_))

    monkeypatch.setattr(training, "_train", lambda *_: run)
    monkeypatch.setattr(training, "play", played)
    found = train_behaviour("smac/3m", 0, seconds=5.0, algorithm="mappo", out=tmp_path)
    assert found == {"random": 0.0, "poor": 3.0, "medium": 9.0, "expert": 16.0}
    task = task_of("smac/3m")
    card = load_card(task.checkpoint("poor", tmp_path))
    assert card["command"] == "bench policy train 'smac/3m' --seed 0 --seconds 5 --algorithm mappo"
    assert card["evaluation"]["win_rate"] == 1.0
    history = load_weights(task.checkpoint("history", tmp_path))
    assert history["episodes"].tolist() == [0] + [128] * 20  # to round 20, the expert's
    assert history["medium"].tolist() == [6 * 128]  # half of 16 was reached in round 6
    assert "epsilon" not in history
