"""The replay buffer of a behaviour run: whole episodes of one length, each observation stored once."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.online.matd3 import ReplayBatch


class EpisodeReplay:
    """A ring of E episodes of T steps: observations (E, T + 1, N, D), actions (E, T, N, A), rewards (E, T, N).

    The tasks it serves end by time limit only, so no transition is terminal.
    """

    def __init__(self, episodes: int, length: int, n_agents: int, obs_dim: int, action_size: int) -> None:
        self._length, self._capacity, self._count, self._next = length, episodes, 0, 0
        self._shape = (n_agents, obs_dim), (n_agents, action_size)
        self._observations = torch.empty(episodes, length + 1, n_agents * obs_dim)
        self._actions = torch.empty(episodes, length, n_agents * action_size)
        self._rewards = torch.empty(episodes, length, n_agents)

    def add(self, observations: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Adds B episodes, the oldest ones make room: (B, T + 1, N, D), (B, T, N, A), (B, T, N)."""
        batch = len(rewards)
        slots = (torch.arange(batch) + self._next) % self._capacity
        self._observations[slots] = observations.flatten(2)
        self._actions[slots] = actions.flatten(2)
        self._rewards[slots] = rewards
        self._next = (self._next + batch) % self._capacity
        self._count = min(self._count + batch, self._capacity)

    def sample(self, batch_size: int, generator: torch.Generator) -> ReplayBatch:
        """Transitions drawn uniformly with replacement."""
        step = torch.randint(self._count * self._length, (batch_size,), generator=generator)
        row = step + step // self._length  # each episode has one observation more than steps
        observations = self._observations.flatten(0, 1)
        observation_shape, action_shape = self._shape
        return ReplayBatch(
            observations=observations.index_select(0, row).view(batch_size, *observation_shape),
            actions=self._actions.flatten(0, 1).index_select(0, step).view(batch_size, *action_shape),
            rewards=self._rewards.flatten(0, 1).index_select(0, step),
            next_observations=observations.index_select(0, row + 1).view(batch_size, *observation_shape),
            terminals=torch.zeros(batch_size, dtype=torch.bool),
        )
