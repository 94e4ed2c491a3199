"""From generated rows to valid episodes: availability, death, states, rewards, flags and ranges, by one rule for all.

The papers say almost nothing about these; every choice here is therefore inferred, and the same for every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.datasets.offline import OfflineDataset, concatenate
from tasks.spec import TaskSpec

_IDLE_NAMES = ("no_op", "no-op", "noop", "stop", "stay")  # what a dead agent does, the first that a task has
_EPISODES_AT_ONCE = 4096  # bounds the memory of the heads


class RowModel(Protocol):
    """What emission asks of a fitted model; `methods.diffusion.model.SegmentModel` is one.

    All take normalised rows; `has` says whether a head was fitted, the others are called only if so. `features` are
    those of a normalised row: D, or D + K where the global state is appended.
    """

    features: int

    def has(self, head: str) -> bool: ...
    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor: ...
    def decode(self, x: Tensor) -> NDArray[np.float32]: ...
    def decode_actions(self, actions: Tensor) -> NDArray[Any]: ...
    def availability(self, x: Tensor) -> Tensor: ...
    def alive(self, x: Tensor) -> Tensor: ...
    def state(self, x: Tensor) -> Tensor | NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedRows:
    """B generated episodes, padded to L steps; what lies beyond an episode's length is ignored.

    Attributes:
        observations: (B, L + 1, N, D') normalised, D' features as the model has them.
        actions: (B, L, N, A) encoded: normalised, or one-hot for discrete tasks.
        rewards: (B, L) of the team, in the task's units.
        lengths: (B,) transitions of each, 1..L.
        terminal: (B,) whether the last step is a true end; else it is a cut, and a truncation.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    lengths: NDArray[np.int64]
    terminal: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: slice) -> GeneratedRows:
        """Some of the episodes."""
        return GeneratedRows(
            observations=self.observations[index],
            actions=self.actions[index],
            rewards=self.rewards[index],
            lengths=self.lengths[index],
            terminal=self.terminal[index],
        )

    @classmethod
    def from_flat(
        cls,
        observations: NDArray[np.float32],
        actions: NDArray[np.float32],
        rewards: NDArray[np.float32],
        lengths: NDArray[np.int64],
        terminal: NDArray[np.bool_],
    ) -> GeneratedRows:
        """From columns as a dataset has them: observations (S + B, N, D'), actions (S, N, A), rewards (S,)."""
        longest = int(lengths.max(initial=0))

        def padded(column: NDArray[np.float32], counts: NDArray[np.int64], size: int) -> Tensor:
            result = np.zeros((len(counts), size, *column.shape[1:]), dtype=np.float32)
            result[np.arange(size) < counts[:, None]] = column
            return torch.from_numpy(result)

        return cls(
            observations=padded(observations, lengths + 1, longest + 1),
            actions=padded(actions, lengths, longest),
            rewards=padded(rewards, lengths, longest),
            lengths=lengths,
            terminal=terminal,
        )

    def to(self, device: str) -> GeneratedRows:
        """The same rows on another device."""
        return replace(
            self,
            observations=self.observations.to(device),
            actions=self.actions.to(device),
            rewards=self.rewards.to(device),
        )

    @classmethod
    def join(cls, parts: Sequence[GeneratedRows]) -> GeneratedRows:
        """All episodes of several parts of one L, in order; at least one part."""
        return cls(
            observations=torch.cat([part.observations for part in parts]),
            actions=torch.cat([part.actions for part in parts]),
            rewards=torch.cat([part.rewards for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            terminal=np.concatenate([part.terminal for part in parts]),
        )


def emit_segments(
    model: RowModel, observations: Tensor, actions: Tensor, rewards: Tensor, data: OfflineDataset
) -> OfflineDataset:
    """Generated windows as episodes that end in a cut: `truncations` on their last step, so that learners bootstrap.

    Args:
        model: fitted on `data`.
        observations: (B, H, N, D) normalised.
        actions: (B, H - 1, N, A) encoded: normalised, or one-hot.
        rewards: (B, H - 1) of the team.
        data: the original data, whose ranges the result keeps.
    """
    lengths = np.full(len(rewards), rewards.shape[1], dtype=np.int64)
    cut = np.zeros(len(rewards), dtype=np.bool_)
    rows = GeneratedRows(observations=observations, actions=actions, rewards=rewards, lengths=lengths, terminal=cut)
    return emit_episodes(model, rows, data)


def emit_episodes(model: RowModel, rows: GeneratedRows, data: OfflineDataset) -> OfflineDataset:
    """Generated episodes as a dataset that keeps every rule of the data model.

    1. Observations, states and continuous actions are clipped to the range of the data, or of the actions.
    2. An agent that its head calls dead stays so to the end of the episode: its rows are zero, it does nothing, and
       nothing else is available to it.
    3. The action that was chosen is available; where nothing is, the idle one is. Without a head everything is.
    4. The team's reward is shared so that the task's folding rule gives it back.
    5. `won` is False; `behaviour` is absent. No episode is longer than the task's limit: what is beyond is cut off.

    Args:
        model: fitted on `data`.
        rows: what was generated.
        data: the original data, whose ranges the result keeps.
    """
    spec = data.spec
    if not len(rows):
        return OfflineDataset.empty(spec)
    ranges = {"observations": _range(data.observations, axes=(0, 1))}
    if spec.state_dim is not None and data.states is not None:
        ranges["states"] = _range(data.states, axes=(0,))
    parts = range(0, len(rows), _EPISODES_AT_ONCE)
    return concatenate([_emit(model, rows[i : i + _EPISODES_AT_ONCE], spec, ranges) for i in parts])


def per_agent_rewards(team: NDArray[np.float32], spec: TaskSpec) -> NDArray[np.float32]:
    """Team rewards (...) as equal shares (..., N) that `spec.fold_rewards` folds back: r / N for `sum`, else r."""
    share = team / spec.n_agents if spec.team_reward == "sum" else team
    return np.repeat(share[..., None], spec.n_agents, axis=-1).astype(np.float32)


def idle_action(spec: TaskSpec) -> int:
    """The discrete action of an agent that can do nothing: no-op or stop by name, else the first."""
    names = [name.lower() for name in spec.action.names]
    return next((names.index(idle) for idle in _IDLE_NAMES if idle in names), 0)


def _emit(
    model: RowModel, rows: GeneratedRows, spec: TaskSpec, ranges: dict[str, tuple[NDArray[Any], NDArray[Any]]]
) -> OfflineDataset:
    x = rows.observations
    lengths = np.minimum(rows.lengths, spec.episode_limit)
    observations = np.clip(model.decode(x), *ranges["observations"]).astype(np.float32)  # (B, L + 1, N, D)
    columns: dict[str, NDArray[Any]] = {}

    alive = np.ones(observations.shape[:3], dtype=np.bool_)  # (B, L + 1, N)
    if spec.has_deaths:
        if model.has("alive"):
            alive = np.logical_and.accumulate(_array(model.alive(x)).astype(np.bool_), axis=1)
        observations[~alive] = 0.0
        dead = torch.from_numpy(~alive).to(x.device)[..., None]
        x = torch.cat([torch.where(dead, _zero(model, spec), x[..., : spec.obs_dim]), x[..., spec.obs_dim :]], dim=-1)
        columns["alive"] = alive
    if spec.state_dim is not None:
        columns["states"] = np.clip(_array(model.state(x)), *ranges["states"]).astype(np.float32)  # (B, L + 1, K)

    actions = np.array(model.decode_actions(rows.actions))  # (B, L, N, A) or (B, L, N)
    if spec.action.discrete:
        actions[~alive[:, :-1]] = idle_action(spec)
        available = np.ones((*alive.shape, spec.action.size), dtype=np.bool_)  # (B, L + 1, N, A)
        if model.has("availability"):
            available = _array(model.availability(x)).astype(np.bool_)
        columns["available_actions"] = _mask(available, actions, alive, spec)
        actions = actions.astype(np.int64)
    else:
        actions[~alive[:, :-1]] = np.clip(0.0, spec.action.low, spec.action.high)
        actions = np.clip(actions, spec.action.low, spec.action.high).astype(np.float32)

    steps = np.arange(actions.shape[1]) < lengths[:, None]  # (B, L)
    kept_rows = np.arange(observations.shape[1]) <= lengths[:, None]  # (B, L + 1)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    whole = rows.terminal & (lengths == rows.lengths)  # an end that was cut off is none
    terminals = np.zeros(int(starts[-1]), dtype=np.bool_)
    terminals[starts[1:] - 1] = whole
    truncations = np.zeros_like(terminals)
    truncations[starts[1:] - 1] = ~whole
    if spec.has_win:
        columns["won"] = np.zeros(len(lengths), dtype=np.bool_)
    return OfflineDataset(
        spec=spec,
        observations=observations[kept_rows],
        actions=actions[steps],
        rewards=per_agent_rewards(_array(rows.rewards)[steps], spec),
        terminals=terminals,
        truncations=truncations,
        episode_starts=starts,
        **{name: column if name == "won" else column[kept_rows] for name, column in columns.items()},
    )


def _zero(model: RowModel, spec: TaskSpec) -> Tensor:
    """(N, D) the normalised observations of dead agents."""
    appended = model.features > spec.obs_dim and spec.state_dim is not None
    states = np.zeros(spec.state_dim or 0, dtype=np.float32) if appended else None
    zero = model.encode(np.zeros((spec.n_agents, spec.obs_dim), dtype=np.float32), states)
    return zero[..., : spec.obs_dim]


def _mask(
    predicted: NDArray[np.bool_], actions: NDArray[Any], alive: NDArray[np.bool_], spec: TaskSpec
) -> NDArray[np.bool_]:
    """(B, L + 1, N, A) what is available, the chosen actions (B, L, N) included; never nothing."""
    available = predicted & alive[..., None]
    np.put_along_axis(available[:, :-1], actions[..., None].astype(np.int64), True, axis=-1)
    available[..., idle_action(spec)] |= ~available.any(axis=-1)
    return available


def _range(column: NDArray[np.float32], axes: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    return column.min(axis=axes), column.max(axis=axes)


def _array(values: Tensor | NDArray[Any]) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
