"""Losses of the auxiliary networks, on answers and targets worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.data.window_tensors import Transitions
from methods.diffusion.head_training import head_losses
from methods.diffusion.heads import HeadNetworks, target_scales
from methods.diffusion.settings import SegmentSettings
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]
Losses = Callable[..., list[float]]

# Cross entropy of a logit of 2, and of one of −2, on a flag that is True; on a flag that is False they change places.
RIGHT, WRONG = float(np.log1p(np.exp(-2))), float(np.log1p(np.exp(2)))


class Constant(torch.nn.Module):
    """Answers the same whatever it is asked, and keeps a gradient."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(*x.shape[:-1], -1) * 1.0


class Column(torch.nn.Module):
    """Answers with one number of what it is asked."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.index, None]


def networks(settings: SegmentSettings, data: OfflineDataset) -> HeadNetworks:
    scales = target_scales(data, settings.heads, settings)
    return HeadNetworks(settings, data.spec, 3, scales, settings.heads, lambda _: [np.random.default_rng(0)])


def batch(data: OfflineDataset, **given: Any) -> Transitions:
    """The first two transitions of the data, as one replica's batch."""
    step = slice(0, 2)
    actions = torch.from_numpy(data.actions[step])
    one_hot = torch.nn.functional.one_hot(actions, 4).float() if data.spec.action.discrete else actions

    def rows(column: np.ndarray | None) -> Tensor | None:
        return None if column is None else torch.from_numpy(column[step])[None]

    values: dict[str, Any] = {
        "x": torch.from_numpy(data.observations[0:2])[None],
        "x_next": torch.from_numpy(data.observations[1:3])[None],
        "actions": one_hot[None],
        "rewards": torch.from_numpy(data.team_rewards()[step])[None],
        "returns_to_go": torch.zeros(1, 2),
        "terminal": torch.zeros(1, 2, dtype=torch.bool),
        "available": rows(data.available_actions),
        "alive": rows(data.alive),
        "states": rows(data.states),
    }
    return Transitions(**{**values, **given})


@pytest.fixture
def loss_of(tiny: Make, episodes: Episodes) -> Losses:
    """The loss of one head that answers so, on `batch` with columns given; `options` are settings."""

    def compute(
        name: str,
        answer: torch.nn.Module,
        *,
        discrete: bool = True,
        end_weight: float = 7.0,  # no other head than that of ends may feel it
        scale: Tensor | None = None,
        options: dict[str, Any] | None = None,
        **given: Any,
    ) -> list[float]:
        data = episodes(discrete=discrete)
        heads = networks(tiny(heads=(name,), **(options or {})), data)
        heads.networks[name] = answer
        if scale is not None:
            heads.scales[name] = scale
        found: list[float] = head_losses(heads, batch(data, **given), end_weight)[name].tolist()
        return found

    return compute


def still(value: float) -> Tensor:
    """Observations of the two transitions that are all one number."""
    return torch.full((1, 2, 3, 3), value)


def test_forward_dynamics_predict_the_next_observation(loss_of: Losses) -> None:
    answer = Constant(0.25, 0.25, 0.25)
    assert loss_of("dynamics", answer, x=still(0.0), x_next=still(1.0)) == [0.5625]
    residual = {"dynamics_residual": True}  # 0.5 + 0.25
    assert loss_of("dynamics", answer, options=residual, x=still(0.5), x_next=still(1.0)) == [0.0625]


def test_a_continuous_inverse_predicts_the_encoded_action(loss_of: Losses) -> None:
    actions = torch.full((1, 2, 3, 2), 0.25)
    actions[:, 1, :, 0] = 1.25  # errors 0 and, for half of the numbers of the second transition, 1
    assert loss_of("inverse", Constant(0.25, 0.25), discrete=False, actions=actions) == [0.25]


def test_a_discrete_inverse_chooses_among_the_available(loss_of: Losses) -> None:
    available, chosen = torch.zeros(1, 2, 3, 4, dtype=torch.bool), torch.zeros(1, 2, 3, 4)
    available[..., :2] = True
    chosen[:, 0, :, 0] = chosen[:, 1, :, 1] = 1
    # logits 2 and 0 among the available: log(1 + e^−2) where the first was taken, log(1 + e^2) where the second was
    found = loss_of("inverse", Constant(2.0, 0.0, 5.0, 5.0), available=available, actions=chosen)
    assert found == pytest.approx([(RIGHT + WRONG) / 2])


@pytest.mark.parametrize(("name", "column"), [("reward", "rewards"), ("return_to_go", "returns_to_go")])
def test_numbers_of_the_team_are_standardised(loss_of: Losses, name: str, column: str) -> None:
    # mean 10, deviation 4: 18 is two deviations above, 10 none
    targets = {column: torch.tensor([[18.0, 10.0]])}
    assert loss_of(name, Constant(0.0), scale=torch.tensor([10.0, 4.0]), **targets) == [(4 + 0) / 2]
    assert loss_of(name, Constant(2.0), scale=torch.tensor([10.0, 4.0]), **targets) == [(0 + 4) / 2]


