"""Joint observations of `mpe/spread` made from positions written down by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.quality.subject import Subject
from tasks.datasets.offline import OfflineDataset
from tasks.mpe.observe import Observer
from tasks.mpe.task import MPETask
from tasks.registry import make_task

Points = Sequence[Sequence[float]]


@pytest.fixture(scope="session")
def spread() -> MPETask:
    task = make_task("mpe/spread")
    assert isinstance(task, MPETask)
    return task


@pytest.fixture(scope="session")
def look(spread: MPETask) -> Callable[[Points, Points], NDArray[np.float32]]:
    """(N, D) what three agents at rest see, from their positions and those of the landmarks."""

    def see(agents: Points, landmarks: Points) -> NDArray[np.float32]:
        kinematics = np.zeros((1, 9, 2))  # 3 agents, 3 landmarks, 3 velocities
        kinematics[0, :6] = [*agents, *landmarks]
        return Observer(spread.scenario, (0, 1, 2)).observe(kinematics)[0].astype(np.float32)

    return see


@pytest.fixture(scope="session")
def episodes(spread: MPETask) -> Callable[..., OfflineDataset]:
    """A dataset from the observations of each episode, (E, T + 1, N, D); actions and rewards 0 unless given."""

    def build(observations: NDArray[np.float32], actions: NDArray | None = None, rewards: float = 0.0):
        observations = np.asarray(observations, dtype=np.float32)
        count, rows = observations.shape[:2]
        steps = count * (rows - 1)
        ends = np.zeros((count, rows - 1), dtype=np.bool_)
        ends[:, -1] = True
        return OfflineDataset(
            spec=spread.spec,
            observations=observations.reshape(count * rows, 3, 18),
            actions=np.zeros((steps, 3, 2), dtype=np.float32) if actions is None else actions,
            rewards=np.full((steps, 3), rewards, dtype=np.float32),
            terminals=np.zeros(steps, dtype=np.bool_),
            truncations=ends.reshape(-1),
            episode_starts=np.arange(0, steps + 1, rows - 1, dtype=np.int64),
            states=observations.reshape(count * rows, -1),
        )

    return build


@pytest.fixture(scope="session")
def recorded(spread: MPETask) -> OfflineDataset:
    """40 real episodes."""
    from tasks.datasets import regimes

    data = regimes.collect(spread, regimes.resolve(spread, "exp-m"), 40, 0, lambda done, total, message: None)
    return data.without_privileged()


@pytest.fixture
def subject(spread: MPETask) -> Callable[[OfflineDataset, OfflineDataset], Subject]:
    return lambda original, synthetic: Subject(original, synthetic, spread, None, 0)
