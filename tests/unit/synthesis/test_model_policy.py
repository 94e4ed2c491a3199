"""A fitted model as a policy: what is asked of it, and what becomes of the dead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.diffusion.known import Known
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.schedule import CosineSchedule
from methods.synthesis.model_policy import Draw, ModelPolicy
from methods.synthesis.stitch_policy import Jobs

H, N, D, GRAVE = 4, 2, 2, 7.0


class Plan:
    """Windows as given; an agent is alive while its first feature is positive. A zero encodes as `GRAVE`."""

    def __init__(self, windows: Tensor, heads: tuple[str, ...], append_state: bool = False) -> None:
        self.windows, self.heads, self.asked = windows, heads, dict[str, Any]()
        self.features = windows.shape[-1]
        self.settings = SimpleNamespace(horizon=H, append_state=append_state, reward_next=False)
        self.spec = SimpleNamespace(n_agents=N, obs_dim=D, state_dim=self.features - D)

    def has(self, head: str) -> bool:
        return head in self.heads

    def sample(self, known: Known, **options: Any) -> Tensor:
        self.asked = options
        return known.paste(self.windows)

    def encode(self, observations: np.ndarray[Any, Any], states: np.ndarray[Any, Any] | None) -> Tensor:
        assert (states is not None) == self.settings.append_state
        return torch.full((*observations.shape[:-1], self.features), GRAVE)

    def alive(self, x: Tensor) -> Tensor:
        return x[..., 0] > 0

    def availability(self, x: Tensor) -> Tensor:
        return x[..., :1] > 0.5

    def act(self, x: Tensor, x_next: Tensor, available: Tensor | None) -> Tensor:
        self.available = available
        return x_next[..., :1] - x[..., :1]

    def forward_dynamics(self, x: Tensor, a: Tensor) -> Tensor:
        return x + torch.cat([a, torch.zeros_like(a)], dim=-1)

    def reward(self, x: Tensor, a: Tensor, x_next: Tensor | None) -> Tensor:
        assert x_next is None
        return a.sum(dim=(-1, -2))

    def termination(self, x_next: Tensor) -> Tensor:
        return x_next[..., 0, 1] > 0.9


def policy(model: Plan, **options: Any) -> ModelPolicy:
    draw = Draw(sampler=make_sampler("ddim", CosineSchedule(4), 2), target=0.7, guidance=1.5)
    return ModelPolicy(cast(SegmentModel, model), draw, **options)


def jobs(first: Tensor) -> Jobs:
    batch = len(first)
    return Jobs(
        known=Known.first_row(first, H),
        condition=torch.full((batch,), 0.7),
        second=np.zeros(batch, dtype=np.bool_),
        usable=np.full(batch, H - 1),
    )


def windows(features: int = D) -> Tensor:
    """One window: agent 0 is alive, agent 1 dies in row 2 and seems alive again in row 3."""
    x = torch.full((1, H, N, features), 0.5)
    x[0, 2, 1, 0] = -1.0
    return x


NOISE = numpy_noise(np.random.Generator(np.random.Philox(0)), "cpu")


@pytest.mark.parametrize("state", [0, 3])
def test_who_died_lies_on_the_row_of_the_dead_to_the_end(state: int) -> None:
    x = windows(D + state)
    model = Plan(x, ("alive",), append_state=state > 0)
    found = policy(model).sample(jobs(x[:, 0]), NOISE)
    assert torch.equal(found[:, :, 0], x[:, :, 0])
    assert torch.equal(found[:, :2, 1], x[:, :2, 1])
    assert (found[0, 2:, 1, :D] == GRAVE).all()
    assert torch.equal(found[0, 2:, 1, D:], x[0, 2:, 1, D:])  # the state is not the agent's


def test_the_row_that_was_given_stays_whatever_the_head_says() -> None:
    x = windows()
    x[0, 0, 1, 0] = -1.0
    found = policy(Plan(x, ("alive",))).sample(jobs(x[:, 0]), NOISE)
    assert torch.equal(found[:, 0], x[:, 0])
    assert (found[0, 1:, 1] == GRAVE).all()


def test_the_model_is_asked_at_the_target() -> None:
    model = Plan(windows(), ())
    asking = policy(model)
    assert asking.first_condition(torch.zeros(3, N, D)).tolist() == [pytest.approx(0.7)] * 3
    found = asking.sample(jobs(windows()[:, 0]), NOISE)
    assert torch.equal(found, windows())  # nobody dies where there is no such head
    assert model.asked["guidance"] == 1.5
    assert model.asked["target"].tolist() == [pytest.approx(0.7)]


def test_a_verdict_without_a_filter() -> None:
    x = windows()
    x[0, 3, 0, 1] = 1.0
    model = Plan(x, ("availability", "termination"))
    verdict = policy(model).judge(x, jobs(x[:, 0]))
    assert verdict.valid.tolist() == [H - 1]
    assert verdict.terminal.tolist() == [[False, False, True]]
    assert verdict.rewards.tolist() == [[0.0, -1.5, 1.5]]  # agent 1 steps from 0.5 to -1 and back
    assert torch.equal(model.available, x[:, :-1, :, :1] > 0.5)


def test_a_verdict_with_a_filter() -> None:
    """The forward model moves feature 0 alone: feature 1 moves by 0.2 in the third transition, an error of 0.04."""
    x = windows()
    x[0, 3, 0, 1] += 0.2
    model = Plan(x, ())
    assert policy(model, threshold=0.05).judge(x, jobs(x[:, 0])).valid.tolist() == [3]
    assert policy(model, threshold=0.03).judge(x, jobs(x[:, 0])).valid.tolist() == [2]
    assert policy(model, threshold=0.1, metric="l2").judge(x, jobs(x[:, 0])).valid.tolist() == [2]
    assert policy(model, threshold=0.02, metric="mse").judge(x, jobs(x[:, 0])).valid.tolist() == [3]  # over 4 numbers
