"""Every error that AugMARL raises on purpose, and the exit code each one ends a command with.

    AugMARLError                 1  something of ours went wrong in a way a user can act on
    ├── UsageError               2  the request itself cannot be met
    │   ├── UnknownNameError        a name that is in no table (carries the nearest ones)
    │   ├── MatrixError             a matrix file that is malformed
    │   └── MissingDependencyError  an extra or a game that is not installed
    ├── ValidationError          4  data, a record or a plugin breaks its contract
    │   ├── DataError               an offline dataset
    │   ├── RecordError             a run record
    │   └── MethodError             an augmenter or a learner returned what it must not
    ├── NothingSelectedError     5  a selection that is empty
    └── StorageError             1  a file could not be written or read whole

Messages say what was wrong, what was expected and what to do. A traceback is shown with `--debug` only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What `bench` returns to the shell."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    FAILED_CELLS = 3
    INVALID = 4
    NOTHING_SELECTED = 5
    INTERRUPTED = 130


class AugMARLError(Exception):
    """Base of all errors shown to users as one message."""

    exit_code: ExitCode = ExitCode.INTERNAL


class UsageError(AugMARLError):
    """The request itself cannot be met: a flag, a name, a combination."""

    exit_code = ExitCode.USAGE


class MatrixError(UsageError):
    """A matrix file is malformed; the message names file and line."""


class MissingDependencyError(UsageError):
    """An optional package or an engine is missing; the message says how to install it."""


class ValidationError(AugMARLError):
    """Data, a record or a method breaks its contract."""

    exit_code = ExitCode.INVALID


class DataError(ValidationError):
    """An offline dataset breaks the data model."""


class RecordError(ValidationError):
    """A run record cannot be read: wrong schema, newer version, or damaged."""


class MethodError(ValidationError):
    """An augmenter or a learner returned something its contract forbids."""


class NothingSelectedError(AugMARLError):
    """A selection matched nothing."""

    exit_code = ExitCode.NOTHING_SELECTED


class StorageError(AugMARLError):
    """A file could not be written or read whole; what was there before is untouched."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was not there: Python's, a GPU's by torch, or main memory by torch, which has no class for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # torch's words on a CPU
_LISTED = ("task", "dataset", "augmenter", "learner", "matrix", "protocol")


class UnknownNameError(UsageError):
    """A name that is in no table, with the three nearest ones that are.

    Kinds that `bench list` has a table of are told to look there.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        self.kind, self.name = kind, name
        self.nearest = tuple(difflib.get_close_matches(name, names, n=3, cutoff=0.0))
        hint = f"Did you mean {' or '.join(map(repr, self.nearest))}?" if self.nearest else "None is registered."
        plural = "matrices" if kind == "matrix" else f"{kind}s"
        where = f" `bench list {plural}` shows all names." if kind in _LISTED else ""
        super().__init__(f"Unknown {kind} {name!r}. {hint}{where}")
