"""Mini-batches of sequences with their final row, for learners that bootstrap: episodes, windows or transitions.

A sequence of L steps has L + 1 rows: what is seen before each step, and after the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.data.batches import as_tensor, draw_episodes, drawn_steps, select
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Padded sequences, time before batch; T is the longest of the batch.

    Rows: observations (R, T + 1, B, N, D); available (R, T + 1, B, N, A) bool, of discrete tasks; states
    (R, T + 1, B, K), where the task has a global state; last_actions (R, T + 1, B, N), the action of the step before
    and A at the first row, of whole episodes of discrete tasks. Row L of a sequence of L steps is its own final row,
    and is repeated behind.

    Steps: actions (R, T, B, N) or (R, T, B, N, A); rewards (R, T, B, N); terminals (R, T, B) bool, False at a time
    limit; valid (R, T, B) bool, False on padding, which repeats the last step.
    """

    observations: Tensor
    available: Tensor | None
    states: Tensor | None
    last_actions: Tensor | None
    actions: Tensor
    rewards: Tensor
    terminals: Tensor
    valid: Tensor


def episode_sequences(
    data: Sequence[OfflineDataset],
    generators: Sequence[np.random.Generator],
    *,
    batch_size: int,
    updates: int,
    device: str,
) -> Iterator[SequenceBatch]:
    """`updates` batches of whole episodes, padded to the longest among all replicas.

    Episodes of a batch differ (OffPyMARL draws without replacement) unless there are fewer than B of them.

    Args:
        data: R datasets.
        generators: R of them; what replica r draws comes from generator r alone.
        batch_size: B, episodes.
        updates: how many batches.
        device: where the batches are made.
    """
    columns = _moved(data, device)
    everything = [np.arange(d.n_episodes) for d in data]
    for _ in range(updates):
        drawn = [
            draw_episodes(all_, batch_size, generator) for all_, generator in zip(everything, generators, strict=True)
        ]
        pieces = [_Pieces(d.row_starts[e], d.episode_starts[e], d.lengths[e]) for d, e in zip(data, drawn, strict=True)]
        yield _padded(data[0].spec, columns, pieces, device)


def window_sequences(
    data: Sequence[OfflineDataset],
    generators: Sequence[np.random.Generator],
    *,
    steps: int,
    batch_size: int,
    updates: int,
    device: str,
) -> Iterator[SequenceBatch]:
    """`updates` batches of up to `steps` steps from a uniformly drawn one on, shorter where the episode ends before.

    A window is a sequence of its own: whoever unrolls it starts without memory, and its last row is its final one.

    Args:
        data: R datasets.
        generators: R of them; what replica r draws comes from generator r alone.
        steps: of a window, at most.
        batch_size: B, windows.
        updates: how many batches.
        device: where the batches are made.
    """
    columns = _moved(data, device)
    rows = [d.row_of_step() for d in data]
    left = [np.repeat(d.episode_starts[1:], d.lengths) - np.arange(d.n_steps) for d in data]  # to the episode's end
    for _ in range(updates):
        drawn = [g.integers(d.n_steps, size=batch_size) for g, d in zip(generators, data, strict=True)]
        pieces = [
            _Pieces(row[first], first, np.minimum(rest[first], steps))
            for row, rest, first in zip(rows, left, drawn, strict=True)
        ]
        yield _padded(data[0].spec, columns, pieces, device)


class _Pieces(NamedTuple):
    """B stretches of consecutive steps of one dataset: their first rows and steps, and how many steps; (B,) each."""

    first_rows: NDArray[np.int64]
    first_steps: NDArray[np.int64]
    lengths: NDArray[np.int64]


