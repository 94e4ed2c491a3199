"""How long a run may take, from the timings of earlier records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmark.planning import PlannedGroup
from benchmark.records import RunRecord, read_record, record_paths
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
        """Collects the timings of records."""
        seconds: dict[tuple[Scope, str], list[float]] = defaultdict(list)
        for record in records:
            cell = record.cell
            for stage, timing in record.timings.items():
                for scope in _scopes(cell.protocol, cell.task, cell.dataset, cell.augmenter, cell.learner):
                    seconds[scope, stage].append(timing.wall_seconds)
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


def group_seconds(planned: PlannedGroup, timings: Timings) -> float | None:
    """Estimated wall seconds of what a group has left; None where no record resembles it, 0 where nothing is left."""
    cells = [cell for cell in planned.cells if cell.state == "run"]
    if not cells:
        return 0.0
    group = planned.group
    scopes = list(_scopes(group.protocol, group.task, group.dataset, group.augmenter, group.learner))
    total = START_SECONDS
    for stage in ("dataset", "fit", "augmented", "policy", "evaluation"):
        missing = sum(stage not in cell.stored_stages for cell in cells)
        seconds = timings.of_stage(scopes, stage)
        if not missing or (seconds is None and stage in ("fit", "augmented")):
            continue
        if seconds is None:
            return None
        total += seconds * (missing if stage in ("fit", "augmented") else 1)
    return total


def run_seconds(groups: Sequence[PlannedGroup], timings: Timings, workers: int) -> float | None:
    """Estimated wall seconds of a run on so many workers; None where a group has no estimate."""
    estimates = [group_seconds(group, timings) for group in groups]
    known = [seconds for seconds in estimates if seconds is not None]
    return sum(known) / max(1, workers) if len(known) == len(estimates) else None


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _scopes(protocol: str, task: str, dataset: str, augmenter: str, learner: str) -> list[Scope]:
    family = task.partition("/")[0]
    return [
        (protocol, task, dataset, augmenter, learner),
        (protocol, task, augmenter, learner),
        (protocol, family, augmenter, learner),
        (protocol, family, learner),
        (protocol, family),
    ]
