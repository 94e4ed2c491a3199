"""Mini-batches for R replicas with a dataset each: gathered from the columns, never stacked or copied whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.datasets.offline import OfflineDataset

_CHUNK = 8_192  # transitions gathered at a time for a replica: the cost of a gather call is shared by many updates


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Independent steps: observations (R, B, N, D), actions (R, B, N, A) or (R, B, N), available (R, B, N, A)."""

    observations: Tensor
    actions: Tensor
    available: Tensor | None


@dataclass(frozen=True, slots=True)
class EpisodeBatch:
    """Padded episodes, time before batch: observations (R, T, B, N, D), actions (R, T, B, N) or (R, T, B, N, A).

    `last_actions` (R, T, B, N) holds the action of the step before, and A at the first step; discrete tasks only.
    `valid` (R, T, B) is False on padding, which repeats an episode's last step.
    """

    observations: Tensor
    actions: Tensor
    available: Tensor | None
    last_actions: Tensor | None
    valid: Tensor


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of one dataset as tensors on the device; on a CPU they share the memory of the dataset."""

    observations: Tensor
    actions: Tensor
    available: Tensor | None


def transition_batches(
    data: Sequence[OfflineDataset],
    episodes: Sequence[NDArray[np.int64]],
    generators: Sequence[np.random.Generator],
    *,
    batch_size: int,
    updates: int,
    device: str,
) -> Iterator[StepBatch]:
    """`updates` batches of steps drawn uniformly with replacement, replica r's from generator r alone.

    Args:
        data: R datasets.
        episodes: for each, the indices of the episodes to draw from.
        generators: R of them.
        batch_size: B.
        updates: how many batches.
        device: where the batches are made.
    """
    columns = _columns(data, device)
    steps = [_steps_of(d, chosen) for d, chosen in zip(data, episodes, strict=True)]
    for at_step, at_row, shape in drawn_steps(data, steps, generators, batch_size, updates, device):
        observations, actions, available = _gather(columns, at_row, at_step, shape)  # (R, chunk, B, ...)
        for i in range(shape[1]):
            mask = None if available is None else available[:, i]
            yield StepBatch(observations[:, i], actions[:, i], mask)


@dataclass(frozen=True, slots=True)
class TransitionBatch:
    """Independent transitions (o, a, r, o', e) of teams.

    Shapes: observations, next_observations (R, B, N, D); actions (R, B, N, A) or (R, B, N); rewards (R, B, N);
    terminals (R, B) bool, False at a time limit; available (R, B, N, A) bool, at o, of discrete tasks; states and
    next_states (R, B, K), where the task has a global state. On request also what was done at o': next_actions like
    actions, has_next (R, B) bool, False at the last step of an episode, where next_actions repeats its own action,
    next_available like available, and alone (R, B) bool, a whole episode of one step that does not end truly.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminals: Tensor
    available: Tensor | None
    states: Tensor | None
    next_states: Tensor | None
    next_actions: Tensor | None = None
    has_next: Tensor | None = None
    next_available: Tensor | None = None
    alone: Tensor | None = None


def joint_transitions(
    data: Sequence[OfflineDataset],
    generators: Sequence[np.random.Generator],
    *,
    batch_size: int,
    updates: int,
    device: str,
    next_actions: bool = False,
) -> Iterator[TransitionBatch]:
    """`updates` batches of transitions drawn uniformly with replacement, replica r's from generator r alone.

    Args:
        data: R datasets.
        generators: R of them.
        batch_size: B.
        updates: how many batches.
        device: where the batches are made.
        next_actions: also give those; the draws are the same.
    """
    columns = _columns(data, device)
    views = [column.observations for column in columns]
    rewards = [as_tensor(d.rewards, device) for d in data]
    terminals = [as_tensor(d.terminals, device) for d in data]
    states = [as_tensor(d.states, device) for d in data if d.states is not None]
    steps = [np.arange(d.n_steps) for d in data]
    goes_on = [as_tensor(steps_with_next(d), device) for d in data] if next_actions else []
    lone = [as_tensor(lone_steps(d), device) for d in data] if next_actions else []
    masks = [column.available for column in columns if column.available is not None] if next_actions else []
    for at_step, at_row, shape in drawn_steps(data, steps, generators, batch_size, updates, device):
        next_row = [row + 1 for row in at_row]
        observations, actions, available = _gather(columns, at_row, at_step, shape)  # (R, chunk, B, ...)
        following = select(views, next_row, shape)
        reward, terminal = select(rewards, at_step, shape), select(terminals, at_step, shape)
        state = select(states, at_row, shape) if states else None
        next_state = select(states, next_row, shape) if states else None
        next_action: Tensor | None = None
        has_next: Tensor | None = None
        alone: Tensor | None = None
        next_mask = select(masks, next_row, shape) if masks else None
        if next_actions:
            alone = select(lone, at_step, shape)
            has_next = select(goes_on, at_step, shape)
            next_step = [step + more.flatten() for step, more in zip(at_step, has_next, strict=True)]
            next_action = select([column.actions for column in columns], next_step, shape)
        for i in range(shape[1]):
            yield TransitionBatch(
                observations=observations[:, i],
                actions=actions[:, i],
                rewards=reward[:, i],
                next_observations=following[:, i],
                terminals=terminal[:, i],
                available=None if available is None else available[:, i],
                states=None if state is None else state[:, i],
                next_states=None if next_state is None else next_state[:, i],
                next_actions=None if next_action is None else next_action[:, i],
                has_next=None if has_next is None else has_next[:, i],
                next_available=None if next_mask is None else next_mask[:, i],
                alone=None if alone is None else alone[:, i],
            )


def steps_with_next(data: OfflineDataset) -> NDArray[np.bool_]:
    """(S,) whether another step of the same episode follows."""
    goes_on = np.ones(data.n_steps, dtype=np.bool_)
    goes_on[data.episode_starts[1:] - 1] = False
    return goes_on


def lone_steps(data: OfflineDataset) -> NDArray[np.bool_]:
    """(S,) whether a step is a whole episode and no true end: something follows that was never recorded."""
    alone = np.zeros(data.n_steps, dtype=np.bool_)
    alone[data.episode_starts[:-1][data.lengths == 1]] = data.spec.episode_limit > 1
    return alone & ~data.terminals


def drawn_steps(
    data: Sequence[OfflineDataset],
    steps: Sequence[NDArray[np.int64]],
    generators: Sequence[np.random.Generator],
    batch_size: int,
    updates: int,
    device: str,
) -> Iterator[tuple[list[Tensor], list[Tensor], tuple[int, int, int]]]:
    """Steps and their rows for a chunk of updates at a time, (chunk · B,) of each replica, and (R, chunk, B)."""
    rows = [d.row_of_step()[step] for d, step in zip(data, steps, strict=True)]
    done = 0
    while done < updates:
        chunk = min(updates - done, max(1, _CHUNK // batch_size))
        drawn = [g.integers(len(step), size=chunk * batch_size) for g, step in zip(generators, steps, strict=True)]
        at_step = [as_tensor(step[index], device) for step, index in zip(steps, drawn, strict=True)]
        at_row = [as_tensor(row[index], device) for row, index in zip(rows, drawn, strict=True)]
        yield at_step, at_row, (len(data), chunk, batch_size)
        done += chunk


def episode_batches(
    data: Sequence[OfflineDataset],
    episodes: Sequence[NDArray[np.int64]],
    generators: Sequence[np.random.Generator],
    *,
    batch_size: int,
    updates: int,
    device: str,
) -> Iterator[EpisodeBatch]:
    """`updates` batches of whole episodes, padded to the longest among all replicas.

    Episodes of a batch differ (OffPyMARL draws without replacement) unless there are fewer than B of them.

    Args:
        data: R datasets.
        episodes: for each, the indices of the episodes to draw from.
        generators: R of them.
        batch_size: B.
        updates: how many batches.
        device: where the batches are made.
    """
    columns = _columns(data, device)
    for _ in range(updates):
        drawn = [
            draw_episodes(chosen, batch_size, generator) for chosen, generator in zip(episodes, generators, strict=True)
        ]
        lengths = np.stack([d.lengths[e] for d, e in zip(data, drawn, strict=True)])  # (R, B)
        time = np.arange(int(lengths.max()))[:, None]  # (T, 1)
        offsets = np.minimum(time, lengths[:, None, :] - 1)  # (R, T, B)
        index = list(zip(offsets, data, drawn, strict=True))
        at_step = [as_tensor((d.episode_starts[e] + offset).ravel(), device) for offset, d, e in index]  # (T · B,) each
        at_row = [as_tensor((d.row_starts[e] + offset).ravel(), device) for offset, d, e in index]
        observations, actions, available = _gather(columns, at_row, at_step, offsets.shape)  # (R, T, B, ...)
        last_actions = None
        if data[0].spec.action.discrete:
            none_yet = torch.full_like(actions[:, :1], data[0].spec.action.size)
            last_actions = torch.cat([none_yet, actions[:, :-1]], dim=1)  # (R, T, B, N)
        valid = as_tensor(time < lengths[:, None, :], device)  # (R, T, B)
        yield EpisodeBatch(observations, actions, available, last_actions, valid)


def draw_episodes(episodes: NDArray[np.int64], batch_size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(B,) of the given episodes, all different unless there are fewer than B."""
    drawn: NDArray[np.int64] = generator.choice(episodes, size=batch_size, replace=len(episodes) < batch_size)
    return drawn


def _steps_of(data: OfflineDataset, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """All steps of the chosen episodes."""
    chosen = np.zeros(data.n_episodes, dtype=np.bool_)
    chosen[episodes] = True
    return np.flatnonzero(np.repeat(chosen, data.lengths))


def _columns(data: Sequence[OfflineDataset], device: str) -> list[_Columns]:
    """The tensors of each dataset; a dataset that several replicas share is moved once."""
    moved: dict[int, _Columns] = {}
    for d in data:
        if id(d) not in moved:
            mask = None if d.available_actions is None else as_tensor(d.available_actions, device)
            moved[id(d)] = _Columns(as_tensor(d.observations, device), as_tensor(d.actions, device), mask)
    return [moved[id(d)] for d in data]


def as_tensor(array: NDArray[np.generic], device: str) -> Tensor:
    """A column on the device; on a CPU it shares the memory of the array."""
    with warnings.catch_warnings():
        # Memory-mapped columns are read-only, and so is our use of them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def _gather(
    columns: Sequence[_Columns], rows: Sequence[Tensor], steps: Sequence[Tensor], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Observations, actions and masks at each replica's rows and steps, each of shape (*shape, ...)."""
    observations = select([column.observations for column in columns], rows, shape)
    actions = select([column.actions for column in columns], steps, shape)
    masks = [column.available for column in columns if column.available is not None]
    return observations, actions, select(masks, rows, shape) if masks else None


def select(columns: Sequence[Tensor], index: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """(*shape, ...) entries of R columns; index_select copies whole rows, which `column[index]` does not."""
    inner = columns[0].shape[1:]
    gathered = columns[0].new_empty(len(columns), len(index[0]), inner.numel())
    for replica, (column, wanted) in enumerate(zip(columns, index, strict=True)):
        torch.index_select(column.view(len(column), inner.numel()), 0, wanted, out=gathered[replica])
    return gathered.view(*shape, *inner)
