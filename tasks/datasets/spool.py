"""Recorded batches that wait on disk: building a dataset takes the memory of one batch, however many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import StorageError
from tasks.datasets.offline import OfflineDataset


class Spool:
    """Datasets of one task, appended column by column to files in a folder.

    Args:
        folder: an empty one, which must outlive what `joined` returns.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: OfflineDataset | None = None
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, part: OfflineDataset) -> None:
        """Appends the episodes of a dataset, which has the columns of those before it.

        Raises:
            StorageError: if a file cannot be written, e.g. on a full disk.
        """
        self._first = self._first or part.take([])
        self._lengths.append(part.lengths)
        for name, column in part.columns().items():
            if name == "episode_starts":
                continue
            try:
                with self._path(name).open("ab") as file:
                    file.write(np.ascontiguousarray(column).reshape(-1).view(np.uint8).data)
            except OSError as error:
                raise StorageError(
                    f"Could not write {self._path(name)}: {error.strerror or error}. Nothing was changed. Free some "
                    "space (`bench cache prune`) or set AUGMARL_HOME to another disk, then run again; it resumes."
                ) from error

    def joined(self) -> OfflineDataset:
        """All episodes in order; their columns are memory-mapped."""
        assert self._first is not None, "nothing was added"
        starts = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))]).astype(np.int64)
        layout = OfflineDataset.layout(self._first.spec, len(starts) - 1, int(starts[-1]))
        columns: dict[str, NDArray[Any]] = {"episode_starts": starts}
        for name in self._first.columns():
            if name != "episode_starts":
                shape, dtype = layout[name]
                columns[name] = np.asarray(np.memmap(self._path(name), dtype=dtype, mode="r", shape=shape))
        return self._first.replace(**columns)

    def _path(self, column: str) -> Path:
        return self._folder / f"{column}.bin"
