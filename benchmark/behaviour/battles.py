"""The online loop of teams that see states and masks, and whose episodes end when they end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.behaviour.loop import Round, actor_weights
from methods.online.qmix import QMIX, JointTransitions
from tasks.base import BatchedEnv, Step

_REPLAY_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class BattleConfig:
    """How experience is gathered and used, found by measurement (docs/tasks.md)."""

    num_envs: int = 64  # inferred
    updates_per_step: float = 2.0  # inferred: per step of all environments, fewer once some episodes have ended
    warm_up_steps: int = 10_000  # inferred: uniform actions
    replay_steps: int = 500_000  # inferred; fewer where they would not fit into 2 GiB
    batch_size: int = 256  # inferred
    epsilon_steps: int = 100_000  # PyMARL2: until exploration has fallen to its last share
    epsilon: float = 0.05  # PyMARL: that share
    reward_scale: float = 0.1  # inferred

    def exploration(self, env_steps: int) -> float:
        """ε after that many steps: 1 while warming up, then falling linearly."""
        done = (env_steps - self.warm_up_steps) / self.epsilon_steps
        return 1.0 if done < 0 else max(self.epsilon, 1.0 - (1.0 - self.epsilon) * done)


class TransitionReplay:
    """A ring of transitions of a team.

    Args:
        capacity: of transitions.
        env: whose sizes they have.
    """

    def __init__(self, capacity: int, env: BatchedEnv) -> None:
        spec = env.spec
        n, states = spec.n_agents, spec.state_dim or 0
        row = 4 * (2 * (n * spec.obs_dim + states) + 1) + 8 * n + n * spec.action.size + 1
        self.capacity = min(capacity, _REPLAY_BYTES // row)
        self._rows = JointTransitions(
            observations=torch.empty(self.capacity, n, spec.obs_dim),
            states=torch.empty(self.capacity, states),
            actions=torch.empty(self.capacity, n, dtype=torch.int64),
            rewards=torch.empty(self.capacity),
            terminals=torch.empty(self.capacity, dtype=torch.bool),
            next_observations=torch.empty(self.capacity, n, spec.obs_dim),
            next_states=torch.empty(self.capacity, states),
            next_available=torch.empty(self.capacity, n, spec.action.size, dtype=torch.bool),
        )
        self._next = self.count = 0

    def add(self, rows: JointTransitions) -> None:
        """Adds transitions; the oldest make room."""
        slots = (torch.arange(len(rows.rewards)) + self._next) % self.capacity
        for column, values in zip(self._rows, rows, strict=True):
            column[slots] = values
        self._next = (self._next + len(slots)) % self.capacity
        self.count = min(self.count + len(slots), self.capacity)

    def sample(self, size: int, generator: torch.Generator) -> JointTransitions:
        """Transitions drawn uniformly with replacement."""
        drawn = torch.randint(self.count, (size,), generator=generator)
        return JointTransitions(*(column.index_select(0, drawn) for column in self._rows))


def battle_rounds(env: BatchedEnv, config: BattleConfig, learner: QMIX, generator: torch.Generator) -> Iterator[Round]:
    """Yields the start of each round of `num_envs` episodes, and trains through it once asked for the next."""
    replay = TransitionReplay(config.replay_steps, env)
    index = env_steps = 0
    due = 0.0
    while True:
        epsilon = config.exploration(env_steps)
        yield Round(index, env_steps, epsilon == 1.0, actor_weights(learner), epsilon)
        shown = env.reset(range(index * config.num_envs, (index + 1) * config.num_envs))
        running = np.ones(config.num_envs, dtype=np.bool_)
        while running.any():
            actions = _explored(learner, shown, config.exploration(env_steps), generator)
            after = env.step(actions.numpy())
            replay.add(_transitions(env, shown, actions, after, running, config.reward_scale))
            env_steps += int(running.sum())
            due += config.updates_per_step * running.mean() if env_steps >= config.warm_up_steps else 0.0
            for _ in range(int(due)):
                learner.update(replay.sample(config.batch_size, generator))
            due -= int(due)
            running &= ~(after.terminals | after.truncations)
            shown = after
        index += 1


def _explored(learner: QMIX, shown: Step, epsilon: float, generator: torch.Generator) -> Tensor:
    """(B, N) greedy actions; each with probability ε a uniform available one."""
    assert shown.available_actions is not None
    available = torch.from_numpy(shown.available_actions)
    greedy = learner.act(torch.from_numpy(shown.observations), available)
    drawn = torch.rand(available.shape, generator=generator).masked_fill(~available, -1.0).argmax(dim=-1)
    return torch.where(torch.rand(greedy.shape, generator=generator) < epsilon, drawn, greedy)


def _transitions(
    env: BatchedEnv, shown: Step, actions: Tensor, after: Step, running: NDArray[np.bool_], scale: float
) -> JointTransitions:
    """The steps of the episodes that still ran."""
    assert shown.states is not None
    assert after.states is not None
    assert after.available_actions is not None
    return JointTransitions(
        observations=torch.from_numpy(shown.observations[running]),
        states=torch.from_numpy(shown.states[running]),
        actions=actions[torch.from_numpy(running)],
        rewards=torch.from_numpy(env.spec.fold_rewards(after.rewards)[running] * np.float32(scale)),
        terminals=torch.from_numpy(after.terminals[running]),
        next_observations=torch.from_numpy(after.observations[running]),
        next_states=torch.from_numpy(after.states[running]),
        next_available=torch.from_numpy(after.available_actions[running]),
    )
