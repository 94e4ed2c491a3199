"""One check, and the comparison that many of them need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from methods.base import Arrays, UnsupportedError
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True)
class Check:
    """One property of one method on one dataset.

    Attributes:
        name: dataset and property, e.g. `discrete: leaves its input unchanged`.
        body: raises MethodError where the property is broken, UnsupportedError where it does not apply.
        reason: why nothing needs to be checked; None: run the body.
    """

    name: str
    body: Callable[[], None]
    reason: str | None = None

    def run(self) -> str | None:
        """Why the check does not apply, or None if the property holds.

        Raises:
            MethodError: if the property is broken. Whatever the method itself raises passes as well.
        """
        if self.reason is None:
            try:
                self.body()
            except UnsupportedError as error:
                return str(error)
        return self.reason


def equal(first: OfflineDataset, second: OfflineDataset) -> bool:
    """Whether two datasets have the same columns with the same values."""
    return _first_difference(first, second) is None


def require_equal(first: OfflineDataset, second: OfflineDataset, message: str) -> None:
    """Raises MethodError with the message and the first column that differs, unless the datasets are equal."""
    if (column := _first_difference(first, second)) is not None:
        raise MethodError(f"{message} (first in column {column!r}).")


def _first_difference(first: OfflineDataset, second: OfflineDataset) -> str | None:
    mine, other = first.columns(), second.columns()
    for name in sorted(mine.keys() | other.keys()):
        if name not in mine or name not in other or not np.array_equal(mine[name], other[name]):
            return name
    return None


class EveryCheckpoint:
    """A checkpoint that is always due and keeps all states."""

    def __init__(self, stored: Arrays | None = None) -> None:
        self.stored, self.states = stored, list[Arrays]()

    def load(self) -> Arrays | None:
        """What was saved last, or else the state given."""
        return self.states[-1] if self.states else self.stored

    def due(self) -> bool:
        """Always."""
        return True

    def save(self, arrays: Arrays) -> None:
        """Keeps a copy."""
        self.states.append({name: np.array(array) for name, array in arrays.items()})
