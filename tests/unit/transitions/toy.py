"""Transitions with a known law: two agents see one common number, each moves by its action."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmark.checks.sample_data import sample_spec
from tasks.datasets.offline import OfflineDataset

SPEC = replace(
    sample_spec("continuous"), n_agents=2, agent_groups=((0, 1),), obs_dim=2, observation_features=("common", "place")
)


def toy(count: int = 4000, seed: int = 0) -> OfflineDataset:
    """o = (common, place), o' = (common, place + 0.5 a_0), r = common; a ~ U[-1, 1]²."""
    rng = np.random.Generator(np.random.Philox(seed))
    common, place = rng.normal(1, 2, (count, 1)), rng.normal(0, 1, (count, 2))
    actions = rng.uniform(-1, 1, (count, 2, 2)).astype(np.float32)
    before = np.stack([np.repeat(common, 2, axis=1), place], axis=-1)  # (S, N, D)
    after = before.copy()
    after[..., 1] += 0.5 * actions[..., 0]
    rows = np.stack([before, after], axis=1).reshape(-1, 2, 2).astype(np.float32)
    ends = np.zeros(count, dtype=np.bool_)
    return OfflineDataset(
        spec=SPEC,
        observations=rows,
        actions=actions,
        rewards=np.repeat(common / 2, 2, axis=1).astype(np.float32),
        terminals=ends,
        truncations=~ends,
        episode_starts=np.arange(count + 1, dtype=np.int64),
    )


def facts(data: OfflineDataset) -> dict[str, float]:
    """What a model of these transitions should have learned."""
    before, after = data.observations[::2], data.observations[1::2]
    common = before[..., 0]
    return {
        "mean": float(common.mean()),
        "deviation": float(common.std()),
        "between agents": float(np.corrcoef(common[:, 0], common[:, 1])[0, 1]),
        "motion error": float(np.std(after[..., 1] - before[..., 1] - 0.5 * data.actions[..., 0])),
        "reward error": float(np.std(data.team_rewards() - common.mean(axis=1))),
    }
