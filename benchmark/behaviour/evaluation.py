"""Returns of behaviour policies in the real environment."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BatchedEnv, BehaviourPolicy, BoolArray, FloatArray, StochasticPolicy, Task
from tasks.common.seeding import make_generator
from tasks.datasets.rollout import act
from tasks.spec import TaskSpec

Returns = NDArray[np.float64]
Policy = BehaviourPolicy | StochasticPolicy

# Never used by a training run: their environments' seeds are derived from the names "train" and "prey".
EVALUATION_SEED = 20_000_003


class RandomPolicy:
    """Uniform over the box, or over the available actions."""

    def __init__(self, spec: TaskSpec, seed: int) -> None:
        self._spec, self._generator = spec, make_generator("random policy", spec.id, seed)

    def act(self, observations: FloatArray, available_actions: BoolArray | None) -> ActionArray:
        """Joint actions (B, N, A) or (B, N)."""
        action, shape = self._spec.action, observations.shape[:2]
        if not action.discrete:
            return self._generator.uniform(action.low, action.high, (*shape, action.size)).astype(np.float32)
        draws = self._generator.random((*shape, action.size))
        if available_actions is not None:
            draws = np.where(available_actions, draws, -1.0)
        return np.asarray(draws.argmax(axis=-1))


class Played(NamedTuple):
    """Team returns (E,) of episodes, and which were won (E,), where a win is defined."""

    returns: Returns
    won: NDArray[np.bool_] | None


def evaluate(task: Task, policy: Policy, episodes: int, seed: int, batch: int = 250) -> Returns:
    """Team returns (E,) of `episodes` episodes, episode i being the one numbered i under `seed`."""
    return play(task, policy, episodes, seed, batch).returns


def play(task: Task, policy: Policy, episodes: int, seed: int, batch: int = 250) -> Played:
    """Like `evaluate`, with the wins."""
    batch = min(batch, episodes)
    env, returns, wins = task.make_env(batch, seed), [], []
    generator = make_generator("drawn actions", task.spec.id, seed)
    with closing(env):
        for first in range(0, episodes, batch):
            total, won = _episodes(env, policy, range(first, first + batch), generator)
            returns.append(total)
            wins.append(won)
    all_won = np.concatenate(wins)[:episodes] if task.spec.has_win else None
    return Played(np.concatenate(returns)[:episodes], all_won)


def _episodes(
    env: BatchedEnv, policy: Policy, ids: range, generator: np.random.Generator
) -> tuple[Returns, NDArray[np.bool_]]:
    """Team returns and wins of one episode an environment."""
    shown = env.reset(ids)
    total = np.zeros(len(ids))
    ended, won = np.zeros(len(ids), dtype=np.bool_), np.zeros(len(ids), dtype=np.bool_)
    while not ended.all():
        shown = env.step(act(policy, shown, generator.random((len(ids), env.spec.n_agents))))
        total += np.where(ended, 0.0, env.spec.fold_rewards(shown.rewards))
        if shown.won is not None:
            won |= shown.won & ~ended
        ended |= shown.terminals | shown.truncations
    return total, won


def summary(returns: Returns, won: NDArray[np.bool_] | None = None) -> dict[str, object]:
    """Mean, standard deviation and deciles, as a card or a reference stores them; the win rate where there is one."""
    deciles = np.percentile(returns, np.arange(10, 100, 10))
    return {
        "episodes": len(returns),
        "mean": round(float(returns.mean()), 4),
        "std": round(float(returns.std(ddof=1)), 4),
        "deciles": [round(float(decile), 3) for decile in deciles],
        **({} if won is None else {"win_rate": round(float(won.mean()), 4)}),
    }
