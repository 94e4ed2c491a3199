"""What every stage needs: the store, the device, the clock, and somebody to tell how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmark.artefacts import Artefact, ArtefactStore, Cost
from benchmark.checkpoints import DEFAULT_SECONDS
from benchmark.memory import peak_memory_bytes, reset_peak_memory


def _ignore(stage: str, done: int, total: int, message: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where stages work. `report` is called with (stage, done, total, message).

    A fit keeps a checkpoint every `checkpoint_seconds`.
    """

    store: ArtefactStore
    device: str = "cpu"
    deadline: float | None = None
    checkpoint_seconds: float = DEFAULT_SECONDS
    report: Callable[[str, int, int, str], None] = field(default=_ignore)

    def progress_of(self, stage: str) -> Callable[[int, int, str], None]:
        """The progress callback of one stage."""
        return lambda done, total, message: self.report(stage, done, total, message)


@dataclass(frozen=True, slots=True)
class Found:
    """An artefact, and whether it was there before."""

    artefact: Artefact
    cached: bool


class Stopwatch:
    """Wall seconds and peak memory of a block; `cost` is known once the block has ended."""

    def __init__(self, together: int = 1) -> None:
        self.cost = Cost(wall_seconds=0.0, together=together)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measures the block."""
        reset_peak_memory()
        started = time.perf_counter()
        yield
        self.cost = Cost(
            wall_seconds=time.perf_counter() - started,
            peak_memory_bytes=peak_memory_bytes(),
            together=self.cost.together,
        )
