"""What holds for the values of every dataset of a task, checked in blocks: a column may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.offline import OfflineDataset

_BLOCK = 2**16  # rows looked at together

Bad = Callable[[slice], NDArray[np.bool_]]


def require_values(data: OfflineDataset, behaviours: int) -> None:
    """Reads all values once.

    Args:
        data: whose columns have the right shapes and types.
        behaviours: how many codes of behaviour there are.

    Raises:
        DataError: naming the column, the first offending index and what was expected.
    """
    for name, column in (("observations", data.observations), ("rewards", data.rewards), ("states", data.states)):
        if column is not None:
            _require_finite(data, name, column)
    ends, cuts, steps = data.terminals, data.truncations, data.n_steps
    _refuse(data, "truncations", steps, lambda part: ends[part] & cuts[part], "False where `terminals` is True")
    last = np.zeros(steps, dtype=np.bool_)
    last[data.episode_starts[1:] - 1] = True
    early = "False before the last step of an episode"
    _refuse(data, "terminals and truncations", steps, lambda part: (ends[part] | cuts[part]) & ~last[part], early)
    if data.spec.action.discrete:
        _require_choices(data)
    else:
        _require_bounded(data)
    codes = data.behaviour
    if codes is not None:
        _refuse(
            data,
            "behaviour",
            steps,
            lambda part: (codes[part] < -1) | (codes[part] >= behaviours),
            "a known code or -1",
        )


def _require_finite(data: OfflineDataset, name: str, column: NDArray[np.float32]) -> None:
    _refuse(data, name, len(column), lambda part: ~np.isfinite(column[part]), "finite")


def _require_choices(data: OfflineDataset) -> None:
    actions, size, masks, rows = data.actions, data.spec.action.size, data.available_actions, data.row_of_step()
    assert masks is not None  # a required column of discrete tasks

    def forbidden(part: slice) -> NDArray[np.bool_]:
        chosen = np.take_along_axis(masks[rows[part]], actions[part][..., None].astype(np.int64), axis=-1)
        return ~chosen[..., 0]

    known = f"one of 0..{size - 1}"
    _refuse(data, "actions", data.n_steps, lambda part: (actions[part] < 0) | (actions[part] >= size), known)
    allowed = "available to the agent that took them (`available_actions`, same row)"
    _refuse(data, "actions", data.n_steps, forbidden, allowed)


def _require_bounded(data: OfflineDataset) -> None:
    actions, low, high = data.actions, data.spec.action.low, data.spec.action.high

    def outside(part: slice) -> NDArray[np.bool_]:
        return ~((actions[part] >= low - 1e-6) & (actions[part] <= high + 1e-6))  # NaN is not inside

    _refuse(data, "actions", data.n_steps, outside, f"in [{low}, {high}]")


def _refuse(data: OfflineDataset, column: str, rows: int, bad: Bad, expected: str) -> None:
    count, size, first = 0, 0, None
    for start in range(0, rows, _BLOCK):
        found = bad(slice(start, start + _BLOCK))
        size += found.size
        if found.any():
            row, *rest = (int(i) for i in np.argwhere(found)[0])
            first, count = first or (start + row, *rest), count + int(found.sum())
    if first is not None:
        raise DataError(
            f"{data.spec.id}: {count} of {size} entries of {column!r} are not {expected} (first at index {first})."
        )
