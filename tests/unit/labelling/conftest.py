"""Windows made by hand, and an environment without an endpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from methods.labelling.windows import LabelWindows
from tasks.registry import make_task
from tasks.spec import ActionSpec, TaskSpec

LANDMARK, OTHER = 4, 10  # first columns of `landmark_0_offset` and `other_agent_0_offset` in mpe/spread


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BASE_URL", "API_KEY", "MODEL", "REQUESTS_PER_MINUTE", "CONCURRENCY", "TIMEOUT", "RETRIES"):
        monkeypatch.delenv(f"AUGMARL_LLM_{name}", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AUGMARL_LLM_CACHE", str(tmp_path / "answers"))


@pytest.fixture
def spread() -> TaskSpec:
    return make_task("mpe/spread").spec


@pytest.fixture
def tag() -> TaskSpec:
    return make_task("mpe/tag[actions=discrete]").spec


def spread_windows(distances: list[list[list[float]]], steps: list[int] | None = None) -> LabelWindows:
    """Windows (M, H, N) of distances to landmark 0; the other landmarks are far away, and so are the agents."""
    d = np.asarray(distances, dtype=np.float32)
    m, h, n = d.shape
    observations = np.zeros((m, h, n, 18), dtype=np.float32)
    observations[..., LANDMARK] = d
    observations[..., LANDMARK + 2 : OTHER + 4] = 9.0
    return LabelWindows(
        observations=observations,
        actions=np.zeros((m, h - 1, n, 2), dtype=np.float32),
        rewards=np.zeros((m, h - 1), dtype=np.float32),
        steps=np.asarray(steps or [h - 1] * m, dtype=np.int64),
    )


def battle_spec() -> TaskSpec:
    """Two units against two enemies: stop, go, attack_0, attack_1."""
    return TaskSpec(
        id="battle",
        family="battle",
        engine="none",
        engine_version="1",
        variant="",
        n_agents=2,
        obs_dim=1,
        state_dim=None,
        action=ActionSpec(kind="discrete", size=4, names=("stop", "go", "attack_0", "attack_1")),
        episode_limit=9,
        team_reward="sum",
        agent_groups=((0, 1),),
        observation_features=("own_health",),
    )
