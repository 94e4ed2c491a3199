"""What a language model is told about a window."""

from __future__ import annotations

import numpy as np

from methods.labelling.prompts import prompt_messages
from methods.labelling.windows import LabelWindows
from tasks.spec import TaskSpec
from tests.unit.labelling.conftest import battle_spec, spread_windows


def test_a_window_of_spread_is_told_step_by_step(spread: TaskSpec) -> None:
    windows = spread_windows([[[1.0, 0.8, 0.5], [0.7, 0.8, 0.4], [0.2, 0.9, 0.1]]])
    windows.actions[0, 1, 0] = [0.5, -1.0]
    windows.rewards[0] = [3.0, 4.25]
    ((system, question),) = prompt_messages(spread, windows)
    assert (system["role"], question["role"]) == ("system", "user")
    text = question["content"]
    assert "cover all landmarks" in text
    assert "2 steps of an episode with 3 agents" in text
    assert "Agent 0:\nt=0: nearest landmark 0 at distance 1.000; action (x +0.00, y +0.00)\n" in text
    assert "t=1: nearest landmark 0 at distance 0.700; action (x +0.50, y -1.00)\nend: nearest landmark 0 at" in text
    assert "Team reward, step by step: 3.00, 4.25" in text
    assert text.endswith('{"agent": I}, I being a whole number from 0 to 2.')


def test_padding_is_not_told(spread: TaskSpec) -> None:
    windows = spread_windows([[[1.0, 0.8, 0.5], [0.7, 0.8, 0.4], [0.7, 0.8, 0.4]]], steps=[1])
    text = prompt_messages(spread, windows)[0][1]["content"]
    assert "t=1" not in text
    assert "end: nearest landmark 0 at distance 0.700" in text


def test_pursuit_tells_the_prey_and_the_name_of_the_action(tag: TaskSpec) -> None:
    observations = np.zeros((1, 2, 3, 16), dtype=np.float32)
    observations[0, 0, 1, tag.observation_features.index("prey_offset_y")] = 0.75
    windows = LabelWindows(
        observations=observations,
        actions=np.array([[[0, 1, 2]]]),
        rewards=np.zeros((1, 1), dtype=np.float32),
        steps=np.array([1]),
    )
    text = prompt_messages(tag, windows)[0][1]["content"]
    assert f"prey at distance 0.750; action {tag.action.names[1]}" in text
    assert "prey at distance 0.000, in contact" in text


def test_other_tasks_are_told_by_the_names_of_their_features() -> None:
    windows = LabelWindows(
        observations=np.array([[[[0.5], [0.0]], [[0.25], [0.0]]]], dtype=np.float32),
        actions=np.array([[[2, 1]]]),
        rewards=np.zeros((1, 1), dtype=np.float32),
        steps=np.array([1]),
        alive=np.array([[[True, True], [True, False]]]),
    )
    text = prompt_messages(battle_spec(), windows)[0][1]["content"]
    assert "Agent 0:\nt=0: own_health 0.50; action attack_0\nend: own_health 0.25" in text
    assert "Agent 1:\nt=0: nothing in sight; action go\nend: out of action" in text
