"""Subgoals, what is regenerated after them, and the order of agents, on value tables made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from methods.synthesis.subgoals import generation_order, regenerated_rows, subgoals

# Two windows of 4 rows and 3 agents; the columns are agents.
VALUES = np.array(
    [
        [[1, 5, 2], [4, 1, 2], [2, 2, 2], [3, 3, 9]],
        [[0, 0, 7], [1, 6, 1], [2, 6, 1], [3, 1, 1]],
    ],
    dtype=np.float32,
)
WHOLE = np.array([3, 3])


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


def test_the_subgoal_is_the_first_row_of_largest_value() -> None:
    assert subgoals(VALUES, WHOLE).tolist() == [[1, 0, 3], [3, 1, 0]]


def test_rows_beyond_the_episode_are_no_goals() -> None:
    assert subgoals(VALUES, np.array([2, 3])).tolist() == [[1, 0, 0], [3, 1, 0]]


def test_everything_after_the_subgoal_is_new() -> None:
    new = regenerated_rows(np.array([[1, 0, 3], [3, 1, 0]]), WHOLE, 4)
    assert new[0].T.tolist() == [[False, False, True, True], [False, True, True, True], [False] * 4]
    assert new.sum(axis=1).tolist() == [[2, 3, 0], [0, 2, 3]]
    assert not new[:, 0].any()


def test_an_agent_whose_goal_is_its_last_real_row_keeps_everything() -> None:
    new = regenerated_rows(np.array([[2, 1]]), np.array([2]), 4)
    assert new[0].T.tolist() == [[False] * 4, [False, False, True, True]]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("lov", [[2, 0, 1], [0, 1, 2]]),  # last rows 3, 3, 9 and 3, 1, 1
        ("sg", [[2, 0, 1], [0, 1, 2]]),  # goals 1, 0, 3 and 3, 1, 0
        ("reverse", [[1, 0, 2], [2, 1, 0]]),
    ],
)
def test_orders(order: str, expected: list[list[int]]) -> None:
    assert generation_order(VALUES, subgoals(VALUES, WHOLE), order, rng()).tolist() == expected


def test_the_two_criteria_differ() -> None:
    values = np.array([[[9, 0, 0], [0, 0, 8], [1, 5, 4]]], dtype=np.float32)  # goals 0, 2, 1; last row 1, 5, 4
    goals = subgoals(values, np.array([2]))
    assert generation_order(values, goals, "sg", rng()).tolist() == [[1, 2, 0]]
    values[0, 2] = [6, 5, 4]
    assert generation_order(values, goals, "lov", rng()).tolist() == [[0, 1, 2]]


def test_a_random_order_is_a_permutation_of_its_own_in_every_window() -> None:
    values = np.zeros((64, 2, 4), dtype=np.float32)
    order = generation_order(values, np.zeros((64, 4), dtype=np.int64), "random", rng())
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    assert len(np.unique(order, axis=0)) > 10


def test_one_agent() -> None:
    values = np.zeros((2, 3, 1), dtype=np.float32)
    for order in ("lov", "sg", "reverse", "random"):
        assert generation_order(values, np.zeros((2, 1), dtype=np.int64), order, rng()).tolist() == [[0], [0]]
