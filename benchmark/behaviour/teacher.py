"""A scripted controller of spread that sees all agents at once: the teacher of spread-4 and spread-5."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

APPROACH, BRAKE = 4.0, 1.5  # proportional and derivative gain: reaches a landmark and stays without overshoot


class AssignmentTeacher:
    """Sends every agent to its landmark in the assignment with the smallest sum of distances.

    u_i = clip(4 (l_σ(i) − p_i) − 1.5 v_i, −1, 1),    σ = argmin Σ_i |l_σ(i) − p_i| over all N! assignments
    """

    def __init__(self, n_agents: int) -> None:
        self._n = n_agents
        self._assignments = torch.tensor(list(permutations(range(n_agents))))  # (N!, N)

    def __call__(self, observations: Tensor) -> Tensor:
        """Joint actions (B, N, 2) for joint observations (B, N, D)."""
        n = self._n
        offsets = observations[..., 4 : 4 + 2 * n].reshape(-1, n, n, 2)  # (B, N, L, 2)
        distance = offsets.norm(dim=-1)  # (B, N, L)
        agents = torch.arange(n)
        cost = distance[:, agents, self._assignments].sum(dim=-1)  # (B, N!)
        landmark = self._assignments[cost.argmin(dim=-1)]  # (B, N)
        target = offsets.take_along_dim(landmark[..., None, None], dim=2).squeeze(2)  # (B, N, 2)
        control: Tensor = APPROACH * target - BRAKE * observations[..., :2]
        return control.clamp(-1.0, 1.0)
