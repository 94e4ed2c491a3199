"""Agents that die inside a generated window lie on the row of the dead from there on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.augmenters.dof import DoF
from methods.augmenters.mastars import MASTARS
from methods.base import Run
from methods.diffusion.model import SegmentModel
from methods.diffusion.validity import per_agent_errors
from methods.synthesis import segment_augmenter
from methods.synthesis.burial import buried
from methods.synthesis.segment_augmenter import SegmentAugmenter

N, D, STATE = 3, 2, 2
GRAVE = torch.tensor([[7.0, -7.0], [8.0, -8.0], [9.0, -9.0]])  # zero of each agent, normalised


class Deadly:
    """An agent is dead where its first feature is negative."""

    def __init__(self, *, append_state: bool = False, heads: tuple[str, ...] = ("alive",)) -> None:
        self.heads, self.features = heads, D + STATE * append_state
        self.settings = SimpleNamespace(append_state=append_state)
        self.spec = SimpleNamespace(n_agents=N, obs_dim=D, state_dim=STATE)

    def has(self, head: str) -> bool:
        return head in self.heads

    def alive(self, x: Tensor) -> Tensor:
        return x[..., 0] >= 0

    def encode(self, observations: np.ndarray[Any, Any], states: np.ndarray[Any, Any] | None = None) -> Tensor:
        assert not observations.any()
        assert observations.shape == (1, 1, N, D)
        rows = GRAVE.expand(1, 1, N, D)
        return rows if states is None else torch.cat([rows, torch.full((1, 1, N, STATE), 5.0)], dim=-1)


def windows(features: int) -> Tensor:
    """Two windows of four rows: agent 1 dies in row 2 and seems alive in row 3, agent 2 is dead in row 0 alone."""
    x = torch.linspace(0.1, 0.9, 2 * 4 * N * features).reshape(2, 4, N, features)
    x[0, 2, 1, 0] = x[0, 0, 2, 0] = -0.5
    return x


@pytest.mark.parametrize("append_state", [False, True])
def test_who_dies_stays_buried_but_for_the_first_row_and_the_state(append_state: bool) -> None:
    model = Deadly(append_state=append_state)
    x = windows(model.features)
    found = buried(cast(SegmentModel, model), x)
    expected = x.clone()
    expected[0, 2:, 1, :D] = GRAVE[1]
    expected[0, 1:, 2, :D] = GRAVE[2]  # row 0 is real: it stays, whatever the head says
    assert torch.equal(found, expected)
    assert torch.equal(x, windows(model.features))  # a copy


def test_without_such_a_head_nobody_dies() -> None:
    x = windows(D)
    assert torch.equal(buried(cast(SegmentModel, Deadly(heads=())), x), x)


@pytest.mark.parametrize("method", [DoF, MASTARS])
def test_segments_are_buried_before_they_are_judged(
    method: type[SegmentAugmenter[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Tensor] = []

    def judging(model: SegmentModel, x: Tensor, metric: str) -> tuple[Tensor, Tensor]:
        judged.append(x)
        return per_agent_errors(model, x, metric)

    data = sample_dataset("states-and-deaths").without_privileged()
    augmenter = method.tiny()
    augmenter.fit(data, Run(seeds=(0,)))
    model = augmenter.model_on("cpu")
    monkeypatch.setattr(model, "alive", lambda x: torch.zeros(x.shape[:-1], dtype=torch.bool))
    monkeypatch.setattr(segment_augmenter, "per_agent_errors", judging)
    augmenter.generate(data, Run(seeds=(1,)))
    zero = model.encode(np.zeros((3, 5), dtype=np.float32))
    assert judged
    for x in judged:
        assert (x[:, 1:] == zero).all()
        assert not (x[:, 0] == zero).all(dim=(1, 2)).any()
