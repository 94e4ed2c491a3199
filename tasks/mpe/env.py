"""The batched environment: an engine, a prey and a step counter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.base import ActionArray, BatchedEnv, FloatArray, Step
from tasks.common.errors import DataError, UsageError
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.physics import Float64
from tasks.mpe.prey import Prey
from tasks.spec import TaskSpec

# 0 no-op, 1 -x, 2 +x, 3 -y, 4 +y: mpe2's order. OMAR's one-hot branch has the opposite signs and is unused.
ACTION_NAMES = ("no_op", "left", "right", "down", "up")
DIRECTIONS = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])


class MPEEnv(BatchedEnv):
    """`num_envs` copies of one particle task. The prey, where there is one, acts inside `step`."""

    def __init__(self, spec: TaskSpec, engine: ParticleEngine, prey: Prey | None, num_envs: int, seed: int) -> None:
        if num_envs < 1:
            raise UsageError(f"{spec.id}: num_envs is {num_envs}. Ask for at least one environment.")
        self.spec, self.num_envs = spec, num_envs
        self._engine, self._prey, self._seed = engine, prey, seed
        self._kinematics = engine.start(seed, range(num_envs))
        self._steps = 0
        self._flags = np.zeros((2, num_envs), dtype=bool)  # all False, all True: shared, so read-only
        self._flags[1] = True
        shape = (num_envs, spec.n_agents, spec.action.size)
        self._available = np.ones(shape, dtype=bool) if spec.action.discrete else None
        for array in (self._flags, self._available):
            if array is not None:
                array.flags.writeable = False

    def reset(self, episode_ids: Sequence[int]) -> Step:
        """Starts the episodes of these numbers, one an environment."""
        if len(episode_ids) != self.num_envs:
            raise UsageError(f"{self.spec.id}: {len(episode_ids)} episode numbers for {self.num_envs} environments.")
        self._kinematics, self._steps = self._engine.start(self._seed, episode_ids), 0
        return self._show(np.zeros((self.num_envs, self.spec.n_agents), dtype=np.float32))

    def step(self, actions: ActionArray) -> Step:
        """Advances every environment. Continuous actions are clipped to [-1, 1].

        Raises:
            DataError: if the actions have another shape, or a discrete one is outside 0..4.
        """
        joint = self._directions(actions)
        if self._prey is not None:
            prey = self._prey.act(self._engine.observe_prey(self._kinematics))
            joint = np.concatenate([joint, prey[:, None]], axis=1)  # (B, A, 2)
        self._kinematics = self._engine.step(self._kinematics, joint)
        self._steps += 1
        return self._show(self._engine.rewards(self._kinematics).astype(np.float32))

    def restore(self, observations: FloatArray) -> None:
        """Puts the simulators where these observations (B, N, D) were made, prey and landmarks too, at step 0.

        Exact for the first observation of an episode, up to the rounding of float32 for a later one.
        """
        expected = (self.num_envs, self.spec.n_agents, self.spec.obs_dim)
        if observations.shape != expected:
            raise DataError(f"{self.spec.id}: observations have shape {observations.shape}, expected {expected}.")
        self._kinematics, self._steps = self._engine.locate(observations.astype(np.float64)), 0

    @property
    def kinematics(self) -> Float64:
        """The simulators' state (B, E + A, 2), for tests and drawings: positions, then velocities of the agents."""
        return self._kinematics.copy()

    def _directions(self, actions: ActionArray) -> Float64:
        spec = self.spec
        expected: tuple[int, ...] = (self.num_envs, spec.n_agents)
        if not spec.action.discrete:
            expected = (*expected, spec.action.size)
        if actions.shape != expected:
            raise DataError(f"{spec.id}: actions have shape {actions.shape}, expected {expected}.")
        if not spec.action.discrete:
            return actions.astype(np.float64)
        if actions.min() < 0 or actions.max() >= spec.action.size:
            first = np.argwhere((actions < 0) | (actions >= spec.action.size))[0].tolist()
            raise DataError(
                f"{spec.id}: action {actions[tuple(first)]} of agent {first[1]} in environment {first[0]} "
                f"is none of 0..{spec.action.size - 1}."
            )
        return DIRECTIONS[actions]

    def _show(self, rewards: FloatArray) -> Step:
        observations = self._engine.observe(self._kinematics).astype(np.float32)
        return Step(
            observations=observations,
            rewards=rewards,
            terminals=self._flags[0],
            truncations=self._flags[int(self._steps >= self.spec.episode_limit)],
            states=observations.reshape(self.num_envs, -1),
            available_actions=self._available,
        )
