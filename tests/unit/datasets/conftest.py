"""A toy task with episodes of different lengths, masks, states, deaths and wins, and data recorded in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.base import BatchedEnv, HistoryPhase, Step, Task
from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec

MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], dtype=np.float32)
STEP = np.float32(0.25)


@dataclass(frozen=True)
class Walker:
    """Walks straight to the goal, at full or a share of the speed."""

    discrete: bool
    speed: float = 1.0

    def act(self, observations: NDArray[np.float32], available_actions: NDArray[np.bool_] | None) -> NDArray:
        gap = (observations[..., 2:] - observations[..., :2]) * np.float32(self.speed)
        if not self.discrete:
            return np.clip(gap / STEP, -1, 1)
        score = np.where(available_actions, gap @ MOVES.T, -np.inf)
        return score.argmax(axis=-1)


@dataclass(frozen=True)
class Climber:
    """Drawn from: the last available action, up or where barred down; for numbers from 0.99 on it stays."""

    def sample(
        self,
        observations: NDArray[np.float32],
        available_actions: NDArray[np.bool_],
        uniform: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        last = np.where(available_actions, np.arange(5), -1).max(axis=-1)
        return np.where(uniform < 0.99, last, 0)


class ToyEnv(BatchedEnv):
    """Each agent walks in the plane; the episode ends when all have arrived. Moving up is barred on the right half."""

    def __init__(self, spec: TaskSpec, num_envs: int, seed: int) -> None:
        self.spec, self.num_envs, self._seed = spec, num_envs, seed

    def reset(self, episode_ids: Sequence[int]) -> Step:
        shape = (self.spec.n_agents, 4)
        drawn = [make_generator("toy", self._seed, int(i)).uniform(-1, 1, shape) for i in episode_ids]
        self._state, self._t = np.stack(drawn).astype(np.float32), 0
        return self._show(np.zeros(self._state.shape[:2], dtype=np.float32))

    def step(self, actions: NDArray) -> Step:
        self._state[..., :2] += STEP * (MOVES[actions] if self.spec.action.discrete else actions)
        self._t += 1
        return self._show(-self._distance())

    def restore(self, observations: NDArray[np.float32]) -> None:
        self._state, self._t = observations.copy(), 0

    def _distance(self) -> NDArray[np.float32]:
        return np.abs(self._state[..., :2] - self._state[..., 2:]).max(axis=-1)

    def _show(self, rewards: NDArray[np.float32]) -> Step:
        arrived = self._distance() < 0.3
        ended = arrived.all(axis=1) & (self._t > 0)
        available = None
        if self.spec.action.discrete:
            available = np.ones((*self._state.shape[:2], 5), dtype=np.bool_)
            available[..., 4] = self._state[..., 0] <= 0
        return Step(
            observations=self._state.copy(),
            rewards=rewards,
            terminals=ended,
            truncations=~ended & (self._t >= self.spec.episode_limit),
            states=self._state.reshape(len(self._state), -1).copy(),
            available_actions=available,
            alive=~arrived,
            won=ended,
        )


class ToyTask(Task):
    behaviour_levels: ClassVar[tuple[str, ...]] = ("medium", "expert")

    def __init__(self, n_agents: int = 3, *, discrete: bool = False, episode_limit: int = 12) -> None:
        names = ("stay", "left", "right", "down", "up") if discrete else ("x", "y")
        kind = "discrete" if discrete else "continuous"
        self.spec = TaskSpec(
            id=f"toy/walk-{n_agents}" + ("[actions=discrete]" if discrete else ""),
            family="toy",
            engine="toy",
            engine_version="1",
            variant=kind,
            n_agents=n_agents,
            obs_dim=4,
            state_dim=4 * n_agents,
            action=ActionSpec(kind=kind, size=len(names), names=names),
            episode_limit=episode_limit,
            team_reward="sum",
            agent_groups=(tuple(range(n_agents)),),
            observation_features=("x", "y", "goal_x", "goal_y"),
            has_win=True,
            has_deaths=True,
        )

    def make_env(self, num_envs: int, seed: int) -> ToyEnv:
        return ToyEnv(self.spec, num_envs, seed)

    def behaviour_policy(self, level: str) -> Walker:
        if level not in self.behaviour_levels:
            raise UsageError(f"no {level}")
        return Walker(self.spec.action.discrete, {"expert": 1.0, "medium": 0.2}[level])

    def training_history(self, until: str = "medium") -> tuple[HistoryPhase, ...]:
        learner = Walker(self.spec.action.discrete, 0.1)
        until_medium = (HistoryPhase(None, 40), HistoryPhase(learner, 60, noise_std=0.1, epsilon=0.1))
        later = HistoryPhase(Climber() if self.spec.action.discrete else learner, 100)
        return until_medium if until == "medium" else (*until_medium, later)

    def behaviour_digest(self, level: str) -> str:
        return f"digest-of-{level}"


def silent(done: int, total: int, message: str) -> None:
    """Nobody watches."""


@pytest.fixture
def toy_task() -> Callable[..., ToyTask]:
    return ToyTask


@pytest.fixture(scope="session", params=["continuous", "discrete"])
def task(request: pytest.FixtureRequest) -> ToyTask:
    return ToyTask(discrete=request.param == "discrete")


@pytest.fixture(scope="session")
def collected(task: ToyTask) -> OfflineDataset:
    """60 episodes of `exp-m`, of different lengths."""
    from tasks.datasets import regimes

    return regimes.collect(task, regimes.resolve(task, "exp-m"), 60, 3, silent)