def test_every_number_of_a_state_is_standardised_by_itself(loss_of: Losses) -> None:
    scale = torch.tensor([[10.0, -3.0], [4.0, 0.5]])  # means, deviations
    states = torch.tensor([[[18.0, -3.0], [10.0, -2.0]]])  # (2, 0) and (0, 2) deviations
    assert loss_of("state", Constant(0.0, 0.0), scale=scale, states=states) == [2.0]
    assert loss_of("state", Constant(2.0, 0.0), scale=scale, states=states) == [(0 + 0 + 4 + 4) / 4]


def test_the_reward_may_be_asked_with_the_next_observation(loss_of: Losses) -> None:
    # The last number of the last agent is of x_next, or of the action, here 0.
    asked = {"x": still(1.0), "x_next": still(3.0), "actions": torch.zeros(1, 2, 3, 2), "rewards": torch.zeros(1, 2)}
    scale = torch.tensor([0.0, 1.0])
    assert loss_of("reward", Column(-1), discrete=False, scale=scale, **asked) == [0.0]
    found = loss_of("reward", Column(-1), discrete=False, scale=scale, options={"reward_next": True}, **asked)
    assert found == [9.0]


def test_who_is_alive_is_a_cross_entropy(loss_of: Losses) -> None:
    alive = torch.tensor([[[True, True, True], [True, False, True]]])
    assert loss_of("alive", Constant(2.0), alive=alive) == pytest.approx([(5 * RIGHT + WRONG) / 6])


def test_what_is_available_is_a_cross_entropy_of_every_action(loss_of: Losses) -> None:
    available = torch.tensor([True, False, True, True]).expand(1, 2, 3, 4).clone()
    available[0, 1, 2] = False
    # logits 2, −2, 2, −2: all but the last are right; of the agent without actions, the second and the last
    found = loss_of("availability", Constant(2.0, -2.0, 2.0, -2.0), available=available)
    assert found == pytest.approx([(5 * (3 * RIGHT + WRONG) + 2 * RIGHT + 2 * WRONG) / 24])


def test_true_ends_weigh_more_than_the_others(loss_of: Losses) -> None:
    columns = {name: still(0.0).repeat(1, 2, 1, 1) for name in ("x", "x_next")}
    terminal = torch.tensor([[False, True, False, False]])
    found = loss_of("termination", Constant(2.0), end_weight=3.0, terminal=terminal, **columns)
    assert found == pytest.approx([(3 * RIGHT + 3 * WRONG) / 4])  # one end, three times; three that are none


def test_an_end_is_seen_on_arrival(loss_of: Losses) -> None:
    terminal = torch.tensor([[True, True]])
    found = loss_of("termination", Column(-1), end_weight=1.0, terminal=terminal, x=still(-2.0), x_next=still(2.0))
    assert found == pytest.approx([RIGHT])


def test_a_value_looks_ahead_to_the_next_observation(loss_of: Losses) -> None:
    # V = 1 + 2 · first feature: V(o) = 3, r = 1, V(o') = 7: error (3 − 1 − 0.5 · 7) / 2
    asked = {"x": still(1.0), "x_next": still(3.0), "rewards": torch.ones(1, 2)}
    scale, options = torch.tensor([1.0, 2.0]), {"value_gamma": 0.5}
    assert loss_of("value", Column(0), scale=scale, options=options, **asked) == [0.5625]


def test_values_bootstrap_unless_the_episode_truly_ended(tiny: Make, episodes: Episodes) -> None:
    data = episodes(discrete=True)

    def loss(**settings: Any) -> tuple[float, float]:
        heads = networks(tiny(heads=("value",), value_gamma=0.5, **settings), data)
        heads.networks["value"] = head = Constant(4.0)
        heads.scales["value"] = torch.tensor([0.0, 1.0])
        terminal, rewards = torch.tensor([[True, False]]), torch.tensor([[1.0, 1.0]])
        value = head_losses(heads, batch(data, terminal=terminal, rewards=rewards), 1.0)["value"]
        value.sum().backward()
        assert head.values.grad is not None
        return float(value.detach()), float(head.values.grad)

    # V = 4, r = 1: errors 4 − 1 = 3 at the end and 4 − 1 − 0.5 · 4 = 1; their gradients 2 e ∂e, the target being fixed
    assert loss() == (pytest.approx((9 + 1) / 2), pytest.approx((6 + 2) / 2))
    # literally: no mask, error 1 twice, and ∂e = 1 − γ
    assert loss(value_literal=True) == (pytest.approx(1.0), pytest.approx(2 * 0.5))
