"""Golden transitions, measured on OMAR's code and on mpe2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from tasks.mpe.engine import ParticleEngine
from tasks.mpe.physics import Float64
from tasks.mpe.reward import bound
from tasks.mpe.scenarios import Variant, scenario

Points = list[tuple[float, float]]


class Golden(NamedTuple):
    positions: Points
    rewards: list[float]
    velocities: Points | None = None


SPREAD_START: Points = [(0, 0), (0.25, 0), (-0.5, 0.5), (0.2, 0.1), (-0.4, 0.4), (0.9, -0.9)]
SPREAD_ACTIONS: Points = [(1, 0), (0, -1), (0.5, 0.5)]
HUNTERS: Points = [(0, 0), (0.3, 0), (0, -0.5), (0.1, 0)]
HUNT: Points = [(1, 0), (-1, 0), (0, 1), (0.5, 0.5)]
TAG_START: Points = [*HUNTERS, (0.6, 0.6), (-0.6, -0.6)]
WORLD_START: Points = [*HUNTERS, (0.6, 0.6), (0.15, 0), (-0.8, 0.8), (0, 0.2), (-0.7, -0.7)]

SPREAD: dict[Variant, list[Golden]] = {
    "omar": [
        Golden([(0, 0), (0.3, -0.05), (-0.475, 0.525)], [13.368084] * 3, [(0, 0), (0.5, -0.5), (0.25, 0.25)]),
        Golden(
            [(0.049984, 0.000003), (0.337516, -0.137503), (-0.43125, 0.56875)],
            [12.428892] * 3,
            [(0.499844, 0.000026), (0.375156, -0.875026), (0.4375, 0.4375)],
        ),
    ],
    "mpe2": [
        Golden(
            [(0, 0), (0.25, 0), (-0.5, 0.5)],
            [-1.181702, -1.181702, -0.681702],
            [(0, 0), (0.5, -0.5), (0.25, 0.25)],
        ),
        Golden(
            [(0, 0), (0.3, -0.05), (-0.475, 0.525)],
            [-0.683242] * 3,
            [(0, 0), (0.875, -0.875), (0.4375, 0.4375)],
        ),
    ],
}
TAG: dict[Variant, list[Golden]] = {
    "omar": [
        Golden([(0.065, 0), (0.21, 0), (0, -0.41), (0.203406, 0.078786)], [9.923226] * 3 + [-9.923226]),
        Golden([(0.165, 0), (0.114429, -0.02943), (0, -0.31), (0.286524, 0.178743)], [-0.105278] * 3 + [0.105278]),
    ],
    "mpe2": [
        Golden(HUNTERS, [10, 10, 10, -10]),
        Golden([(0.005, 0), (0.27, 0), (0, -0.47), (0.145, 0.02)], [0, 0, 0, 0]),
    ],
}


def at_rest(engine: ParticleEngine, positions: Points) -> Float64:
    kinematics = np.zeros((1, engine.n_entities + engine.n_agents, 2))
    kinematics[0, : engine.n_entities] = positions
    return kinematics


def all_rewards(engine: ParticleEngine, kinematics: Float64) -> Float64:
    rewards = engine.rewards(kinematics)[0]
    return np.append(rewards, engine.prey_reward(kinematics)) if engine.scenario.has_prey else rewards


@pytest.mark.parametrize(
    ("name", "variant", "start", "actions", "expected"),
    [("mpe/spread", variant, SPREAD_START, SPREAD_ACTIONS, golden) for variant, golden in SPREAD.items()]
    + [("mpe/tag", variant, TAG_START, HUNT, golden) for variant, golden in TAG.items()],
)
def test_golden_transitions(
    name: str, variant: Variant, start: Points, actions: Points, expected: list[Golden]
) -> None:
    engine = ParticleEngine(scenario(name, variant))
    kinematics = at_rest(engine, start)
    for golden in expected:
        kinematics = engine.step(kinematics, np.array([actions]))
        np.testing.assert_allclose(kinematics[0, : engine.n_agents], golden.positions, atol=1e-5)
        np.testing.assert_allclose(all_rewards(engine, kinematics), golden.rewards, atol=1e-5)
        if golden.velocities is not None:
            np.testing.assert_allclose(kinematics[0, engine.n_entities :], golden.velocities, atol=1e-5)


def test_golden_transitions_of_world() -> None:
    engine = ParticleEngine(scenario("mpe/world", "omar"))
    kinematics = at_rest(engine, WORLD_START)
    for reward, prey_reward, prey in (
        (4.923749, -4.919032, (0.2, 0.08)),
        (-0.104537, 0.115728, (0.283515, 0.179625)),
    ):
        kinematics = engine.step(kinematics, np.array([HUNT]))
        np.testing.assert_allclose(all_rewards(engine, kinematics), [reward] * 3 + [prey_reward], atol=1e-5)
        np.testing.assert_allclose(kinematics[0, 3], prey, atol=1e-5)


def test_bound_is_flat_then_linear_then_exponential_then_capped() -> None:
    # 10 (0.95 - 0.9) = 0.5, exp(2 · 1.5 - 2) = e, exp(2 · 3 - 2) > 10
    np.testing.assert_allclose(bound(np.array([0.5, 0.95, 1.5, 3.0])), [0.0, 0.5, np.e, 10.0])


def test_entities_at_one_point_stay_finite() -> None:
    engine = ParticleEngine(scenario("mpe/spread", "omar"))
    kinematics = engine.step(at_rest(engine, [(0.0, 0.0)] * 6), np.zeros((1, 3, 2)))
    assert np.isfinite(kinematics).all()
    assert engine.rewards(kinematics)[0].tolist() == [20.0] * 3  # three landmarks at 10, two others too close


def test_speed_is_limited_and_actions_are_clipped() -> None:
    engine = ParticleEngine(scenario("mpe/tag", "omar"))
    far: Points = [(-0.9, 0.9), (0.9, 0.9), (0.9, -0.9), (0, 0), (0.5, 0), (-0.5, 0)]
    kinematics = at_rest(engine, far)
    once = engine.step(kinematics, np.full((1, 4, 2), 7.0))
    np.testing.assert_array_equal(once, engine.step(kinematics, np.ones((1, 4, 2))))
    speed = np.linalg.norm(once[0, engine.n_entities :], axis=-1)
    np.testing.assert_allclose(speed, [1.0, 1.0, 1.0, 1.3])
