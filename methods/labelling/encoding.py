"""Windows as inputs of a network: standardised observations, one-hot or plain actions, rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.labelling.windows import LabelWindows
from tasks.spec import TaskSpec

_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class StepEncoder:
    """(o − mean) / std, actions, (r − mean) / std, one vector an agent and step; statistics of the labelled windows.

    Attributes:
        mean, std: (D,) of observations. reward_mean, reward_std: of the team reward.
    """

    spec: TaskSpec
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    reward_mean: float
    reward_std: float

    @classmethod
    def fit(cls, spec: TaskSpec, windows: LabelWindows) -> StepEncoder:
        """Takes the statistics of the steps that are no padding."""
        valid = windows.step_valid
        seen = windows.observations[:, :-1][valid].reshape(-1, spec.obs_dim)
        rewards = windows.rewards[valid]
        return cls(
            spec,
            seen.mean(axis=0, dtype=np.float64).astype(np.float32),
            (seen.std(axis=0, dtype=np.float64) + _EPSILON).astype(np.float32),
            float(rewards.mean(dtype=np.float64)),
            float(rewards.std(dtype=np.float64)) + _EPSILON,
        )

    def points(self, windows: LabelWindows) -> Tensor:
        """(M, H − 1, N, D + A): what each agent saw and did."""
        observations = torch.from_numpy((windows.observations[:, :-1] - self.mean) / self.std)
        actions = torch.from_numpy(windows.actions)
        if self.spec.action.discrete:
            actions = torch.nn.functional.one_hot(actions, self.spec.action.size)
        return torch.cat([observations, actions.float()], dim=-1)

    def rewards(self, windows: LabelWindows) -> Tensor:
        """(M, H − 1)."""
        return torch.from_numpy((windows.rewards - np.float32(self.reward_mean)) / np.float32(self.reward_std))
