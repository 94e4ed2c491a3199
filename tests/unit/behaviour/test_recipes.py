"""Which algorithm trains what, and what training leaves of a battle's run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.behaviour import train as training
from benchmark.behaviour.evaluation import Played, RandomPolicy
from benchmark.behaviour.loop import Round
from benchmark.behaviour.recipes import recipe_of
from benchmark.behaviour.train import Rung, TrainingRun, train_behaviour
from tasks.common.errors import UsageError
from tasks.policies import MLPPolicy, PolicyTask, SoftmaxPolicy, load_card, load_policy, load_weights
from tasks.registry import make_task


def task_of(name: str) -> PolicyTask:
    task = make_task(name)
    assert isinstance(task, PolicyTask)
    return task


def test_every_family_has_its_algorithm_and_battles_a_second_one() -> None:
    first = {name: recipe_of(task_of(name)).algorithm for name in ("mpe/tag", "smac/3m", "mamujoco/4ant")}
    assert first == {"mpe/tag": "matd3", "smac/3m": "mappo", "mamujoco/4ant": "mappo"}
    assert recipe_of(task_of("mamujoco/4ant"), "matd3").algorithm == "matd3"
    assert recipe_of(task_of("smac/3m"), "qmix").algorithm == "qmix"
    with pytest.raises(UsageError, match="smac/3m: 'matd3' does not train it. Choose mappo or qmix"):
        recipe_of(task_of("smac/3m"), "matd3")
    with pytest.raises(UsageError, match="Choose matd3-gumbel"):
        recipe_of(task_of("mpe/tag[actions=discrete]"), "qmix")


def test_a_run_in_battles_has_greedy_rungs_and_early_ones_that_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    task, told = task_of("smac/3m"), []
    recipe = replace(recipe_of(task), rounds=lambda seed, steps: rounds(), evaluate_every=4, close_until=3)

    def rounds() -> Iterator[Round]:
        for index in itertools.count():
            yield Round(index, 100 * index, uniform=False, actors={"w0": np.full((1, 1, 1), index, np.float32)})

    def played(task: PolicyTask, policy: MLPPolicy | SoftmaxPolicy, episodes: int, seed: int) -> Played:
        told.append((type(policy), policy.weights["w0"].item()))
        return Played(np.full(episodes, policy.weights["w0"].item()), None)

    monkeypatch.setattr(training, "play", played)
    run = training._train(task, recipe, 0, 900, None, None)
    greedy, drawn = ([(r.round, r.mean_return) for r in run.ladder if r.drawn == chosen] for chosen in (False, True))
    assert greedy == [(0, 0.0), (4, 4.0), (8, 8.0), (9, 9.0)]  # and the last one
    assert drawn == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert [kind for kind, _ in told] == [SoftmaxPolicy, MLPPolicy, SoftmaxPolicy, SoftmaxPolicy, *[MLPPolicy] * 3]


def test_a_battle_has_three_levels_and_a_history_to_the_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns rise from 0 to 16 if greedy, more slowly if drawn; poor has 4 of it, medium 8, both drawn."""

    def rung(n: int, mean: float, drawn: bool) -> Rung:
        return Rung(n, 100 * n, mean, {"w0": np.full((1, 1, 1), mean, np.float32)}, drawn)

    slow = {0: 1.0, 2: 3.0, 4: 5.5, 6: 9.0, 8: 12.0}
    quick = {0: 4.0, 2: 8.0, 10: 15.0, 20: 16.0, 30: 14.0}
    rungs = [*(rung(n, m, True) for n, m in slow.items()), *(rung(n, m, False) for n, m in quick.items())]
    actors = [{"w0": np.full((1, 1, 1), n, np.float16)} for n in range(30)]
    run = TrainingRun(ladder=rungs, actors=actors, epsilons=[0.0] * 30)

    def played(task: PolicyTask, policy: MLPPolicy | SoftmaxPolicy | RandomPolicy, episodes: int, seed: int) -> Played:
        mean = 0.0 if isinstance(policy, RandomPolicy) else policy.weights["w0"].item()
        return Played(np.full(episodes, mean), np.ones(episodes, dtype=np.bool_))

    monkeypatch.setattr(training, "_train", lambda *_: run)
    monkeypatch.setattr(training, "play", played)
    found = train_behaviour("smac/3m", 0, seconds=5.0, algorithm="mappo", out=tmp_path)
    assert found == {"random": 0.0, "poor": 3.0, "medium": 9.0, "expert": 16.0}
    task = task_of("smac/3m")
    card = load_card(task.checkpoint("poor", tmp_path))
    assert card["command"] == "bench policy train 'smac/3m' --seed 0 --seconds 5 --algorithm mappo"
    assert card["evaluation"]["win_rate"] == 1.0
    assert card["run"]["learning_curve"] == [[100 * n, mean] for n, mean in quick.items()]
    run.ladder += [rung(n, float(n), False) for n in range(31, 140)]
    curve = training._learning_curve(run)
    assert (len(curve), curve[0], curve[-1]) == (50, [0, 4.0], [13_900, 139.0])
    assert isinstance(load_policy(task.checkpoint("medium", tmp_path), "argmax"), SoftmaxPolicy)
    assert isinstance(load_policy(task.checkpoint("expert", tmp_path), "argmax"), MLPPolicy)
    history = load_weights(task.checkpoint("history", tmp_path))
    assert history["episodes"].tolist() == [0] + [128] * 20  # to round 20, the expert's
    assert history["medium"].tolist() == [6 * 128]  # half of 16 was reached in round 6
    assert "epsilon" not in history
