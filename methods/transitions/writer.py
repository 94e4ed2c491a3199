"""A dataset of single transitions that is written chunk by chunk, beside the memory where it is large."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

IN_MEMORY = 256 * 2**20  # bytes of a column above which it lies in a file


def pool(shape: tuple[int, ...], dtype: Any, limit: int = IN_MEMORY) -> NDArray[Any]:
    """An array to be filled: in memory, or above `limit` bytes mapped to a file without a name.

    The file goes with the array, whatever becomes of the process; its pages may be written out, so that memory stays
    bounded.
    """
    if math.prod(shape) * np.dtype(dtype).itemsize <= limit:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="augmarl-pool-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


class TransitionWriter:
    """Collects `amount` transitions, each an episode of one step."""

    def __init__(self, spec: TaskSpec, amount: int, limit: int = IN_MEMORY) -> None:
        self._spec, self._amount, self._limit, self.done = spec, amount, limit, 0
        self._columns: dict[str, NDArray[Any]] = {}

    def add(self, part: OfflineDataset) -> None:
        """Appends transitions.

        Raises:
            MethodError: if they are more than are wanted, or no episodes of one step.
        """
        if part.n_steps != part.n_episodes or self.done + part.n_steps > self._amount:
            raise MethodError(
                f"{part.n_steps} steps in {part.n_episodes} episodes were added to {self.done} of {self._amount} "
                "transitions, expected episodes of one step, and no more than are missing."
            )
        layout = OfflineDataset.layout(self._spec, self._amount, self._amount)
        for name, column in part.columns().items():
            if name == "episode_starts":
                continue
            if name not in self._columns:
                self._columns[name] = pool(*layout[name], self._limit)
            rows = 2 if len(column) == 2 * part.n_steps else 1
            self._columns[name][rows * self.done : rows * (self.done + part.n_steps)] = column
        self.done += part.n_steps

    def dataset(self) -> OfflineDataset:
        """All of them.

        Raises:
            MethodError: while some are missing.
        """
        if self.done < self._amount:
            raise MethodError(f"{self.done} of {self._amount} transitions were written, expected all of them.")
        if not self._amount:
            return OfflineDataset.empty(self._spec)
        starts = np.arange(self._amount + 1, dtype=np.int64)
        return OfflineDataset(spec=self._spec, episode_starts=starts, **self._columns)
