"""The scripted teacher of spread: an assignment worked by hand, and its level."""

from __future__ import annotations

import numpy as np
import torch

from benchmark.behaviour.evaluation import evaluate
from benchmark.behaviour.teacher import AssignmentTeacher
from tasks.base import ActionArray, BoolArray, FloatArray
from tasks.common.selector import Selector
from tasks.mpe.task import make_task


class Taught:
    def __init__(self, teacher: AssignmentTeacher) -> None:
        self._teacher = teacher

    def act(self, observations: FloatArray, available_actions: BoolArray | None) -> ActionArray:
        return self._teacher(torch.from_numpy(observations)).numpy()


def test_the_cheapest_assignment_wins_over_the_nearest_landmark() -> None:
    # Landmarks at x = 0 and x = 1, agents at x = 0.1 and x = -0.2. Both are nearest to landmark 0, but sending
    # agent 0 to 1 and agent 1 to 0 costs 0.9 + 0.2, the other way 0.1 + 1.2.
    seen = torch.zeros(1, 2, 12)
    seen[0, 0, 4:8] = torch.tensor([-0.1, 0.0, 0.9, 0.0])
    seen[0, 1, 4:8] = torch.tensor([0.2, 0.0, 1.2, 0.0])
    seen[0, 1, :2] = torch.tensor([0.2, -0.1])  # its velocity
    # 4 · 0.9 is clipped to 1; 4 · 0.2 - 1.5 · 0.2 = 0.5 and 1.5 · 0.1 = 0.15
    torch.testing.assert_close(AssignmentTeacher(2)(seen), torch.tensor([[[1.0, 0.0], [0.5, 0.15]]]))


def test_the_teacher_is_far_above_random_play() -> None:
    task = make_task(Selector.parse("mpe/spread-4"))
    returns = evaluate(task, Taught(AssignmentTeacher(4)), 200, seed=3)
    assert np.mean(returns) > 2300  # random play: 540
