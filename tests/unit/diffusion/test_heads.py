"""Auxiliary networks: what they read, what they answer, and their losses on numbers worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.data.window_tensors import Transitions
from methods.diffusion.head_training import end_weight, head_losses, rate_share
from methods.diffusion.heads import HeadNetworks, HeadQueries, target_scales, useful_heads
from methods.diffusion.settings import HEADS, SegmentSettings
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]


def networks(settings: SegmentSettings, data: OfflineDataset, replicas: int = 1) -> HeadNetworks:
    names = useful_heads(settings, data)
    scales = target_scales(data, names, settings)
    generators = [np.random.default_rng(r) for r in range(replicas)]
    return HeadNetworks(settings, data.spec, data.spec.obs_dim, scales, names, lambda _: generators)


def queries(heads: HeadNetworks) -> HeadQueries:
    asked = HeadQueries()
    asked.heads = heads.requires_grad_(False)
    return asked


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


def test_heads_that_the_data_cannot_teach_are_left_out(tiny: Make, episodes: Episodes) -> None:
    settings = tiny(heads=HEADS)
    assert useful_heads(settings, episodes()) == ("inverse", "dynamics", "reward", "return_to_go", "value")
    discrete = episodes(discrete=True)
    assert useful_heads(settings, discrete) == HEADS
    masks = discrete.available_actions
    assert masks is not None
    free = discrete.replace(available_actions=np.ones_like(masks))
    assert "availability" not in useful_heads(settings, free)
    assert "state" not in useful_heads(tiny(heads=HEADS, append_state=True), discrete)
    assert useful_heads(tiny(heads=("reward", "inverse")), discrete) == ("inverse", "reward")


@pytest.mark.parametrize("scope", ["joint", "per_agent"])
@pytest.mark.parametrize("discrete", [False, True])
def test_answers_have_the_leading_axes_of_the_question(
    tiny: Make, episodes: Episodes, scope: str, discrete: bool
) -> None:
    data = episodes(discrete=discrete)
    asked = queries(networks(tiny(heads=HEADS, inverse_scope=scope, dynamics_scope=scope), data))
    x = torch.zeros(4, 5, 3, 3)
    a = asked.act(x, x + 1)
    assert asked.inverse(x, x).shape == a.shape == (4, 5, 3, 4 if discrete else 2)
    assert asked.forward_dynamics(x, a).shape == (4, 5, 3, 3)
    assert asked.reward(x, a).shape == asked.return_to_go(x, a).shape == (4, 5)
    assert asked.value(x).shape == (4, 5, 3)
    assert asked.reward(x[0, 0], a[0, 0]).shape == ()
    if discrete:
        assert a.sum(dim=-1).eq(1).all()
        assert asked.availability(x).shape == (4, 5, 3, 4)
        assert asked.alive(x).shape == (4, 5, 3)
        assert asked.termination(x).shape == (4, 5)
        assert asked.state(x).shape == (4, 5, 2)
    else:
        with pytest.raises(MethodError, match="'alive' was not fitted; this model has inverse, dynamics"):
            asked.alive(x)


@pytest.mark.parametrize(("scope", "alone"), [("joint", False), ("per_agent", True)])
def test_only_a_joint_head_sees_the_teammates(tiny: Make, episodes: Episodes, scope: str, alone: bool) -> None:
    asked = queries(networks(tiny(heads=HEADS, inverse_scope=scope, dynamics_scope=scope), episodes()))
    x, other = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)
    other[:, 2] = 1.0
    a = torch.zeros(2, 3, 2)
    assert torch.equal(asked.inverse(x, x)[:, 0], asked.inverse(other, other)[:, 0]) == alone
    assert torch.equal(asked.forward_dynamics(x, a)[:, 0], asked.forward_dynamics(other, a)[:, 0]) == alone
    assert torch.equal(asked.value(x)[:, 0], asked.value(other)[:, 0])


def test_an_action_is_chosen_among_the_available_ones(tiny: Make, episodes: Episodes) -> None:
    heads = networks(tiny(), episodes(discrete=True))
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    assert heads.act(logits, None).tolist() == [[1, 0, 0, 0]]
    assert heads.act(logits, torch.tensor([[False, True, True, False]])).tolist() == [[0, 0, 1, 0]]
    continuous = networks(tiny(), episodes())
    assert continuous.act(torch.tensor([[-3.0, 0.5]]), None).tolist() == [[-1.0, 0.5]]


def test_rewards_and_returns_are_in_the_units_of_the_task(tiny: Make, episodes: Episodes) -> None:
    rewards = np.repeat(np.array([[1], [3]], np.float32), 3, axis=1)
    data = episodes([2]).replace(rewards=rewards)
    heads = networks(tiny(heads=HEADS), data).requires_grad_(False)
    for parameter in heads.parameters():
        parameter.zero_()
    asked, x, a = queries(heads), torch.zeros(3, 3), torch.zeros(3, 2)
    assert float(asked.reward(x, a)) == 2  # the mean of 1 and 3
    assert float(asked.return_to_go(x, a)) == 3.5  # of 4 and 3
    assert asked.value(x).tolist() == pytest.approx([(3.97 + 3) / 2] * 3)  # of 1 + 0.99 · 3 and 3


def test_the_reward_may_look_at_the_next_observation(tiny: Make, episodes: Episodes) -> None:
    asked = queries(networks(tiny(reward_next=True), episodes()))
    x, a = torch.zeros(3, 3), torch.zeros(3, 2)
    assert float(asked.reward(x, a, x)) != float(asked.reward(x, a, x + 1))
    with pytest.raises(MethodError, match="reward_next"):
        asked.reward(x, a)


class Constant(torch.nn.Module):
    """Answers the same whatever it is asked, and keeps a gradient."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(*x.shape[:-1], -1) * 1.0


