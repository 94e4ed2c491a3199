"""Whole episodes of a generation, kept batch by batch where a run has checkpoint and folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import Run
from methods.journal import pack_generators, restore_generators
from tasks.common.errors import DataError, StorageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

Numbers = Mapping[str, NDArray[Any]]


class KeptBatches:
    """Batches of episodes, with numbers about each, and the state of the generator after the last one.

    A batch is on the disk before it is counted, so that a process killed at any moment leaves whole ones alone. Without
    checkpoint and folder they are in memory alone.

    Attributes:
        parts: the episodes of each batch.
        numbers: arrays about each batch, by name.

    Args:
        run: where they are kept.
        spec: the task.
        generator: of Philox, put where the last kept batch left it.
    """

    def __init__(self, run: Run, spec: TaskSpec, generator: np.random.Generator) -> None:
        self._spec, self._generator, self._checkpoint = spec, generator, run.checkpoint
        self._folder = run.folder if run.checkpoint is not None else None
        self.parts: list[OfflineDataset] = []
        self.numbers: list[Numbers] = []
        stored = run.checkpoint.load() if run.checkpoint is not None and self._folder is not None else None
        if stored is not None:
            self._restore(int(stored["batches"]), stored["generator"])

    def add(self, part: OfflineDataset, numbers: Numbers) -> None:
        """One batch more.

        Raises:
            StorageError: if a file cannot be written.
        """
        if self._folder is not None and self._checkpoint is not None:
            place = self._place(len(self.parts))
            _write(place / "columns", part.columns())
            _write(place / "numbers", numbers)
            state = {"batches": np.array(len(self.parts) + 1), "generator": pack_generators([self._generator])}
            self._checkpoint.save(state)
        self.parts.append(part)
        self.numbers.append(numbers)

    def _restore(self, batches: int, state: NDArray[np.uint64]) -> None:
        """All batches, or none where files are damaged: then everything is drawn again."""
        places = [self._place(number) for number in range(batches)]
        with contextlib.suppress(OSError, ValueError, TypeError, DataError):
            parts = [OfflineDataset(spec=self._spec, **_read(place / "columns")) for place in places]
            numbers = [_read(place / "numbers") for place in places]
            self.parts.extend(parts)
            self.numbers.extend(numbers)
            restore_generators([self._generator], state)

    def _place(self, number: int) -> Path:
        assert self._folder is not None  # asked for by those that have one
        return self._folder / f"batch{number}"


def _write(folder: Path, arrays: Numbers) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
    except OSError as error:
        raise StorageError(f"{folder}: what was generated could not be kept: {error}. Free some space.") from error


def _read(folder: Path) -> dict[str, NDArray[Any]]:
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
