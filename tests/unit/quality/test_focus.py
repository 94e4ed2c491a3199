import numpy as np
import pytest

from benchmark.checks.sample_data import sample_dataset
from benchmark.quality import focus
from benchmark.quality.subject import Subject, UndefinedError
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.registry import make_task

TARGETS = np.array(
    [
        [0, 0, 0],  # all on one
        [0, 0, 1],  # two of three
        [2, -1, 2],  # two of two, one agent does something else
        [0, 1, 2],  # everybody another
        [1, -1, -1],  # one attacker: no choice
        [0, 0, 0],  # the third is dead: two of two, and all who live on one
        [1, 2, -1],  # the third is dead: each another, and all who live attack
    ]
)
ALIVE = np.ones((7, 3), dtype=np.bool_)
ALIVE[5:, 2] = False


def test_shares_by_hand():
    found = focus.focus(TARGETS, ALIVE)
    assert (found.steps, found.share) == (6, pytest.approx((3 + 2 + 2 + 0 + 2 + 0) / (3 + 3 + 2 + 3 + 2 + 2)))
    assert (found.steps_of_all, found.all_on_one) == (5, pytest.approx(2 / 5))  # rows 0, 1, 3, 5, 6


def test_the_dead_attack_nobody():
    """Agents 0 and 2 attack enemy 0; agent 2 is dead, so agents 0 and 1 remain, each with another enemy."""
    found = focus.focus(np.array([[0, 1, 0]]), np.array([[True, True, False]]))
    assert (found.share, found.all_on_one) == (0.0, 0.0)


def test_without_attacks_there_is_nothing_to_share():
    found = focus.focus(np.full((4, 3), -1), np.ones((4, 3), dtype=np.bool_))
    assert (found.share, found.all_on_one, found.steps, found.steps_of_all) == (None, None, 0, 0)
    nobody = focus.focus(np.array([[0, 0, 0]]), np.zeros((1, 3), dtype=np.bool_))
    assert (nobody.share, nobody.steps_of_all) == (None, 0)


def battle(actions):
    """One battle of 3m with these actions (S, 3), in which nobody dies."""
    task = make_task("smac/3m")
    spec, steps = task.spec, len(actions)
    columns = {
        name: np.zeros(shape, dtype=dtype)
        for name, (shape, dtype) in OfflineDataset.layout(spec, 1, steps).items()
        if name in OfflineDataset.required_columns(spec) or name == "alive"
    }
    columns["episode_starts"] = np.array([0, steps])
    columns["alive"][:] = True
    return task, OfflineDataset(spec=spec, **{**columns, "actions": np.array(actions)})


def test_original_beside_synthetic():
    task, original = battle([[5, 6, 7]])
    _, synthetic = battle([[5, 5, 6]])
    measured = focus.measure(Subject(original, synthetic, task, None, 0)).metrics["focus_fire"]
    assert (measured.value, measured.original) == (pytest.approx(2 / 3), 0.0)
    assert (measured.details["all_on_one"], measured.details["original_all_on_one"]) == (0.0, 0.0)
    none = focus.measure(Subject(original, battle([[4, 4, 5]])[1], task, None, 0)).metrics["focus_fire"]
    assert (none.value, none.reason) == (None, "no two agents attack at the same step")


def test_tasks_without_attacks_say_so(subject, recorded):
    with pytest.raises(UsageError, match="mpe/spread: no action of this task attacks"):
        focus.measure(subject(recorded, recorded))


def test_one_agent_has_nobody_to_join():
    data = sample_dataset("one-agent").without_privileged()
    alone = type("Alone", (), {"spec": data.spec})()
    with pytest.raises(UndefinedError, match="one agent"):
        focus.measure(Subject(data, data, alone, None, 0))