def test_losses_of_a_constant_answer(tiny: Make, episodes: Episodes) -> None:
    data = episodes(discrete=True)
    heads = networks(tiny(heads=HEADS), data)
    for name, size in (("inverse", 4), ("availability", 4), ("alive", 1), ("termination", 1), ("reward", 1)):
        heads.networks[name] = Constant(*[0.0] * size)
    available = torch.zeros(1, 2, 3, 4, dtype=torch.bool)
    available[..., :2] = True
    chosen = torch.zeros(1, 2, 3, 4)
    chosen[..., 0] = 1
    mean, deviation = heads.scales["reward"]
    losses = head_losses(
        heads,
        batch(
            data,
            available=available,
            actions=chosen,
            terminal=torch.tensor([[True, False]]),
            rewards=torch.stack([mean, mean + 2 * deviation])[None],
        ),
        end_weight=3.0,
    )
    two = float(np.log(2))
    assert losses["inverse"].tolist() == pytest.approx([two])  # uniform over two available of four actions
    assert losses["availability"].tolist() == pytest.approx([two])
    assert losses["termination"].tolist() == pytest.approx([(3 * two + two) / 2])
    assert losses["reward"].tolist() == pytest.approx([(0 + 4) / 2])


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


def test_true_ends_weigh_more_the_rarer_they_are() -> None:
    assert end_weight(np.array([True, False, False, False])) == 3
    assert end_weight(np.arange(1000) == 0) == 100
    assert end_weight(np.zeros(5, np.bool_)) == 1


def test_a_residual_dynamics_head_predicts_the_change(tiny: Make, episodes: Episodes) -> None:
    for residual, expected in ((False, 0.25), (True, 1.25)):
        heads = networks(tiny(heads=("dynamics",), dynamics_residual=residual), episodes())
        heads.networks["dynamics"] = Constant(0.25, 0.25, 0.25)
        moved = queries(heads).forward_dynamics(torch.ones(3, 3), torch.zeros(3, 2))
        assert moved.unique().tolist() == [expected]


def test_the_learning_rate_rises_and_falls() -> None:
    # a twentieth of 100 updates is 5: shares 1/5 and 5/5 of a cosine that is still near 1, then one half, then nothing
    assert rate_share(0, 100) == pytest.approx(0.2)
    assert rate_share(4, 100) == pytest.approx(0.5 * (1 + np.cos(0.04 * np.pi)))
    assert rate_share(50, 100) == pytest.approx(0.5)
    assert rate_share(99, 100) < 1e-3
    assert rate_share(0, 1) == 1.0
