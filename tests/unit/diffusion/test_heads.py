"""Auxiliary networks: what they read and what they answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

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


def test_a_residual_dynamics_head_predicts_the_change(tiny: Make, episodes: Episodes) -> None:
    for residual, expected in ((False, 0.25), (True, 1.25)):
        heads = networks(tiny(heads=("dynamics",), dynamics_residual=residual), episodes()).requires_grad_(False)
        for name, parameter in heads.named_parameters():
            parameter.fill_(0.25 if name.endswith("layers.2.bias") else 0.0)
        moved = queries(heads).forward_dynamics(torch.ones(3, 3), torch.zeros(3, 2))
        assert moved.unique().tolist() == [expected]


def test_states_are_in_the_units_of_the_task(tiny: Make, episodes: Episodes) -> None:
    states = np.array([[1, 7], [3, 7], [5, 7]], np.float32)
    heads = networks(tiny(heads=HEADS), episodes([2], discrete=True).replace(states=states)).requires_grad_(False)
    # mean 3 and variance (4 + 0 + 4) / 3 of the first number; the second never changes
    np.testing.assert_allclose(heads.scales["state"], [[3, 7], [(8 / 3) ** 0.5, 1]], rtol=1e-6)
    for name, parameter in heads.named_parameters():
        parameter.fill_(2.0 if name == "networks.state.layers.2.bias" else 0.0)
    assert queries(heads).state(torch.zeros(3, 3)).tolist() == pytest.approx([3 + 2 * (8 / 3) ** 0.5, 7 + 2 * 1])
