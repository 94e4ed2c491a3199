"""The batched environment: chunks of battles, a step counter, and the checks of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BatchedEnv, BoolArray, Step
from tasks.common.errors import DataError, UsageError
from tasks.smac.observe import STOP, Layout
from tasks.spec import TaskSpec

if TYPE_CHECKING:
    from tasks.smac.smax import Battles, Shown


class SMAXEnv(BatchedEnv):
    """`num_envs` battles on SMAX.

    Args:
        spec: the task.
        battles: its compiled programs.
        chunk: battles that these work on at once.
        num_envs: B.
        seed: of all episodes.
    """

    def __init__(self, spec: TaskSpec, battles: Battles, chunk: int, num_envs: int, seed: int) -> None:
        if num_envs < 1:
            raise UsageError(f"{spec.id}: num_envs is {num_envs}. Ask for at least one environment.")
        self.spec, self.num_envs = spec, num_envs
        self._battles, self._chunk, self._seed = battles, chunk, seed
        self._layout = Layout(spec.action.names)
        self._states: list[Any] = []  # of each chunk
        self._shown: list[Shown] = []
        self._steps = 0
        self._running: BoolArray = np.zeros(num_envs, dtype=np.bool_)
        self._available: BoolArray | None = None

    def reset(self, episode_ids: Sequence[int]) -> Step:
        """Starts the episodes of these numbers, one an environment."""
        if len(episode_ids) != self.num_envs:
            raise UsageError(f"{self.spec.id}: {len(episode_ids)} episode numbers for {self.num_envs} environments.")
        numbers = self._padded(np.asarray(episode_ids, dtype=np.uint32), 0)
        started = [self._battles.start(self._seed, own) for own in numbers]
        self._states, self._shown, self._steps = [state for state, _ in started], [shown for _, shown in started], 0
        self._running = np.ones(self.num_envs, dtype=np.bool_)
        return self._show()

    def step(self, actions: ActionArray) -> Step:
        """Advances every battle. Those that are over stand still.

        Raises:
            DataError: if the actions have another shape, or one of a battle that goes on is not available.
            UsageError: before the first `reset`.
        """
        self._check(actions)
        numbers = self._padded(self._layout.to_engine[np.clip(actions, 0, self.spec.action.size - 1)], STOP)
        for chunk, (own, running) in enumerate(zip(numbers, self._padded(self._running, False), strict=True)):
            if running.any():
                self._states[chunk], self._shown[chunk] = self._battles.advance(self._states[chunk], own)
            else:  # nobody looks at these any more
                self._shown[chunk] = self._shown[chunk]._replace(reward=np.zeros(self._chunk, dtype=np.float32))
        self._steps += 1
        return self._show()

    def _padded(self, values: NDArray[Any], filler: int | bool) -> list[NDArray[Any]]:
        """Values (B, ...) as chunks, the last one filled up."""
        missing = -len(values) % self._chunk
        filled = np.concatenate([values, np.full((missing, *values.shape[1:]), filler, dtype=values.dtype)])
        return np.split(filled, len(filled) // self._chunk)

    def _check(self, actions: ActionArray) -> None:
        spec, available = self.spec, self._available
        if available is None:
            raise UsageError(f"{spec.id}: step before the first reset. Call reset with the episodes' numbers.")
        if actions.shape != (self.num_envs, spec.n_agents):
            raise DataError(
                f"{spec.id}: actions have shape {actions.shape}, expected {(self.num_envs, spec.n_agents)}."
            )
        known = (actions >= 0) & (actions < spec.action.size)
        chosen = np.take_along_axis(available, np.where(known, actions, 0)[..., None], axis=-1)[..., 0]
        wrong = self._running[:, None] & ~(known & chosen)
        if wrong.any():
            battle, agent = np.argwhere(wrong)[0].tolist()
            legal = [spec.action.names[action] for action in np.flatnonzero(available[battle, agent])]
            raise DataError(
                f"{spec.id}: action {actions[battle, agent]} of agent {agent} in environment {battle} is not available "
                f"at step {self._steps}. Available are: {', '.join(legal)}."
            )

    def _show(self) -> Step:
        shown = {
            name: np.concatenate([np.asarray(getattr(chunk, name)) for chunk in self._shown])[: self.num_envs]
            for name in self._shown[0]._fields
        }
        over: BoolArray = shown["over"]
        truncations = ~over & (self._steps >= self.spec.episode_limit)
        self._running = self._running & ~over & ~truncations
        self._available = self._layout.available(shown["available"], shown["alive"])
        return Step(
            observations=shown["observations"],
            rewards=np.repeat(shown["reward"].astype(np.float32)[:, None], self.spec.n_agents, axis=1),
            terminals=over,
            truncations=truncations,
            states=shown["states"],
            available_actions=self._available,
            alive=shown["alive"],
            won=shown["won"],
        )
