"""Small made-up datasets of every shape that a method must cope with; the contract suite runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec

SHAPES = ("continuous", "discrete", "states-and-deaths", "one-agent", "one-step-episodes")
"""continuous: like MPE. discrete: masks, true ends, lengths that differ. states-and-deaths: like SMAC, with wins."""

_LIMIT = 6


def sample_spec(shape: str) -> TaskSpec:
    """The task of one of `SHAPES`.

    Raises:
        UsageError: for another shape.
    """
    if shape not in SHAPES:
        raise UsageError(f"There is no sample dataset {shape!r}. There are: {', '.join(SHAPES)}.")
    discrete = shape in ("discrete", "states-and-deaths")
    n_agents = 1 if shape == "one-agent" else 3
    return TaskSpec(
        id=f"sample/{shape}",
        family="sample",
        engine="sample",
        engine_version="1",
        variant=shape,
        n_agents=n_agents,
        obs_dim=5,
        state_dim=4 if shape == "states-and-deaths" else None,
        action=ActionSpec(kind="discrete", size=5) if discrete else ActionSpec(kind="continuous", size=2),
        episode_limit=1 if shape == "one-step-episodes" else _LIMIT,
        team_reward="sum",
        agent_groups=(tuple(range(n_agents)),),
        observation_features=tuple(f"feature_{i}" for i in range(5)),
        has_win=shape == "states-and-deaths",
        has_deaths=shape == "states-and-deaths",
    )


def sample_dataset(shape: str, episodes: int = 12, seed: int = 0) -> OfflineDataset:
    """Episodes of a made-up task in which the best action follows from the observation."""
    spec, rng = sample_spec(shape), make_generator("sample", shape, seed)
    varied = shape in ("discrete", "states-and-deaths")
    lengths = rng.integers(2, _LIMIT + 1, size=episodes) if varied else np.full(episodes, spec.episode_limit)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps, rows, n = int(starts[-1]), int(starts[-1]) + episodes, spec.n_agents
    last = np.zeros(steps, dtype=np.bool_)
    last[starts[1:] - 1] = True
    early = np.repeat(lengths < spec.episode_limit, lengths)  # (S,)
    row_of_step = np.arange(steps) + np.repeat(np.arange(episodes), lengths)

    observations = rng.normal(size=(rows, n, spec.obs_dim)).astype(np.float32)
    columns: dict[str, NDArray[Any]] = {}
    if spec.has_deaths:
        alive = _alive(lengths, n, rng)  # (S + E, N)
        observations[~alive] = 0.0
        columns["alive"] = alive
        columns["won"] = rng.random(episodes) < 0.5
    if spec.state_dim is not None:
        columns["states"] = rng.normal(size=(rows, spec.state_dim)).astype(np.float32)
    if spec.action.discrete:
        available = rng.random((rows, n, spec.action.size)) < 0.7
        available[..., 0] = True  # like a no-op
        if spec.has_deaths:
            available[~columns["alive"], 1:] = False
        wish = np.where(available, observations, -np.inf)[row_of_step]  # (S, N, A), as D = A = 5
        actions: NDArray[Any] = wish.argmax(axis=-1).astype(np.int64)
        columns["available_actions"] = available
    else:
        noise = rng.normal(scale=0.1, size=(steps, n, spec.action.size))
        actions = np.clip(np.tanh(observations[row_of_step, :, : spec.action.size]) + noise, -1, 1).astype(np.float32)
    return OfflineDataset(
        spec=spec,
        observations=observations,
        actions=actions,
        rewards=rng.normal(size=(steps, n)).astype(np.float32),
        terminals=last & early,
        truncations=last & ~early,
        episode_starts=starts,
        behaviour=rng.integers(0, 3, size=(steps, n)).astype(np.int8),
        **columns,
    )


def _alive(lengths: Sequence[int] | NDArray[np.int64], n_agents: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(S + E, N): in each episode one agent, drawn at random, is dead from the middle on."""
    rows = []
    for length in lengths:
        alive = np.ones((int(length) + 1, n_agents), dtype=np.bool_)
        alive[(int(length) + 1) // 2 :, rng.integers(n_agents)] = False
        rows.append(alive)
    return np.concatenate(rows)
