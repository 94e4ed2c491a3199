"""Errors, prefixes and thresholds, with a model whose mistakes are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.diffusion.model import SegmentModel
from methods.diffusion.validity import (
    calibrate,
    calibrated_threshold,
    per_agent_errors,
    reduced,
    transition_errors,
    valid_prefix,
)
from tasks.common.errors import UsageError


class Still:
    """Believes that nothing ever moves, and explains everything by action 0."""

    def has(self, head: str) -> bool:
        return False

    def act(self, x: Tensor, x_next: Tensor, available: Tensor | None) -> Tensor:
        return torch.zeros(*x.shape[:-1], 1)

    def forward_dynamics(self, x: Tensor, a: Tensor) -> Tensor:
        return x


STILL = cast(SegmentModel, Still())
# One window of three rows, two agents, two features. Steps: agent 0 by (3, 4) then (0, 0), agent 1 by (0, 1) twice.
X = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]], [[3.0, 4.0], [0.0, 2.0]]]])


@pytest.mark.parametrize(("metric", "joint"), [("sse", [26, 1]), ("l2", [26**0.5, 1]), ("mse", [6.5, 0.25])])
def test_joint_errors(metric: str, joint: list[float]) -> None:
    errors, actions = transition_errors(STILL, X, metric)
    torch.testing.assert_close(errors, torch.tensor([joint], dtype=torch.float32))
    assert actions.shape == (1, 2, 2, 1)


@pytest.mark.parametrize(
    ("metric", "agents"), [("sse", [[25, 1], [0, 1]]), ("l2", [[5, 1], [0, 1]]), ("mse", [[12.5, 0.5], [0, 0.5]])]
)
def test_errors_of_agents(metric: str, agents: list[list[float]]) -> None:
    torch.testing.assert_close(per_agent_errors(STILL, X, metric)[0], torch.tensor([agents], dtype=torch.float32))


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="metric=rmse, expected sse, l2, mse"):
        reduced(torch.ones(1), "rmse", 2)


def test_the_valid_prefix_ends_at_the_first_error_above_the_threshold() -> None:
    nan = float("nan")
    errors = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.1, 0.0], [3.0, 0.0, 0.0], [2.0, nan, 0.0]])
    assert valid_prefix(errors, 2.0).tolist() == [2, 1, 0, 1]
    assert valid_prefix(errors, float("inf")).tolist() == [3, 3, 3, 1]
    assert valid_prefix(errors[:3], -1.0).tolist() == [0, 0, 0]


def test_thresholds_are_quantiles_over_real_transitions_without_padding() -> None:
    # 101 windows with joint errors i² in the first transition, and a padded second one that would say 10^6
    steps = torch.arange(101.0)
    x = torch.zeros(101, 3, 1, 1)
    x[:, 1, 0, 0] = steps
    x[:, 2, 0, 0] = steps + 1000
    inside = torch.tensor([[True, False]]).expand(101, 2)
    found = calibrate(STILL, x, inside, x[:, :2])
    for scope in ("transition", "agent", "window"):
        assert found[scope]["sse"]["0.9"] == 90.0**2
        assert found[scope]["l2"]["0.99"] == 99.0
    model: Any = SimpleNamespace(thresholds=found)
    assert calibrated_threshold(model, "mse", 0.5) == 50.0**2
    with pytest.raises(UsageError, match="quantile=0.7"):
        calibrated_threshold(model, "mse", 0.7)


def test_single_transitions_are_judged_apart_from_windows() -> None:
    pairs = torch.zeros(3, 2, 1, 1)
    pairs[:, 1, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    found = calibrate(STILL, torch.full((2, 3, 1, 1), 7.0), torch.ones(2, 2, dtype=torch.bool), pairs)
    assert found["transition"]["sse"]["0.5"] == found["agent"]["sse"]["0.5"] == 4.0
    assert found["window"]["sse"]["0.5"] == 0.0


def test_a_window_averages_its_transitions_and_agents() -> None:
    # agents' squares 25, 1 | 0, 1: mean 6.75; divided by two dimensions 3.375
    found = calibrate(STILL, X, torch.ones(1, 2, dtype=torch.bool), X[:, :2])
    assert found["window"]["sse"]["0.5"] == 6.75
    assert found["window"]["mse"]["0.5"] == 3.375
    assert found["window"]["l2"]["0.5"] == np.mean([5, 1, 0, 1])
