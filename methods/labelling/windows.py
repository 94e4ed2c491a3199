"""What an oracle and a labeller see of a window: raw observations, actions and rewards of H rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.windows import WindowIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelWindows:
    """M windows of H observation rows, H − 1 steps; a window that passes its episode's end stands still there.

    Attributes:
        observations: (M, H, N, D) in the engine's units; the last row of an episode is repeated.
        actions: (M, H − 1, N, A) or (M, H − 1, N); the last action of an episode is repeated.
        rewards: (M, H − 1) team reward, 0 past the end.
        steps: (M,) steps that belong to the episode, at least 1; what follows them is padding.
        available_actions, alive: (M, H, N, A) and (M, H, N), where the task has them.
        behaviour: (M, H − 1, N) int8, privileged, −1 past the end; None where it may not be seen.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32] | NDArray[np.int64]
    rewards: NDArray[np.float32]
    steps: NDArray[np.int64]
    available_actions: NDArray[np.bool_] | None = None
    alive: NDArray[np.bool_] | None = None
    behaviour: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def n_agents(self) -> int:
        """N."""
        return int(self.observations.shape[2])

    @property
    def step_valid(self) -> NDArray[np.bool_]:
        """(M, H − 1), a prefix of True."""
        return np.arange(self.rewards.shape[1]) < self.steps[:, None]

    @property
    def row_valid(self) -> NDArray[np.bool_]:
        """(M, H), a prefix of True, one longer than that of the steps."""
        return np.arange(self.observations.shape[1]) <= self.steps[:, None]

    def take(self, index: NDArray[np.int64]) -> LabelWindows:
        """The windows with these numbers."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {name: None if of is None else of[index] for name, of in columns.items()}
        return LabelWindows(**taken)


def label_windows(index: WindowIndex, windows: NDArray[np.int64]) -> LabelWindows:
    """The windows (M,) with these numbers; the privileged column comes along where the data have it."""
    data, rows = index.data, index.rows(windows)
    steps, inside = index.steps(windows)

    def of(column: NDArray[Any] | None, where: NDArray[np.int64]) -> Any:
        return None if column is None else column[where]

    behaviour = of(data.behaviour, steps)
    return LabelWindows(
        observations=data.observations[rows],
        actions=data.actions[steps],
        rewards=data.spec.fold_rewards(data.rewards[steps]) * inside,
        steps=inside.sum(axis=1),
        available_actions=of(data.available_actions, rows),
        alive=of(data.alive, rows),
        behaviour=None if behaviour is None else np.where(inside[..., None], behaviour, np.int8(-1)),
    )
