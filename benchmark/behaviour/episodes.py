"""The online loop of tasks whose episodes end when they end: battles and robots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.behaviour.loop import HasActors, Round, actor_weights
from methods.online.matd3 import MATD3, ReplayBatch
from methods.online.qmix import QMIX, JointTransitions
from tasks.base import ActionArray, BatchedEnv, Step

_REPLAY_BYTES = 2 * 2**30
RowsT = TypeVar("RowsT", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodesConfig:
    """How experience is gathered and used; starting values, not yet tuned to any task."""

    num_envs: int = 64  # inferred
    updates_per_step: float = 2.0  # inferred: per step of all environments, fewer once some episodes have ended
    warm_up_steps: int = 10_000  # inferred: uniform actions
    replay_steps: int = 500_000  # inferred; fewer where they would not fit into 2 GiB
    batch_size: int = 256  # inferred
    reward_scale: float = 0.1  # inferred
    epsilon_steps: int = 100_000  # PyMARL2, discrete actions: until exploration has fallen to its last share
    epsilon: float = 0.05  # PyMARL: that share

    def exploration(self, env_steps: int) -> float:
        """ε after that many steps: 1 while warming up, then falling linearly."""
        done = (env_steps - self.warm_up_steps) / self.epsilon_steps
        return 1.0 if done < 0 else max(self.epsilon, 1.0 - (1.0 - self.epsilon) * done)


class Moment(NamedTuple):
    """One step of all environments: what was shown, done and shown then, and which episodes still ran."""

    shown: Step
    actions: ActionArray
    after: Step
    running: NDArray[np.bool_]


class Player(Protocol[RowsT]):
    """A learner in the loop."""

    @property
    def learner(self) -> HasActors:
        """Whose weights become policies."""

    def act(self, shown: Step, epsilon: float, generator: torch.Generator) -> ActionArray:
        """Exploring actions; uniform ones at ε = 1."""

    def rows(self, moment: Moment) -> RowsT:
        """The transitions of the episodes that still ran, as the learner wants them."""

    def update(self, rows: RowsT) -> None:
        """One step of learning."""


class Replay(Generic[RowsT]):
    """A ring of transitions, a named tuple of tensors (B, ...).

    Args:
        capacity: of transitions; fewer where they would take more than 2 GiB.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._ring: RowsT | None = None
        self._next = self.count = 0

    def add(self, rows: RowsT) -> None:
        """Adds transitions; the oldest make room."""
        if self._ring is None:
            size = sum(column[0].numel() * column.element_size() for column in rows)
            self.capacity = min(self.capacity, max(1, _REPLAY_BYTES // size))
            self._ring = type(rows)(*(column.new_empty(self.capacity, *column.shape[1:]) for column in rows))
        slots = (torch.arange(len(rows[0])) + self._next) % self.capacity
        for ring, column in zip(self._ring, rows, strict=True):
            ring[slots] = column
        self._next = (self._next + len(slots)) % self.capacity
        self.count = min(self.count + len(slots), self.capacity)

    def sample(self, size: int, generator: torch.Generator) -> RowsT:
        """Transitions drawn uniformly with replacement."""
        assert self._ring is not None
        drawn = torch.randint(self.count, (size,), generator=generator)
        return type(self._ring)(*(column.index_select(0, drawn) for column in self._ring))


def episode_rounds(
    env: BatchedEnv, config: EpisodesConfig, player: Player[RowsT], generator: torch.Generator
) -> Iterator[Round]:
    """Yields the start of each round of `num_envs` episodes, and trains through it once asked for the next."""
    replay: Replay[RowsT] = Replay(config.replay_steps)
    index = env_steps = 0
    due = 0.0
    while True:
        epsilon = config.exploration(env_steps)
        yield Round(index, env_steps, epsilon == 1.0, actor_weights(player.learner), epsilon)
        shown = env.reset(range(index * config.num_envs, (index + 1) * config.num_envs))
        running = np.ones(config.num_envs, dtype=np.bool_)
        while running.any():
            actions = player.act(shown, config.exploration(env_steps), generator)
            after = env.step(actions)
            replay.add(player.rows(Moment(shown, actions, after, running)))
            env_steps += int(running.sum())
            due += config.updates_per_step * running.mean() if env_steps >= config.warm_up_steps else 0.0
            for _ in range(int(due)):
                player.update(replay.sample(config.batch_size, generator))
            due -= int(due)
            running = running & ~(after.terminals | after.truncations)
            shown = after
        index += 1


# -- the players ---------------------------------------------------------------------------------------------------


class QMIXPlayer:
    """QMIX: ε-greedy on available actions, the team's reward."""

    def __init__(self, learner: QMIX, env: BatchedEnv, config: EpisodesConfig) -> None:
        self.learner, self._spec, self._scale = learner, env.spec, np.float32(config.reward_scale)

    def act(self, shown: Step, epsilon: float, generator: torch.Generator) -> ActionArray:
        """Each agent with probability ε a uniform available action, else the greedy one."""
        assert shown.available_actions is not None
        available = torch.from_numpy(shown.available_actions)
        greedy = self.learner.act(torch.from_numpy(shown.observations), available)
        drawn = torch.rand(available.shape, generator=generator).masked_fill(~available, -1.0).argmax(dim=-1)
        chosen = torch.where(torch.rand(greedy.shape, generator=generator) < epsilon, drawn, greedy)
        return np.asarray(chosen.numpy())

    def rows(self, moment: Moment) -> JointTransitions:
        """With states and the masks of what comes next."""
        shown, after, running = moment.shown, moment.after, moment.running
        assert shown.states is not None
        assert after.states is not None
        assert after.available_actions is not None
        return JointTransitions(
            observations=torch.from_numpy(shown.observations[running]),
            states=torch.from_numpy(shown.states[running]),
            actions=torch.from_numpy(moment.actions[running]),
            rewards=torch.from_numpy(self._spec.fold_rewards(after.rewards)[running] * self._scale),
            terminals=torch.from_numpy(after.terminals[running]),
            next_observations=torch.from_numpy(after.observations[running]),
            next_states=torch.from_numpy(after.states[running]),
            next_available=torch.from_numpy(after.available_actions[running]),
        )

    def update(self, rows: JointTransitions) -> None:
        """One step of QMIX."""
        self.learner.update(rows)


class MATD3Player:
    """MATD3: its own noise on continuous actions, each agent's own reward."""

    def __init__(self, learner: MATD3, env: BatchedEnv, config: EpisodesConfig) -> None:
        self.learner, self._action, self._scale = learner, env.spec.action, np.float32(config.reward_scale)

    def act(self, shown: Step, epsilon: float, generator: torch.Generator) -> ActionArray:
        """Uniform actions while ε is 1, the policy's with noise afterwards."""
        if epsilon < 1.0:
            return np.asarray(self.learner.act(torch.from_numpy(shown.observations)).numpy())
        low, high = self._action.low, self._action.high
        unit = torch.rand((*shown.observations.shape[:2], self._action.size), generator=generator)
        return np.asarray((low + (high - low) * unit).numpy())

    def rows(self, moment: Moment) -> ReplayBatch:
        """Observations, actions and rewards of every agent."""
        shown, after, running = moment.shown, moment.after, moment.running
        return ReplayBatch(
            observations=torch.from_numpy(shown.observations[running]),
            actions=torch.from_numpy(np.asarray(moment.actions[running], dtype=np.float32)),
            rewards=torch.from_numpy(after.rewards[running] * self._scale),
            next_observations=torch.from_numpy(after.observations[running]),
            terminals=torch.from_numpy(after.terminals[running]),
        )

    def update(self, rows: ReplayBatch) -> None:
        """One step of MATD3."""
        self.learner.update(rows)
