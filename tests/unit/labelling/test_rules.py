"""The heuristic and the privileged oracle on windows worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from methods.labelling.features import kind_of
from methods.labelling.heuristic import HeuristicOracle, battle_scores, coverage_scores
from methods.labelling.privileged import PrivilegedOracle
from methods.labelling.windows import LabelWindows
from tasks.common.errors import UsageError
from tasks.registry import make_task
from tasks.spec import TaskSpec
from tests.unit.labelling.conftest import OTHER, battle_spec, spread_windows


def ignore(done: int, total: int, message: str) -> None:
    """No progress."""


@pytest.mark.parametrize(
    ("task", "kind"),
    [("mpe/spread", "coverage"), ("mpe/spread-5", "coverage"), ("mpe/tag", "pursuit"), ("mpe/world", "pursuit")],
)
def test_the_kind_of_a_task_follows_from_its_names(task: str, kind: str) -> None:
    assert kind_of(make_task(task).spec) == kind
    assert kind_of(battle_spec()) == "battle"


def test_coverage_rewards_the_approach_and_the_nearness(spread: TaskSpec) -> None:
    windows = spread_windows([[[1.0, 0.8, 0.5], [0.7, 0.8, 0.4], [0.2, 0.9, 0.1]]])
    scores = coverage_scores(spread, windows)
    assert scores[0] == pytest.approx([0.8 - 1.9 / 3, -0.1 - 2.5 / 3, 0.4 - 1.0 / 3])
    assert HeuristicOracle(spread).label(windows, ignore).tolist() == [0]


def test_who_stands_on_its_landmark_is_better_than_who_drifts_nearer(spread: TaskSpec) -> None:
    windows = spread_windows([[[0.02, 0.9, 0.8], [0.03, 0.8, 0.8], [0.03, 0.6, 0.9]]])
    assert HeuristicOracle(spread).label(windows, ignore).tolist() == [0]


def test_a_collision_costs_a_tenth_and_the_first_row_nothing(spread: TaskSpec) -> None:
    windows = spread_windows([[[1.0, 0.8, 0.5], [0.7, 0.8, 0.4], [0.2, 0.9, 0.1]]])
    windows.observations[0, :, 0, OTHER : OTHER + 2] = 0.2  # agents 0 and 1 touch in all three rows
    windows.observations[0, :, 1, OTHER : OTHER + 2] = 0.2
    scores = coverage_scores(spread, windows)
    assert scores[0] == pytest.approx([0.6 - 1.9 / 3, -0.3 - 2.5 / 3, 0.4 - 1.0 / 3])
    assert HeuristicOracle(spread).label(windows, ignore).tolist() == [2]


def test_padding_does_not_count(spread: TaskSpec) -> None:
    windows = spread_windows([[[1.0, 0.8, 0.5], [0.7, 0.8, 0.4], [0.7, 0.8, 0.4]]], steps=[1])
    windows.observations[0, 2, :, OTHER : OTHER + 2] = 0.1  # a collision in a row past the end
    assert coverage_scores(spread, windows)[0] == pytest.approx([0.3 - 0.85, -0.8, 0.1 - 0.45])


def test_nobody_is_named_where_all_are_alike(spread: TaskSpec) -> None:
    windows = spread_windows(
        [[[1.0, 0.5, 0.9], [1.0, 0.5, 0.9], [1.0, 0.5, 0.9]], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]]
    )
    oracle = HeuristicOracle(spread)
    assert oracle.label(windows, ignore).tolist() == [1, -1]
    assert oracle.report() == {"rule": "coverage", "undecided": 1}


def test_pursuit_rewards_contact(tag: TaskSpec) -> None:
    column = tag.observation_features.index("prey_offset_x")
    observations = np.zeros((1, 3, 3, 16), dtype=np.float32)
    observations[0, :, :, column] = [[0.5, 0.1, 0.3], [0.3, 0.1, 0.3], [0.2, 0.1, 0.3]]
    windows = LabelWindows(
        observations=observations,
        actions=np.zeros((1, 2, 3), dtype=np.int64),
        rewards=np.zeros((1, 2), dtype=np.float32),
        steps=np.array([2]),
    )
    oracle = HeuristicOracle(tag)
    assert oracle.scores(windows)[0] == pytest.approx(
        [0.3 - 1 / 3, 1.0 - 0.1, -0.3]
    )  # two rows of contact after the first
    assert oracle.label(windows, ignore).tolist() == [1]


def test_a_battle_is_judged_by_attacks_focus_and_health() -> None:
    spec = battle_spec()
    actions = np.array([[[2, 3], [2, 1], [0, 2], [2, 0]]])  # (1, 4, 2)
    available = np.ones((1, 5, 2, 4), dtype=np.bool_)
    available[0, 2, 0, 2:] = False  # agent 0 cannot attack in step 2
    alive = np.ones((1, 5, 2), dtype=np.bool_)
    alive[0, 3:, 1] = False
    health = np.array([[[1.0, 1.0], [1.0, 0.9], [1.0, 0.4], [0.8, 0.0], [0.8, 0.0]]], dtype=np.float32)[..., None]
    windows = LabelWindows(
        observations=health,
        actions=actions,
        rewards=np.zeros((1, 4), dtype=np.float32),
        steps=np.array([4]),
        available_actions=available,
        alive=alive,
    )
    # Agent 0: 3 attacks in 3 steps that allow one, all on enemy 0, the main target; it loses 0.2 health.
    # Agent 1: 2 attacks in 3 living steps, 1 of 2 on enemy 0; it loses all health.
    assert battle_scores(spec, windows)[0] == pytest.approx([1 + 0.5 - 0.05, 2 / 3 + 0.25 - 0.25])


def test_without_a_rule_the_other_oracles_are_named() -> None:
    from benchmark.checks import sample_spec

    with pytest.raises(UsageError, match=r"no rule tells.*oracle=llm.*oracle=privileged"):
        HeuristicOracle(sample_spec("continuous"))


def test_the_most_expert_steps_win() -> None:
    expert, medium, random, learner = range(4)
    behaviour = np.array(
        [
            [[random, expert, medium]] * 3,
            [[medium, medium, learner], [medium, learner, learner], [random, expert, learner]],
            [[random, random, learner], [random, random, random], [-1, -1, -1]],
            [[expert, expert, random], [expert, expert, random], [expert, expert, medium]],
            [[-1, -1, -1]] * 3,
        ],
        dtype=np.int8,
    )
    windows = LabelWindows(
        observations=np.zeros((5, 4, 3, 1), dtype=np.float32),
        actions=np.zeros((5, 3, 3), dtype=np.int64),
        rewards=np.zeros((5, 3), dtype=np.float32),
        steps=np.full(5, 3),
        behaviour=behaviour,
    )
    assert PrivilegedOracle().label(windows, ignore).tolist() == [1, 1, 2, -1, -1]


def test_the_privileged_oracle_needs_its_column(spread: TaskSpec) -> None:
    with pytest.raises(UsageError, match=r"`behaviour` column.*oracle=heuristic"):
        PrivilegedOracle().label(spread_windows([[[1.0, 1.0, 1.0]] * 2]), ignore)
