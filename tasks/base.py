"""What a task family implements: a batched environment and the behaviour policies that recorded the data.

Arrays in, arrays out. B environments, N learning agents, D observation features, A actions, K state features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import UsageError
from tasks.scene import Scene
from tasks.spec import TaskSpec

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
ActionArray = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a batched environment shows after `reset` or `step`.

    `terminals` is a true end, `truncations` the time limit; never both. After either, the observation is the true
    last one: there is no hidden reset. Stepping a finished environment is allowed and its rows are meaningless.
    """

    observations: FloatArray  # (B, N, D)
    rewards: FloatArray  # (B, N), zeros after a reset
    terminals: BoolArray  # (B,)
    truncations: BoolArray  # (B,)
    states: FloatArray | None = None  # (B, K)
    available_actions: BoolArray | None = None  # (B, N, A), discrete tasks
    alive: BoolArray | None = None  # (B, N), where agents can die
    won: BoolArray | None = None  # (B,), where a win is defined


class BatchedEnv(ABC):
    """`num_envs` copies of one task, stepped together."""

    spec: TaskSpec
    num_envs: int

    @abstractmethod
    def reset(self, episode_ids: Sequence[int]) -> Step:
        """Starts one episode an environment. Episode i is a function of (seed of the environment, i) alone.

        Args:
            episode_ids: B numbers; equal numbers give equal episodes in whatever batch they appear.
        """

    @abstractmethod
    def step(self, actions: ActionArray) -> Step:
        """Advances every environment: actions (B, N, A) float32 or (B, N) int64."""

    def restore(self, observations: FloatArray) -> None:
        """Puts the simulators into the states that show these observations (B, N, D), at step 0 of an episode.

        Raises:
            UsageError: where observations do not determine the state.
        """
        raise UsageError(f"{self.spec.id}: a state cannot be rebuilt from observations, so replay is not possible.")

    def close(self) -> None:  # noqa: B027  # most engines hold nothing
        """Releases what the engine holds."""


class BehaviourPolicy(Protocol):
    """A policy that records data: shipped, frozen, not a learner's."""

    def act(self, observations: FloatArray, available_actions: BoolArray | None) -> ActionArray:
        """Greedy joint actions (B, N, A) float32 or (B, N) int64 for observations (B, N, D)."""


@runtime_checkable
class StochasticPolicy(Protocol):
    """A policy of discrete actions that is drawn from where it records data."""

    def sample(
        self, observations: FloatArray, available_actions: BoolArray | None, uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Joint actions (B, N) from the softmax over available actions, by inversion of uniform numbers (B, N)."""


@dataclass(frozen=True, slots=True)
class HistoryPhase:
    """A stretch of a training run: which policy acted, for how many episodes, with which exploration.

    Attributes:
        policy: None while the run explored uniformly at random.
        noise_std: of the Gaussian added to continuous actions, then clipped to the bounds.
        epsilon: probability of a uniformly random available action (discrete tasks).
    """

    policy: BehaviourPolicy | StochasticPolicy | None
    episodes: int
    noise_std: float = 0.0
    epsilon: float = 0.0


class Task(ABC):
    """One task of a family, built from a selector such as `mpe/spread[variant=mpe2]`."""

    behaviour_levels: ClassVar[tuple[str, ...]]
    full_return: ClassVar[float | None] = None
    """The team return that the field counts as 100 of the normalised score; None: what the shipped expert reaches."""
    most_envs: ClassVar[int] = 8192
    """Environments that are stepped together at most; more are run in turns."""
    spec: TaskSpec

    @abstractmethod
    def make_env(self, num_envs: int, seed: int) -> BatchedEnv:
        """A batched environment whose episodes derive from `seed`."""

    def unavailable(self) -> str | None:
        """What this machine lacks to play the task, and how to get it; None: nothing. Loads no engine."""
        return None

    def environment_files(self) -> Mapping[str, str]:
        """SHA-256 of every file that is part of the decision process, by name, such as the weights of a prey.

        They are part of the keys of datasets and evaluations.
        """
        return {}

    def scene(self, observations: FloatArray) -> Scene:
        """Where everything is in joint observations (M, N, D), for metrics and drawings.

        Raises:
            UsageError: where the task has no map.
        """
        raise UsageError(f"{self.spec.id}: observations of this task show no map.")

    def contributions(self, observations: FloatArray, actions: ActionArray) -> NDArray[np.float64]:
        """What each agent truly adds to the team's reward of one step, (B, N), from the engine's own reward.

        For analysis alone: no method sees it.

        Args:
            observations: (B, N, D), what the step starts from.
            actions: (B, N, A) float32 or (B, N) int64.

        Raises:
            UsageError: where the task does not say what an agent's contribution is.
        """
        raise UsageError(f"{self.spec.id}: this task does not say what one agent adds to the team's reward.")

    def attacked(self, actions: ActionArray) -> NDArray[np.int64]:
        """The number of the enemy that each agent attacks, (B, N), -1 where an action is no attack.

        Args:
            actions: (B, N, A) float32 or (B, N) int64.

        Raises:
            UsageError: where the actions do not say who is attacked.
        """
        raise UsageError(f"{self.spec.id}: no action of this task attacks an enemy.")

    @abstractmethod
    def behaviour_policy(self, level: str) -> BehaviourPolicy | StochasticPolicy:
        """The shipped policy of a level, e.g. "expert" or "medium".

        Raises:
            UsageError: if none is shipped at that level; the message has the command that trains it.
        """

    @abstractmethod
    def training_history(self, until: str = "medium") -> Sequence[HistoryPhase]:
        """How the expert's training run acted, in order.

        Args:
            until: where it first reached the "medium" level (medium-replay), or came to the "expert" (replay).

        Raises:
            UsageError: if no history is shipped that goes so far.
        """

    @abstractmethod
    def behaviour_digest(self, level: str) -> str:
        """SHA-256 of that policy's file (level "history": of the training history's): part of a dataset's identity."""
