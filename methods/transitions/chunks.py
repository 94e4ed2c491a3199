"""Columns written chunk by chunk, in memory while they are small, else in files that may outlive the process."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from methods.base import Run
from tasks.common.errors import MethodError, StorageError

IN_MEMORY = 256 * 2**20  # bytes of a column above which it lies in a file
Layout = Mapping[str, tuple[tuple[int, ...], Any]]
"""Shape and type of each column, by name; the first axis has one row or more for each transition."""


class Keeper:
    """Where a generation keeps whole chunks, and how many there are: the run's folder and its checkpoint.

    A chunk is on the disk before it is counted, so that a process killed at any moment leaves whole ones alone.
    Without both of them nothing is kept.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.folder if run.checkpoint is not None else None
        self._checkpoint = run.checkpoint
        stored = run.checkpoint.load() if run.checkpoint is not None and self.folder is not None else None
        self._counts = {name: int(count) for name, count in (stored or {}).items()}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def columns(self, table: str) -> list[str]:
        """The columns of a table that are kept."""
        return [name.removeprefix(f"{table}/") for name in self._counts if name.startswith(f"{table}/")]

    def count(self, table: str, column: str) -> int:
        """How many transitions of a column are kept."""
        return self._counts.get(f"{table}/{column}", 0)

    def keep(self, table: str, columns: Layout, count: int) -> None:
        """From now on the first so many transitions of a table are kept."""
        self._counts |= {f"{table}/{column}": count for column in columns}
        if self._checkpoint is not None:
            self._checkpoint.save({name: np.array(count, np.int64) for name, count in self._counts.items()})


class ChunkedTable:
    """Columns of `amount` transitions, written from the front.

    Args:
        name: of the table; file names begin with it.
        layout: of its columns, for all transitions.
        amount: of them, 1 or more.
        keeper: of whole chunks; where it has a folder all columns are files there, and what is kept counts as done.
        limit: bytes of a column above which it is a file otherwise: one without a name, gone with the process.

    Attributes:
        done: transitions that are written.
    """

    def __init__(
        self, name: str, layout: Layout, amount: int, keeper: Keeper | None = None, limit: int = IN_MEMORY
    ) -> None:
        self._name, self._layout, self._amount = name, layout, amount
        self._keeper = keeper if keeper is not None and keeper.folder is not None else None
        self._columns: dict[str, _Memory | _File] = {}
        folder = None if self._keeper is None else self._keeper.folder
        for column, (shape, dtype) in layout.items():
            if folder is not None:
                self._columns[column] = _File(shape, dtype, folder / f"{name}.{column}.bin")
            else:
                large = math.prod(shape) * np.dtype(dtype).itemsize > limit
                self._columns[column] = _File(shape, dtype) if large else _Memory(shape, dtype)
        self.done = 0
        if self._keeper is not None:
            kept = min(self._keeper.count(name, column) for column in layout)
            whole = all(self._columns[column].rows() >= kept * self._rows(column) for column in layout)
            self.done = kept if whole else 0

    def add(self, count: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Appends so many transitions, all columns of them.

        Raises:
            MethodError: if they are more than are missing.
            StorageError: if a file cannot be written, e.g. on a full disk.
        """
        if self.done + count > self._amount:
            raise MethodError(f"{count} transitions were added to {self.done} of {self._amount}.")
        for column, stored in self._columns.items():
            stored.write(self.done * self._rows(column), columns[column], settled=self._keeper is not None)
        self.done += count
        if self._keeper is not None:
            self._keeper.keep(self._name, self._layout, self.done)

    def rows(self, column: str, first: int, last: int) -> NDArray[Any]:
        """A copy of the rows of transitions [first, last)."""
        return self._columns[column].read(first * self._rows(column), last * self._rows(column))

    def column(self, name: str) -> NDArray[Any]:
        """All of it; a file is mapped."""
        return self._columns[name].whole()

    def _rows(self, column: str) -> int:
        """Of one transition."""
        return self._layout[column][0][0] // self._amount


class _Memory:
    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self._array = np.empty(shape, dtype)

    def rows(self) -> int:
        return len(self._array)

    def write(self, first: int, values: NDArray[Any], *, settled: bool) -> None:
        self._array[first : first + len(values)] = values

    def read(self, first: int, last: int) -> NDArray[Any]:
        return self._array[first:last].copy()

    def whole(self) -> NDArray[Any]:
        return self._array


class _File:
    """Written to, not mapped, while it grows: mapped pages would count as memory of the process."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, path: Path | None = None) -> None:
        self._shape, self._dtype, self._path = shape, np.dtype(dtype), path
        self._row: int = math.prod(shape[1:]) * self._dtype.itemsize  # bytes
        if path is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="augmarl-chunks-"))  # noqa: SIM115  # goes with us
        else:
            path.touch()
            self._file = path.open("r+b")
        weakref.finalize(self, self._file.close)

    def rows(self) -> int:
        return os.fstat(self._file.fileno()).st_size // max(1, self._row)

    def write(self, first: int, values: NDArray[Any], *, settled: bool) -> None:
        try:
            self._file.seek(first * self._row)
            self._file.write(np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8).data)
            self._file.flush()
            if settled:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(
                f"Could not write {self._path or 'a temporary file'}: {error.strerror or error}. Free some space "
                "(`bench cache prune`) or set AUGMARL_HOME to another disk, then run again; it resumes."
            ) from error

    def read(self, first: int, last: int) -> NDArray[Any]:
        self._file.seek(first * self._row)
        content = self._file.read((last - first) * self._row)
        return np.frombuffer(content, self._dtype).reshape(last - first, *self._shape[1:]).copy()

    def whole(self) -> NDArray[Any]:
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=self._shape)
