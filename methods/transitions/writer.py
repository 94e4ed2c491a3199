"""A dataset of single transitions that is written chunk by chunk, beside the memory where it is large."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.transitions.chunks import IN_MEMORY, ChunkedTable, Keeper
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_TABLE = "transitions"


class TransitionWriter:
    """Collects `amount` transitions, each an episode of one step.

    Args:
        spec: the task.
        amount: how many.
        keeper: of whole chunks; those of a killed process count as written.
        limit: bytes of a column above which it lies in a file.
    """

    def __init__(self, spec: TaskSpec, amount: int, keeper: Keeper | None = None, limit: int = IN_MEMORY) -> None:
        self._spec, self._amount, self._limit, self._keeper = spec, amount, limit, keeper
        self._names = [] if keeper is None else keeper.columns(_TABLE)
        self._table = self._opened() if self._names else None

    @property
    def done(self) -> int:
        """Transitions that are written."""
        return 0 if self._table is None else self._table.done

    def add(self, part: OfflineDataset) -> None:
        """Appends transitions.

        Raises:
            MethodError: if they are more than are wanted, or no episodes of one step.
            StorageError: if a file cannot be written.
        """
        if part.n_steps != part.n_episodes or self.done + part.n_steps > self._amount:
            raise MethodError(
                f"{part.n_steps} steps in {part.n_episodes} episodes were added to {self.done} of {self._amount} "
                "transitions, expected episodes of one step, and no more than are missing."
            )
        columns = {name: column for name, column in part.columns().items() if name != "episode_starts"}
        if self._table is None or not self.done:
            self._names = list(columns)
            self._table = self._opened()
        self._table.add(part.n_steps, columns)

    def dataset(self) -> OfflineDataset:
        """All of them.

        Raises:
            MethodError: while some are missing.
        """
        if self.done < self._amount:
            raise MethodError(f"{self.done} of {self._amount} transitions were written, expected all of them.")
        if self._table is None:
            return OfflineDataset.empty(self._spec)
        starts = np.arange(self._amount + 1, dtype=np.int64)
        columns: dict[str, NDArray[Any]] = {name: self._table.column(name) for name in self._names}
        return OfflineDataset(spec=self._spec, episode_starts=starts, **columns)

    def _opened(self) -> ChunkedTable:
        layout = OfflineDataset.layout(self._spec, self._amount, self._amount)
        named = {name: layout[name] for name in self._names}
        return ChunkedTable(_TABLE, named, self._amount, self._keeper, self._limit)
