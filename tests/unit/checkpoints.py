"""A checkpoint in memory, of a process that may end behind one of its saves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import Arrays


class KilledError(Exception):
    """The end of a process."""


class Memory:
    """A checkpoint that is always due; the process is killed right after its n-th save, if at all."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.stored: dict[str, NDArray[Any]] | None = None
        self.saves, self.kill_at = 0, kill_at

    def load(self) -> Arrays | None:
        return self.stored

    def due(self) -> bool:
        return True

    def save(self, arrays: Arrays) -> None:
        self.stored, self.saves = {name: np.array(array) for name, array in arrays.items()}, self.saves + 1
        if self.saves == self.kill_at:
            raise KilledError
