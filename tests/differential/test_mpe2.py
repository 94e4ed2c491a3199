"""The particle engine against the mpe2 library, step by step from injected states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.common.selector import Selector
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.env import DIRECTIONS, MPEEnv
from tasks.mpe.physics import Float64
from tasks.mpe.scenarios import NAMES, EntityKind, scenario
from tasks.mpe.task import make_task

pytest.importorskip("mpe2", reason="mpe2 is a development dependency")
pytestmark = pytest.mark.filterwarnings("ignore")  # gymnasium and pygame warn on import

EPISODES, STEPS, TOLERANCE = 16, 25, 1e-5


def library_env(name: str, continuous: bool) -> Any:
    """The library's environment with the agents and entities of our task."""
    from mpe2.simple_spread.simple_spread import raw_env as spread_env
    from mpe2.simple_tag.simple_tag import raw_env as tag_env

    if name == "mpe/tag":
        return tag_env(continuous_actions=continuous)
    if name == "mpe/world":
        return _world_without_communication(continuous)
    return spread_env(N=scenario(name, "mpe2").n_agents, continuous_actions=continuous)


def _world_without_communication(continuous: bool) -> Any:
    """simple_world_comm with 3 predators and 1 prey, everyone a silent leader: nobody hidden, nothing said."""
    from mpe2._mpe_utils.simple_env import SimpleEnv
    from mpe2.simple_world_comm.simple_world_comm import Scenario as WorldComm

    class SilentWorld(WorldComm):
        def make_world(self) -> Any:
            world = super().make_world(1, 3, 1, 2, 2)
            for index, agent in enumerate(world.agents):
                agent.leader = agent.silent = True
                agent.name = f"agent_{index}"
            return world

        def observation(self, agent: Any, world: Any) -> Any:
            return super().observation(agent, world)[: -world.dim_c]

    world_scenario = SilentWorld()
    world = world_scenario.make_world()
    return SimpleEnv(world_scenario, world, max_cycles=25, continuous_actions=continuous)


def inject(env: Any, kinematics: Float64) -> None:
    """Puts one state (E + A, 2) into the library's world."""
    entities = env.world.entities
    for entity, position in zip(entities, kinematics[: len(entities)], strict=True):
        entity.state.p_pos = position.copy()
    for agent, velocity in zip(env.world.agents, kinematics[len(entities) :], strict=True):
        agent.state.p_vel = velocity.copy()


def library_action(control: Float64, choice: int, continuous: bool) -> Any:
    """u in R^2 as mpe2's five numbers in [0, 1], or the discrete action itself."""
    if not continuous:
        return choice
    x, y = control
    return np.array([0.0, max(-x, 0.0), max(x, 0.0), max(-y, 0.0), max(y, 0.0)])


def random_states(engine: ParticleEngine, generator: np.random.Generator) -> Float64:
    """Crowded states with velocities, so that contacts, touches and speed limits all happen."""
    kinematics = generator.uniform(-0.6, 0.6, (EPISODES, engine.n_entities + engine.n_agents, 2))
    kinematics[::4, : engine.n_entities] *= 2.0
    return np.asarray(kinematics)


class Puppet:
    """A prey that does what the test says."""

    action: Float64

    def act(self, observations: Float64) -> Float64:
        return self.action