def _padded(
    spec: TaskSpec, columns: Sequence[dict[str, Tensor]], pieces: Sequence[_Pieces], device: str
) -> SequenceBatch:
    """The pieces of R datasets as one batch, padded to the longest of all."""
    lengths = np.stack([own.lengths for own in pieces])[:, None]  # (R, 1, B)
    time = np.arange(int(lengths.max()) + 1)[:, None]  # (T + 1, 1)
    row, step = np.minimum(time, lengths), np.minimum(time[:-1], lengths - 1)  # (R, T + 1, B), (R, T, B)
    at_row = [as_tensor((own.first_rows + i).ravel(), device) for i, own in zip(row, pieces, strict=True)]
    at_step = [as_tensor((own.first_steps + i).ravel(), device) for i, own in zip(step, pieces, strict=True)]
    rows = {name: select([c[name] for c in columns], at_row, row.shape) for name in _rows(columns)}
    steps = {name: select([c[name] for c in columns], at_step, step.shape) for name in _STEPS}
    last_actions = None
    if spec.action.discrete:
        none_yet = torch.full_like(steps["actions"][:, :1], spec.action.size)
        last_actions = torch.cat([none_yet, steps["actions"]], dim=1)  # (R, T + 1, B, N)
    return SequenceBatch(
        observations=rows["observations"],
        available=rows.get("available_actions"),
        states=rows.get("states"),
        last_actions=last_actions,
        valid=as_tensor(time[:-1] < lengths, device),  # (R, T, B)
        **steps,
    )


def transition_sequences(
    data: Sequence[OfflineDataset],
    generators: Sequence[np.random.Generator],
    *,
    batch_size: int,
    updates: int,
    device: str,
) -> Iterator[SequenceBatch]:
    """`updates` batches of transitions as sequences of one step, drawn uniformly with replacement; T = 1.

    Args:
        data: R datasets.
        generators: R of them; what replica r draws comes from generator r alone.
        batch_size: B, transitions.
        updates: how many batches.
        device: where the batches are made.
    """
    columns = _moved(data, device)
    everything = [np.arange(d.n_steps) for d in data]
    for at_step, at_row, (replicas, chunk, batch) in drawn_steps(
        data, everything, generators, batch_size, updates, device
    ):
        pairs = [torch.stack([r, r + 1]).view(2, chunk, batch).transpose(0, 1).flatten() for r in at_row]
        shapes = (replicas, chunk, 2, batch), (replicas, chunk, 1, batch)
        rows = {name: select([c[name] for c in columns], pairs, shapes[0]) for name in _rows(columns)}
        steps = {name: select([c[name] for c in columns], at_step, shapes[1]) for name in _STEPS}
        valid = torch.ones((replicas, 1, batch), dtype=torch.bool, device=device)
        for i in range(chunk):
            mask, state = rows.get("available_actions"), rows.get("states")
            yield SequenceBatch(
                observations=rows["observations"][:, i],
                available=None if mask is None else mask[:, i],
                states=None if state is None else state[:, i],
                last_actions=None,
                valid=valid,
                **{name: column[:, i] for name, column in steps.items()},
            )


def step_draws(
    generators: Sequence[np.random.Generator],
    longest: Sequence[int],
    shape: tuple[int, ...],
    draw: Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]],
) -> Tensor:
    """Numbers for each step of a batch, replica r's from generator r alone.

    Args:
        generators: R of them.
        longest: R, steps of the longest sequence that a replica can meet: it draws for as many an update, so that its
            numbers do not depend on the others' sequences.
        shape: of a replica, (T, ...).
        draw: (n, ...) numbers.

    Returns:
        (R, T, ...) float32 on the CPU; ones behind a replica's longest, where there is only padding.
    """
    steps, *inner = shape
    drawn = np.ones((len(generators), *shape), dtype=np.float32)
    for own, generator, most in zip(drawn, generators, longest, strict=True):
        own[:most] = draw(generator, (most, *inner))[:steps]
    return torch.from_numpy(drawn)


_STEPS = ("actions", "rewards", "terminals")


def _rows(columns: Sequence[dict[str, Tensor]]) -> list[str]:
    """Columns with a final row an episode that the datasets have."""
    return [name for name in columns[0] if name not in _STEPS]


def _moved(data: Sequence[OfflineDataset], device: str) -> list[dict[str, Tensor]]:
    """The columns of each dataset on the device; a dataset that several replicas share is moved once."""
    moved: dict[int, dict[str, Tensor]] = {}
    for d in data:
        if id(d) not in moved:
            has_states = d.spec.state_dim is not None
            names = ("observations", "available_actions", *(("states",) if has_states else ()), *_STEPS)
            found = {name: getattr(d, name) for name in names}
            moved[id(d)] = {name: as_tensor(column, device) for name, column in found.items() if column is not None}
    return [moved[id(d)] for d in data]
