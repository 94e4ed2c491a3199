"""Random episodes of a small task, and settings of a network that trains in a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from methods.diffusion.settings import SegmentSettings
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec


@pytest.fixture
def tiny() -> Callable[..., SegmentSettings]:
    """Settings of width 8, a handful of updates and 10 diffusion steps; keywords override."""

    def make(**given: Any) -> SegmentSettings:
        sizes = {"width": 8, "updates": 6, "batch_size": 4, "diffusion_steps": 10, "learning_rate": 1e-3}
        heads = {"head_hidden": 16, "head_updates": 5, "head_batch_size": 8}
        return SegmentSettings(**{**sizes, **heads, **given})

    return make


@pytest.fixture
def episodes() -> Callable[..., OfflineDataset]:
    """Episodes of the given lengths: three features an agent, continuous actions of two numbers or four choices."""

    def make(
        lengths: Sequence[int] = (10, 4, 9),
        *,
        discrete: bool = False,
        groups: tuple[tuple[int, ...], ...] = ((0, 1, 2),),
    ) -> OfflineDataset:
        n = sum(len(group) for group in groups)
        spec = TaskSpec(
            id="toy/random",
            family="toy",
            engine="toy",
            engine_version="1",
            variant="",
            n_agents=n,
            obs_dim=3,
            state_dim=2 if discrete else None,
            action=ActionSpec(kind="discrete" if discrete else "continuous", size=4 if discrete else 2),
            episode_limit=10,
            team_reward="mean",
            agent_groups=groups,
            observation_features=("a", "b", "c"),
            has_deaths=discrete,
        )
        draw = np.random.default_rng(len(lengths))
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        steps, rows = int(starts[-1]), int(starts[-1]) + len(lengths)
        last = np.zeros(steps, np.bool_)
        last[starts[1:] - 1] = True
        extra: dict[str, Any] = {}
        actions: Any = draw.uniform(-1, 1, (steps, n, 2)).astype(np.float32)
        if discrete:
            actions = draw.integers(4, size=(steps, n))
            masks = draw.random((rows, n, 4)) < 0.5
            of_step = np.arange(steps) + np.repeat(np.arange(len(lengths)), lengths)
            masks[of_step[:, None], np.arange(n), actions] = True
            alive = draw.random((rows, n)) < 0.8
            extra = {"available_actions": masks, "alive": alive, "states": _normal(draw, rows, 2)}
        return OfflineDataset(
            spec=spec,
            observations=_normal(draw, rows, n, 3),
            actions=actions,
            rewards=_normal(draw, steps, n),
            terminals=last & discrete,
            truncations=last & (not discrete),
            episode_starts=starts,
            **extra,
        )

    return make


def _normal(draw: np.random.Generator, *shape: int) -> np.ndarray:
    return draw.standard_normal(shape, dtype=np.float32)
