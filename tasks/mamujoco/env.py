"""The batched environment: the agents' views of the simulations, and a step counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BatchedEnv, Step
from tasks.common.errors import DataError, UsageError
from tasks.mamujoco.robots import Robot
from tasks.spec import TaskSpec

if TYPE_CHECKING:
    from tasks.mamujoco.simulator import Simulations


class MuJoCoEnv(BatchedEnv):
    """`num_envs` robots.

    Args:
        spec: the task.
        robot: who drives what.
        simulations: as many as environments.
        num_envs: B.
        seed: of all episodes.
    """

    def __init__(self, spec: TaskSpec, robot: Robot, simulations: Simulations, num_envs: int, seed: int) -> None:
        self.spec, self.num_envs = spec, num_envs
        self._simulations, self._seed = simulations, seed
        self._observed = np.array(robot.observed)  # (N, D)
        self._actuators = np.array(robot.actuators)  # (N, A)
        self._steps = 0

    def reset(self, episode_ids: Sequence[int]) -> Step:
        """Starts the episodes of these numbers, one an environment."""
        if len(episode_ids) != self.num_envs:
            raise UsageError(f"{self.spec.id}: {len(episode_ids)} episode numbers for {self.num_envs} environments.")
        self._steps = 0
        states = self._simulations.reset(self._seed, episode_ids)
        return self._show(states, np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_))

    def step(self, actions: ActionArray) -> Step:
        """Advances every robot; actions are clipped to their bounds.

        Raises:
            DataError: if the actions have another shape, or are not finite.
        """
        spec = self.spec
        expected = (self.num_envs, spec.n_agents, spec.action.size)
        if actions.shape != expected:
            raise DataError(f"{spec.id}: actions have shape {actions.shape}, expected {expected}.")
        if not np.isfinite(actions).all():
            raise DataError(f"{spec.id}: an action is not finite; expected numbers from {spec.action.low:g} up.")
        joint = np.empty((self.num_envs, self._actuators.size))
        joint[:, self._actuators] = np.clip(actions, spec.action.low, spec.action.high)
        states, rewards, fallen = self._simulations.step(joint)
        self._steps += 1
        return self._show(states, rewards, fallen)

    def close(self) -> None:
        """Ends the simulations' threads."""
        self._simulations.close()

    def _show(self, states: NDArray[np.float64], rewards: NDArray[np.float64], fallen: NDArray[np.bool_]) -> Step:
        shown = states.astype(np.float32)
        return Step(
            observations=shown[:, self._observed],
            rewards=np.repeat(rewards.astype(np.float32)[:, None], self.spec.n_agents, axis=1),
            terminals=fallen,
            truncations=~fallen & (self._steps >= self.spec.episode_limit),
            states=shown,
        )
