"""Hypothesis strategies for the project's own types: numpy from hypothesis draws only, so they replay and shrink."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from tasks.datasets.offline import BEHAVIOURS, OfflineDataset
from tasks.spec import ActionSpec, TaskSpec

finite = st.floats(-100, 100, width=32)


@st.composite
def task_specs(draw: st.DrawFn) -> TaskSpec:
    """Small tasks of every shape: one agent or more, with and without masks, states, deaths and wins."""
    n_agents, obs_dim = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["continuous", "discrete"]))
    return TaskSpec(
        id=f"toy/{kind}-{n_agents}",
        family="toy",
        engine="toy",
        engine_version="1",
        variant=kind,
        n_agents=n_agents,
        obs_dim=obs_dim,
        state_dim=draw(st.none() | st.integers(1, 3)),
        action=ActionSpec(kind=kind, size=draw(st.integers(1, 3))),
        episode_limit=draw(st.integers(1, 8)),
        team_reward=draw(st.sampled_from(["sum", "mean", "first"])),
        agent_groups=(tuple(range(n_agents)),),
        observation_features=tuple(f"feature_{i}" for i in range(obs_dim)),
        has_win=draw(st.booleans()),
        has_deaths=draw(st.booleans()),
    )


@st.composite
def datasets(draw: st.DrawFn, spec: TaskSpec | None = None, min_episodes: int = 0) -> OfflineDataset:
    """Valid datasets of 0 to 5 episodes of a task (any task by default)."""
    spec = draw(task_specs()) if spec is None else spec
    lengths = draw(st.lists(st.integers(1, spec.episode_limit), min_size=min_episodes, max_size=5))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    layout = OfflineDataset.layout(spec, len(lengths), int(starts[-1]))
    present = set(OfflineDataset.required_columns(spec))
    if draw(st.booleans()):
        present.add("behaviour")
    columns: dict[str, Any] = {name: _column(draw, name, *layout[name], spec) for name in sorted(present)}
    terminal = draw(npst.arrays(np.bool_, len(lengths)))
    last = starts[1:] - 1
    columns["terminals"], columns["truncations"] = np.zeros((2, int(starts[-1])), dtype=np.bool_)
    columns["terminals"][last], columns["truncations"][last] = terminal, ~terminal
    columns["episode_starts"] = starts
    if spec.action.discrete:
        rows = np.arange(starts[-1]) + np.repeat(np.arange(len(lengths)), lengths)
        agents = np.arange(spec.n_agents)
        columns["available_actions"][rows[:, None], agents, columns["actions"]] = True  # what was taken was allowed
    return OfflineDataset(spec=spec, **columns)


def _column(draw: st.DrawFn, name: str, shape: tuple[int, ...], dtype: type, spec: TaskSpec) -> NDArray[Any]:
    if name == "behaviour":
        return draw(npst.arrays(dtype, shape, elements=st.integers(-1, len(BEHAVIOURS) - 1)))
    if name == "actions":
        elements = st.integers(0, spec.action.size - 1) if spec.action.discrete else st.floats(-1, 1, width=32)
        return draw(npst.arrays(dtype, shape, elements=elements))
    return draw(npst.arrays(dtype, shape, elements=None if dtype in (np.bool_, np.int64) else finite))
