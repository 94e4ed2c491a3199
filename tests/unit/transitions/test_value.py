"""The value that candidates are selected by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.base import Run
from methods.journal import Journal
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import TrainingPlan, load_weights, train
from methods.transitions.value import JointValue, ValueObjective, ValueSettings


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


LAYOUT = TokenLayout(spec=sample_dataset("one-agent").spec)


def chain(length: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Tokens of a walk 0 → 1 → 2 → end with reward 10 on the last step; place i is feature i."""
    parts = LAYOUT.parts()
    tokens = np.zeros((length, 1, LAYOUT.features), dtype=np.float32)
    for place in range(length):
        tokens[place, 0, parts["observations"].start + place] = 1
        tokens[place, 0, parts["next_observations"].start + place + 1] = 1
    rewards = np.array([0, 0, 10], dtype=np.float32)
    return tokens, rewards, np.array([False, False, True])


def objective(value: JointValue, gamma: float, tau: float = 0.05) -> ValueObjective:
    tokens, rewards, ends = chain()
    settings = ValueSettings(gamma=gamma, tau=tau)
    return ValueObjective(value, settings, torch.from_numpy(tokens), rewards, ends, [np.arange(3)] * 2, 32)


def test_the_values_of_a_walk_are_the_discounted_rewards() -> None:
    """V = 10 γ^k, also beyond where the last observation of an end is never seen as a first one."""
    run, plan = Run(seeds=(0, 1)), TrainingPlan(updates=800, batch_size=32, learning_rate=3e-3)
    made = objective(JointValue(LAYOUT, 32, [rng(0), rng(1)]), gamma=0.5)
    trained = train(made, plan, run, Journal(run, 800), stage="value")
    for r in range(2):
        value = JointValue(LAYOUT, 32, [rng(9)])
        load_weights(value, trained.of_replica(r, 1))
        found = value(torch.from_numpy(chain()[0])[None])[0]
        np.testing.assert_allclose(found, [2.5, 5, 10], atol=0.3)


def test_the_loss_by_hand() -> None:
    """With V = V̄ = v: ((r + γ (1 − e) v) − v)² in units of the rewards' deviation."""
    value = JointValue(LAYOUT, 8, [rng(0)])
    with torch.no_grad():
        for network in (value.online, value.target):
            for parameter in network.parameters():
                parameter.zero_()
            list(network.parameters())[-1].fill_(2.0)
    deviation = np.std([0, 0, 10])
    found = objective(value, gamma=0.5).losses(torch.tensor([[0, 1, 2]]))
    wanted = np.mean([(0.5 * 2 - 2) ** 2, (0.5 * 2 - 2) ** 2, (10 / deviation - 2) ** 2])
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    assert value(torch.zeros(1, 1, 1, LAYOUT.features)).item() == pytest.approx(2 * deviation, rel=1e-5)


def test_the_target_follows_and_has_no_gradient() -> None:
    value = JointValue(LAYOUT, 8, [rng(0)])
    made = objective(value, gamma=0.9, tau=0.25)
    made.losses(torch.tensor([[0, 1, 2]])).sum().backward()
    assert all(parameter.grad is None for parameter in value.target.parameters())
    before = [parameter.clone() for parameter in value.target.parameters()]
    with torch.no_grad():
        for parameter in value.online.parameters():
            parameter.add_(1.0)
    made.after_update()
    for old, new in zip(before, value.target.parameters(), strict=True):
        torch.testing.assert_close(new.data, old + 0.25, rtol=0, atol=1e-6)


def test_it_sees_the_observations_of_all_agents_and_nothing_else() -> None:
    layout = TokenLayout(spec=sample_dataset("continuous").spec)
    value = JointValue(layout, 8, [rng(0)])
    tokens = torch.from_numpy(rng(1).normal(size=(1, 4, 3, layout.features)).astype(np.float32))
    before, parts = value(tokens), layout.parts()
    for name, seen in (("actions", False), ("rewards", False), ("next_observations", False), ("observations", True)):
        for agent in range(3):
            moved = tokens.clone()
            moved[:, :, agent, parts[name]] += 1
            assert bool((value(moved) != before).any()) == seen
