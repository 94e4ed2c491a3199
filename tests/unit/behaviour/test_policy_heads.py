"""Distributions of actions against scipy, inputs in units of what was seen, and MAPPO on continuous actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from scipy import stats

from benchmark.behaviour.loop import actor_weights
from benchmark.behaviour.on_policy import OnPolicyConfig, on_policy_rounds
from methods.online.mappo import MAPPO, Episodes, MAPPOConfig
from methods.online.policy_heads import CategoricalHead, GaussianHead
from methods.online.running_scale import RunningScale
from tasks.base import ActionArray, BatchedEnv, Step
from tasks.policies import MLPPolicy
from tasks.spec import ActionSpec
from tests.unit.behaviour.game import SPEC as GAME


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_gaussian_head_is_scipys_normal_distribution() -> None:
    head, outputs = GaussianHead(0.4), torch.randn(5, 2, 3, generator=seeded())
    drawn = head.draw(outputs, None, seeded(1))
    expected = stats.norm(outputs.tanh().numpy(), 0.4)
    found = head.log_probability(outputs, None, drawn).detach().numpy()
    np.testing.assert_allclose(found, expected.logpdf(drawn.detach().numpy()).sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(
        head.entropy(outputs, None).detach().numpy(),
        np.broadcast_to(expected.entropy().sum(axis=-1), (5, 2)),
        rtol=1e-6,
    )
    many = head.draw(torch.full((20_000, 1, 1), 0.5), None, seeded(2)).detach()
    assert float(many.mean()) == pytest.approx(np.tanh(0.5), abs=0.01)
    assert float(many.std()) == pytest.approx(head.noise, abs=0.01)


def test_the_deviation_learns() -> None:
    """What lies two deviations off asks for a wider one, what is met for a narrower one."""
    for action, wider in ((2.0, True), (0.0, False)):
        head = GaussianHead(1.0)
        head.log_probability(torch.zeros(1, 1, 1), None, torch.full((1, 1, 1), action)).sum().backward()
        (gradient,) = (parameter.grad for parameter in head.parameters)
        assert gradient is not None
        assert (float(gradient) > 0) == wider


def test_a_categorical_head_never_draws_what_is_not_available() -> None:
    head, outputs = CategoricalHead(), torch.tensor([1.0, 2.0, 9.0]).log().expand(4_000, 1, 3)
    available = torch.tensor([True, True, False]).expand(4_000, 1, 3)
    drawn = head.draw(outputs, available, seeded())
    assert drawn.max() == 1
    assert float(drawn.double().mean()) == pytest.approx(2 / 3, abs=0.03)
    assert float(head.log_probability(outputs, available, drawn)[drawn == 1].exp()[0]) == pytest.approx(2 / 3)
    assert float(head.entropy(outputs, available)[0]) == pytest.approx(stats.entropy([1 / 3, 2 / 3]))
    assert (head.noise, head.parameters) == (0.0, [])


def test_scales_are_those_of_all_rows_seen() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(3, 2, (n, 2)).astype(np.float32) for n in (1, 50, 7)]
    parts = [np.concatenate([part, np.full((len(part), 1), 5, np.float32)], axis=1) for part in parts]
    scale, x = RunningScale(3), torch.from_numpy(parts[1])
    assert torch.equal(scale(x), x)
    for part in parts:
        scale.see(torch.from_numpy(part))
    whole = np.concatenate(parts).astype(np.float64)
    std = np.maximum(whole.std(axis=0), 1e-2)  # the third is always 5
    np.testing.assert_allclose(scale(x).numpy(), (x.numpy() - whole.mean(axis=0)) / std, rtol=1e-4, atol=1e-4)


def test_a_layer_takes_the_scale_in() -> None:
    scale, x = RunningScale(3), torch.randn(20, 3, generator=seeded())
    scale.see(4 * x + 2)
    weight, bias = torch.randn(1, 5, 6, generator=seeded(1)), torch.randn(1, 1, 6, generator=seeded(2))
    own, rest = torch.randn(7, 3, generator=seeded(3)), torch.randn(7, 2, generator=seeded(4))
    folded_weight, folded_bias = scale.folded(weight, bias)
    torch.testing.assert_close(
        torch.cat([own, rest], dim=1) @ folded_weight[0] + folded_bias[0],
        torch.cat([scale(own), rest], dim=1) @ weight[0] + bias[0],
    )


SPEC = replace(
    GAME,
    id="toy/points",
    obs_dim=2,
    action=ActionSpec(kind="continuous", size=2),
    episode_limit=2,
    observation_features=("x", "y"),
    has_win=False,
)
GOALS = np.array([[0.3, -0.5], [-0.2, 0.6]], dtype=np.float32)


class Points(BatchedEnv):
    """Two steps, of which each pays how near all agents are to their goals; they see numbers that tell nothing."""

    spec = SPEC

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self._generator = num_envs, np.random.default_rng(0)

    def reset(self, episode_ids: Sequence[int]) -> Step:
        self.t = 0
        return self._show(np.zeros(self.num_envs))

    def step(self, actions: ActionArray) -> Step:
        self.t += 1
        return self._show(-np.square(actions - GOALS).sum(axis=(1, 2)))

    def _show(self, rewards: np.ndarray) -> Step:
        over = np.full(self.num_envs, self.t >= 2)
        return Step(
            observations=self._generator.normal(7, 3, (self.num_envs, 2, 2)).astype(np.float32),
            rewards=np.repeat(rewards[:, None], 2, axis=1).astype(np.float32),
            terminals=over,
            truncations=np.zeros_like(over),
            states=np.zeros((self.num_envs, 1), dtype=np.float32),
            available_actions=None,
        )


def points_learner(seed: int = 0) -> MAPPO:
    config = MAPPOConfig(
        hidden=16, critic_hidden=16, learning_rate=3e-3, entropy=0.0, normalise=True, epochs=4, anneal_steps=20_000
    )
    return MAPPO(config, (2, 2, 1, 2), seeded(seed), np.random.default_rng(seed), GaussianHead(0.5))


def test_the_best_continuous_actions_are_found_and_the_noise_falls() -> None:
    learner = points_learner()
    rounds = list(islice(on_policy_rounds(Points(64), OnPolicyConfig(num_envs=64, reward_scale=1.0), learner), 120))
    assert rounds[0].noise == pytest.approx(0.5)
    assert rounds[-1].noise < 0.3
    shown = np.random.default_rng(1).normal(7, 3, (50, 2, 2)).astype(np.float32)
    acted = MLPPolicy(actor_weights(learner), "tanh").act(shown, None)  # as a policy file acts
    assert np.abs(acted.mean(axis=0) - GOALS).max() < 0.1
    with torch.no_grad():
        own = learner._outputs(torch.from_numpy(shown)).tanh()
    np.testing.assert_allclose(acted, own.numpy(), atol=1e-5)


def test_the_first_round_tells_the_scale_and_trains_nothing() -> None:
    learner = points_learner()
    before = [parameter.detach().clone() for parameter in learner._actor]
    rounds = on_policy_rounds(Points(64), OnPolicyConfig(num_envs=64), learner)
    list(islice(rounds, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, learner._actor, strict=True))
    np.testing.assert_allclose(learner._seen.mean.numpy(), 7, atol=0.6)
    next(rounds)
    assert not torch.equal(before[0], learner._actor[0])


def test_continuous_losses_equal_plain_loops() -> None:
    learner = points_learner()
    generator = seeded(3)
    episodes = Episodes(
        observations=torch.randn(2, 3, 2, 2, generator=generator),
        states=torch.randn(3, 3, 1, generator=generator),
        available=None,
        alive=torch.ones(2, 3, 2, dtype=torch.bool),
        actions=torch.randn(2, 3, 2, 2, generator=generator),
        rewards=torch.randn(2, 3, generator=generator),
        terminals=torch.zeros(2, 3, dtype=torch.bool),
        running=torch.ones(2, 3, dtype=torch.bool),
    )
    learner._see(episodes)
    rows = learner._rows(episodes)
    with torch.no_grad():  # the policy has moved on since it acted
        learner._actor[-1].add_(0.3)
        learner.head.parameters[0].add_(0.2)
        outputs = learner._outputs(rows.observations)
    terms, sigma = [], learner.head.noise
    old = rows.log_probability
    for m in range(6):
        for i in range(2):
            density = stats.norm(outputs[m, i].tanh().numpy(), sigma).logpdf(rows.actions[m, i].numpy()).sum()
            ratio, gain = float(np.exp(density - float(old[m, i]))), float(rows.advantages[m])
            terms.append(min(ratio * gain, min(max(ratio, 0.8), 1.2) * gain))
    assert float(learner.policy_loss(rows, 0.0).detach()) == pytest.approx(-np.mean(terms), rel=1e-4)
