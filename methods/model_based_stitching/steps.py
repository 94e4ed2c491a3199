"""The transitions of a dataset on a device: joint observations standardised, joint actions encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from methods.base import Arrays
from methods.data.batches import as_tensor
from methods.data.statistics import mean_and_std
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec

_CONSTANT = 1e-6  # standard deviation, relative to the mean, up to which a feature is dropped (inferred)
_SMALLEST_CHANGE = 1e-3  # in standard deviations of the feature: unit of the change of what hardly changes (inferred)
_ROWS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """How joint observations and their changes are measured.

    Attributes:
        kept: (X,) indices of the features of a joint observation that are not constant.
        mean, std: (X,) of them.
        change_mean, change_std: (X,) of o' − o, in units of std.
    """

    kept: NDArray[np.int64]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    change_mean: NDArray[np.float32]
    change_std: NDArray[np.float32]

    @classmethod
    def fit(cls, data: OfflineDataset) -> Self:
        """Of all rows and all steps."""
        flat = data.observations.reshape(len(data.observations), -1)
        mean, std = mean_and_std(flat)
        kept = np.flatnonzero(std > _CONSTANT * np.maximum(1, np.abs(mean)))
        kept = kept if len(kept) else np.zeros(1, dtype=np.int64)
        mean, std = mean[kept], np.maximum(std[kept], _CONSTANT)
        at = data.row_of_step()
        change = (flat[at + 1][:, kept] - flat[at][:, kept]) / std  # (S, X)
        change_mean, change_std = mean_and_std(change)
        return cls(kept, mean, std, change_mean, np.maximum(change_std, np.float32(_SMALLEST_CHANGE)))

    def rows(self, data: OfflineDataset) -> NDArray[np.float32]:
        """(S + E, X) standardised joint observations."""
        flat = data.observations.reshape(len(data.observations), -1)
        rows = np.empty((len(flat), len(self.kept)), dtype=np.float32)
        for start in range(0, len(flat), _ROWS):
            rows[start : start + _ROWS] = (flat[start : start + _ROWS, self.kept] - self.mean) / self.std
        return rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` returned."""
        return cls(**{name: np.array(arrays[name]) for name in cls.__slots__})


@dataclass(frozen=True, slots=True, eq=False)
class StepTensors:
    """Columns on the device.

    Attributes:
        rows: (M, X) standardised joint observations.
        change_mean, change_std: (X,) of their changes.
        at: (S,) the row of each step; the next observation is one row later.
        actions: (S, N, A) in [−1, 1], or (S, N) of discrete tasks.
        rewards: (S,) of the team. terminals: (S,).
        available: (M, N, A) of discrete tasks.
        choices: A of discrete tasks.
    """

    rows: Tensor
    change_mean: Tensor
    change_std: Tensor
    at: Tensor
    actions: Tensor
    rewards: Tensor
    terminals: Tensor
    available: Tensor | None
    choices: int

    @classmethod
    def of(cls, data: OfflineDataset, scaling: Scaling, device: str) -> Self:
        """All steps of the data."""
        spec = data.spec.action
        actions = as_tensor(data.actions, device)
        return cls(
            rows=torch.from_numpy(scaling.rows(data)).to(device),
            change_mean=torch.from_numpy(scaling.change_mean).to(device),
            change_std=torch.from_numpy(scaling.change_std).to(device),
            at=torch.from_numpy(data.row_of_step()).to(device),
            actions=actions if spec.discrete else unit_actions(actions, spec),
            rewards=torch.from_numpy(np.array(data.team_rewards())).to(device),
            terminals=as_tensor(data.terminals, device),
            available=None if data.available_actions is None else as_tensor(data.available_actions, device),
            choices=spec.size,
        )

    def changes(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., X) from rows `first` to rows `second` (...), in units of what one step changes."""
        return (self.rows[second] - self.rows[first] - self.change_mean) / self.change_std

    def encoded(self, actions: Tensor) -> Tensor:
        """(..., N, A): as they are, or one-hot."""
        return one_hot(actions, self.choices).float() if self.available is not None else actions

    def seen(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., 2 X) what the inverse model is given: o, and o' as the change from o."""
        return torch.cat([self.rows[first], self.changes(first, second)], dim=-1)

    def as_stored(self, actions: Tensor, spec: ActionSpec) -> Tensor:
        """Actions of the task in the form of `actions`."""
        return actions if spec.discrete else unit_actions(actions, spec)

    @property
    def told_size(self) -> int:
        """2 X + N A, of `told`."""
        per_agent = self.choices * self.actions[0].numel() if self.available is not None else self.actions[0].numel()
        return 2 * self.rows.shape[1] + per_agent

    def told(self, first: Tensor, actions: Tensor, second: Tensor) -> Tensor:
        """(..., 2 X + N A) what the reward model is given: o, a in [−1, 1] or discrete, o'."""
        return torch.cat([self.rows[first], self.encoded(actions).flatten(-2), self.rows[second]], dim=-1)


def unit_actions(actions: Tensor, spec: ActionSpec) -> Tensor:
    """Continuous actions in [−1, 1]; `networks.heads.stretched` is the way back."""
    middle, half = (spec.high + spec.low) / 2, (spec.high - spec.low) / 2
    return ((actions - middle) / half).clamp(-1, 1)
