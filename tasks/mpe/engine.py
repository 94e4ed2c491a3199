"""A scenario compiled into arrays: starts, steps, observations and rewards of a batch, without any hidden state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.common.seeding import derive_seed
from tasks.mpe.observe import Observer
from tasks.mpe.physics import Float64, contact_forces, contact_pairs, integrate, separations
from tasks.mpe.reward import make_reward
from tasks.mpe.scenarios import Scenario

# Starts lie on a grid of 2^-20: then positions and offsets are exact in float32, and an episode can be replayed
# from its first observation to the last bit.
START_GRID = 2.0**20


class ParticleEngine:
    """Pure transitions of one scenario. All agents act, the prey too; whoever calls decides how.

    Kinematics are (B, E + A, 2) float64: positions of the entities, then velocities of the agents.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.n_agents, self.n_entities = scenario.n_agents, len(scenario.entities)
        agents = scenario.entities[: self.n_agents]
        self._gain = np.array([[kind.gain] for kind in agents])  # (A, 1)
        speeds = np.array([np.inf if kind.max_speed is None else kind.max_speed for kind in agents])
        self._max_speed = speeds if np.isfinite(speeds).all() else None
        self._start = np.array([[kind.start] for kind in scenario.entities])  # (E, 1)
        self._contacts = contact_pairs(scenario)
        self._reward = make_reward(scenario)
        self._learners = Observer(scenario, tuple(range(scenario.n_learners)))
        self._prey = Observer(scenario, (scenario.n_learners,)) if scenario.has_prey else None

    def start(self, seed: int, episode_ids: Sequence[int] | NDArray[np.int64]) -> Float64:
        """Kinematics at the start of each episode: uniform in the start regions, at rest.

        A counter-based generator: episode i depends on (seed, i) alone, and a batch is drawn at once.
        """
        draws = _uniform(derive_seed("mpe", "start", seed), np.asarray(episode_ids), 2 * self.n_entities)
        unit = draws.reshape(-1, self.n_entities, 2)
        kinematics = np.zeros((len(unit), self.n_entities + self.n_agents, 2))
        position = (2.0 * unit - 1.0) * self._start
        kinematics[:, : self.n_entities] = np.trunc(position * START_GRID) / START_GRID
        return kinematics

    def step(self, kinematics: Float64, actions: Float64) -> Float64:
        """Kinematics after the joint action (B, A, 2), clipped to [-1, 1] per component.

        Deviation: OMAR's environment does not clip (its policies do), which leaves the task open-ended.
        """
        control = np.clip(actions, -1.0, 1.0) * self._gain
        contact = contact_forces(separations(kinematics, self._contacts), self._contacts, self.n_agents)
        return integrate(kinematics, control + contact, self._max_speed, self.scenario.variant)

    def observe(self, kinematics: Float64) -> Float64:
        """Observations (B, N, D) of the learning agents."""
        return self._learners.observe(kinematics)

    def observe_prey(self, kinematics: Float64) -> Float64:
        """Observations (B, D') of the prey."""
        assert self._prey is not None
        return self._prey.observe(kinematics)[:, 0]

    def rewards(self, kinematics: Float64) -> Float64:
        """Rewards (B, N) of the learning agents, from the state after the step."""
        return self._reward.learners(kinematics)

    def prey_reward(self, kinematics: Float64) -> Float64:
        """Reward (B,) of the prey, from the state after the step."""
        return self._reward.prey(kinematics)

    def locate(self, observations: Float64) -> Float64:
        """Kinematics that show these observations (B, N, D) of the learning agents."""
        return self._learners.locate(observations)


def _uniform(seed: int, episode_ids: NDArray[np.int64], count: int) -> Float64:
    """Numbers in [0, 1), (B, count), by two rounds of SplitMix64 (Steele et al. 2014) over (seed, id, index)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    ids, index = episode_ids.astype(np.uint64), np.arange(1, count + 1, dtype=np.uint64)
    keys = _mix(np.uint64(seed) ^ _mix((ids + np.uint64(1)) * golden))  # (B,)
    bits = _mix(keys[:, None] + index * golden)  # (B, count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
