"""gymnasium's single-agent MuJoCo environments, many at once on a few threads.

A thread has one environment with its model, and exchanges the simulation data in it: B simulations need neither B
models nor B processes. MuJoCo computes without Python's lock, so threads run side by side.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from tasks.common.seeding import derive_seed

log = logging.getLogger(__name__)
_DEPRECATED = "settotalmass"  # of gymnasium's half-cheetah, at every loading of its model


def thread_count() -> int:
    """As many threads as this process may use: OMP_NUM_THREADS where it is set, as for torch."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else len(os.sched_getaffinity(0))


class Simulations:
    """B simulations of one environment.

    Args:
        environment: gymnasium's name.
        count: B.
        threads: at most.

    Attributes:
        actions: M, numbers that drive one robot.
    """

    def __init__(self, environment: str, count: int, threads: int) -> None:
        _quiet()
        self._parts = np.array_split(np.arange(count), min(threads, count))
        self._environments = [_make(environment) for _ in self._parts]
        self._data = [
            mujoco.MjData(env.model) for env, part in zip(self._environments, self._parts, strict=True) for _ in part
        ]
        self._pool = ThreadPoolExecutor(len(self._parts)) if len(self._parts) > 1 else None
        self._size = self._environments[0].observation_space.shape[0]
        self.actions = self._environments[0].action_space.shape[0]

    def reset(self, seed: int, episodes: Sequence[int]) -> NDArray[np.float64]:
        """States (B, K) at the start of the episodes of these numbers."""
        states = np.empty((len(self._data), self._size))

        def start(env: Any, part: NDArray[np.int64]) -> None:
            for b in part:
                env.data = self._data[b]
                states[b], _ = env.reset(seed=derive_seed("mujoco", seed, int(episodes[b])) & 0xFFFFFFFF)

        self._everywhere(start)
        return states

    def step(self, actions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """States (B, K), rewards (B,) and whether the robot fell (B,), after actions (B, M)."""
        count = len(self._data)
        states, rewards, fallen = np.empty((count, self._size)), np.empty(count), np.empty(count, dtype=np.bool_)

        def advance(env: Any, part: NDArray[np.int64]) -> None:
            for b in part:
                env.data = self._data[b]
                states[b], rewards[b], fallen[b], _, _ = env.step(actions[b])

        self._everywhere(advance)
        return states, rewards, fallen

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        for env in self._environments:
            env.close()

    def _everywhere(self, work: Any) -> None:
        pairs = list(zip(self._environments, self._parts, strict=True))
        if self._pool is None:
            work(*pairs[0])
        else:
            for done in [self._pool.submit(work, *pair) for pair in pairs]:
                done.result()


def _make(environment: str) -> Any:
    """Without a time limit and checks: the harness has its own."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(environment, disable_env_checker=True).unwrapped


@cache
def _quiet() -> None:
    """Warnings of the engine go to the log; by default it prints them, and writes a file into the working folder."""

    def heard(message: str) -> None:
        if _DEPRECATED not in message:
            log.warning("MuJoCo: %s", message)

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(heard)
