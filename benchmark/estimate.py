"""How long a run may take, from the timings of earlier records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmark.cells import CellGroup
from benchmark.keys import STAGES
from benchmark.planning import PlannedGroup
from benchmark.records import CellId, RunRecord, read_record, record_paths
from tasks.common.errors import RecordError

START_SECONDS = 3.0
"""Of a worker: interpreter, torch, and the first touch of the data."""

Scope = tuple[str, ...]


@dataclass(frozen=True)
class Timings:
    """Wall seconds of each stage, by how closely a record resembles a cell: the nearest scope that has any counts."""

    seconds: dict[tuple[Scope, str], list[float]]

    @classmethod
    def of(cls, records: Iterable[RunRecord]) -> Timings:
        """Collects the timings of records; of a joint fit, each replicate's share."""
        seconds: dict[tuple[Scope, str], list[float]] = defaultdict(list)
        for record in records:
            trains = "fit" in record.timings
            for stage, timing in record.timings.items():
                shared = timing.together if stage == "fit" else 1
                for scope in _scopes(record.cell, stage, trains):
                    seconds[scope, stage].append(timing.wall_seconds / shared)
        return cls(dict(seconds))

    def of_stage(self, scopes: Sequence[Scope], stage: str) -> float | None:
        """The median of the nearest scope with a timing of this stage, or None."""
        return next((median(self.seconds[s, stage]) for s in scopes if (s, stage) in self.seconds), None)


def read_timings(results: Path) -> Timings:
    """Timings of all readable records; an unreadable one is somebody else's message."""
    collected = []
    for path in record_paths(results):
        with suppress(RecordError):
            collected.append(read_record(path))
    return Timings.of(collected)


def group_seconds(planned: PlannedGroup, timings: Timings, counted: set[str] | None = None) -> float | None:
    """Estimated wall seconds of what a group has left; None where no record resembles it, 0 where nothing is left.

    Fits and synthetic episodes in `counted`, digests of keys, are somebody else's work; the group's own are added.
    """
    cells = [cell for cell in planned.cells if cell.state == "run"]
    if not cells:
        return 0.0
    counted = set() if counted is None else counted
    plan, total = planned.plan, START_SECONDS
    trains = plan.augmenter.method_class.trains
    for stage in STAGES:
        missing = [cell.seed for cell in cells if stage not in cell.stored_stages]
        if stage in ("fit", "augmented"):
            keys = [plan.fit_key(seed) if stage == "fit" else plan.augmented_key(seed) for seed in missing]
            digests = {key.digest for key in keys if key is not None} - counted
            counted |= digests
            count = len(digests)
        else:
            count = min(1, len(missing))  # all replicates at once
        if not count:
            continue
        seconds = timings.of_stage(_scopes(planned.group, stage, trains), stage)
        if seconds is None:
            if stage == "augmented" and not trains:
                continue  # seconds
            return None
        total += seconds * count
    return total


def run_seconds(groups: Sequence[PlannedGroup], timings: Timings, workers: int) -> float | None:
    """Estimated wall seconds of a run on so many workers; None where a group has no estimate."""
    counted: set[str] = set()
    estimates = [group_seconds(group, timings, counted) for group in groups]
    known = [seconds for seconds in estimates if seconds is not None]
    return sum(known) / max(1, workers) if len(known) == len(estimates) else None


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _scopes(cell: CellId | CellGroup, stage: str, trains: bool) -> list[Scope]:
    """From what resembles a stage of a cell most to what resembles it least.

    Learners do not matter to an augmenter, and one that trains is no measure for one that does not.
    """
    family = cell.task.partition("/")[0]
    if stage in ("fit", "augmented"):
        return [
            (cell.protocol, cell.task, cell.dataset, cell.augmenter),
            (cell.protocol, cell.task, cell.augmenter),
            (cell.protocol, family, cell.augmenter),
            (cell.protocol, family, "trains" if trains else "does not train"),
        ]
    return [
        (cell.protocol, cell.task, cell.dataset, cell.augmenter, cell.learner),
        (cell.protocol, cell.task, cell.augmenter, cell.learner),
        (cell.protocol, family, cell.augmenter, cell.learner),
        (cell.protocol, family, cell.learner),
        (cell.protocol, family),
    ]