@pytest.mark.parametrize("actions", ["continuous", "discrete"])
@pytest.mark.parametrize("name", NAMES)
def test_mpe2_variant_equals_the_library(name: str, actions: str) -> None:
    task = make_task(Selector.of(name, {"variant": "mpe2", "actions": actions}))
    engine, puppet = ParticleEngine(task.scenario), Puppet()
    ours = MPEEnv(task.spec, engine, puppet if task.scenario.has_prey else None, EPISODES, seed=0)
    continuous, n = actions == "continuous", engine.n_agents
    generator = np.random.default_rng(7)
    start = random_states(engine, generator)
    choices = generator.integers(5, size=(STEPS, EPISODES, n))
    controls = generator.uniform(-1, 1, (STEPS, EPISODES, n, 2)) if continuous else DIRECTIONS[choices]
    controls = controls.astype(np.float32).astype(np.float64)

    env = library_env(name, continuous)
    touched = 0
    for episode in range(EPISODES):
        env.reset(seed=0)
        inject(env, start[episode])
        kinematics = start[episode : episode + 1]
        for step in range(STEPS):
            for agent in range(n):
                env.step(library_action(controls[step, episode, agent], int(choices[step, episode, agent]), continuous))
            kinematics = engine.step(kinematics, controls[step, episode : episode + 1])
            mine = engine.observe(kinematics)[0]
            for agent in range(task.spec.n_agents):
                np.testing.assert_allclose(mine[agent], env.observe(env.possible_agents[agent]), atol=TOLERANCE)
            rewards = [env.rewards[agent] for agent in env.possible_agents]
            np.testing.assert_allclose(engine.rewards(kinematics)[0], rewards[: task.spec.n_agents], atol=TOLERANCE)
            if task.scenario.has_prey:
                np.testing.assert_allclose(
                    engine.observe_prey(kinematics)[0], env.observe(env.possible_agents[-1]), atol=TOLERANCE
                )
                np.testing.assert_allclose(engine.prey_reward(kinematics)[0], rewards[-1], atol=TOLERANCE)
                touched += rewards[0] > 1
        assert all(env.truncations.values())
        assert not any(env.terminations.values())
    assert touched or not task.scenario.has_prey

    # The batched environment walks the same way as the engine did, one episode at a time.
    ours._kinematics = start.copy()
    walked = start.copy()
    for step in range(STEPS):
        puppet.action = controls[step, :, -1]
        learners = task.spec.n_agents
        shown = ours.step(
            controls[step, :, :learners].astype(np.float32) if continuous else choices[step, :, :learners]
        )
        walked = engine.step(walked, controls[step])
        np.testing.assert_allclose(shown.observations, engine.observe(walked), atol=TOLERANCE)
        np.testing.assert_allclose(shown.rewards, engine.rewards(walked), atol=TOLERANCE)


def _omar_world(name: str) -> tuple[Any, Callable[[], list[float]]]:
    """The library's world with OMAR's gains and integration order, and OMAR's rewards as plain loops."""
    env = library_env(name, continuous=True)
    world = env.world

    def integrate(forces: list[Any]) -> None:
        for agent, force in zip(world.agents, forces, strict=False):
            velocity = 0.75 * agent.state.p_vel + 0.1 * force
            speed = float(np.hypot(*velocity))
            if agent.max_speed is not None and speed > agent.max_speed:
                velocity = velocity / speed * agent.max_speed
            agent.state.p_vel = velocity
            agent.state.p_pos = agent.state.p_pos + 0.1 * velocity

    world.integrate_state = integrate
    for agent in world.agents:
        if agent.accel is not None:
            agent.accel = agent.accel**2

    def distance(a: Any, b: Any) -> float:
        return float(np.hypot(*(a.state.p_pos - b.state.p_pos)))

    def spread() -> list[float]:
        cover = sum(min(1 / min(distance(a, mark) for a in world.agents), 10) for mark in world.landmarks)
        return [cover - 5 * sum(distance(a, b) < 0.3 for b in world.agents if b is not a) for a in world.agents]

    def pursuit() -> list[float]:
        *predators, prey = world.agents
        far = sum(distance(predator, prey) for predator in predators)
        touches = sum(distance(predator, prey) < predator.size + prey.size for predator in predators)
        return [(10 if name == "mpe/tag" else 5) * touches - 0.1 * far] * 3

    return env, pursuit if name in ("mpe/tag", "mpe/world") else spread


@pytest.mark.parametrize("name", NAMES)
def test_omar_variant_equals_a_plain_loop(name: str) -> None:
    engine = ParticleEngine(scenario(name, "omar"))
    env, rewards_of = _omar_world(name)
    generator = np.random.default_rng(3)
    start = random_states(engine, generator)
    for episode in range(4):
        env.reset(seed=0)
        inject(env, start[episode])
        kinematics = start[episode : episode + 1]
        for _ in range(STEPS):
            controls = generator.uniform(-1, 1, (1, engine.n_agents, 2))
            for control in controls[0]:
                env.step(library_action(control, 0, True))
            kinematics = engine.step(kinematics, controls)
            for agent in range(engine.scenario.n_learners):
                np.testing.assert_allclose(
                    engine.observe(kinematics)[0, agent], env.observe(env.possible_agents[agent]), atol=TOLERANCE
                )
            np.testing.assert_allclose(engine.rewards(kinematics)[0], rewards_of(), atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_tables_equal_the_library(name: str) -> None:
    table, env = scenario(name, "mpe2"), library_env(name, continuous=True)

    def facts(kind: EntityKind, entity: Any) -> None:
        assert (kind.size, kind.collides) == (entity.size, entity.collide)
        assert (kind.gain > 0) == entity.movable
        assert kind.max_speed == entity.max_speed
        if kind.gain:
            assert kind.gain == (entity.accel or 5.0)

    assert len(table.entities) == len(env.world.entities)
    for kind, entity in zip(table.entities, env.world.entities, strict=True):
        facts(kind, entity)
