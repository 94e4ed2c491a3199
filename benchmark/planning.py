"""What a run would do: which cells are done, which are left, which are skipped and why. Nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmark.artefacts import ArtefactStore
from benchmark.cells import CellGroup
from benchmark.plans import GroupPlan, plan_group
from benchmark.records import RunRecord, read_record
from tasks.common.errors import UsageError

State = Literal["cached", "run", "skipped"]
FINAL = ("ok", "diverged", "unsupported")
"""Statuses that running again would not change."""


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One replicate: what would happen to it, and why."""

    seed: int
    state: State
    reason: str
    stored_stages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """One cell group. `unsupported` says why it is undefined, so that a run records it as such."""

    plan: GroupPlan
    cells: tuple[PlannedCell, ...]
    unsupported: str | None = None

    @property
    def group(self) -> CellGroup:
        """The group."""
        return self.plan.group

    def seeds(self, state: State) -> tuple[int, ...]:
        """The replicates in a state."""
        return tuple(cell.seed for cell in self.cells if cell.state == state)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """All groups of a run, in the order in which they would run."""

    groups: tuple[PlannedGroup, ...]
    warnings: tuple[str, ...]

    def count(self, state: State) -> int:
        """Cells in a state."""
        return sum(len(group.seeds(state)) for group in self.groups)

    def fits(self) -> tuple[int, int]:
        """How many augmenters must be fitted, and how many cells to run wait for one of them."""
        waiting = [
            key.digest
            for group in self.groups
            for cell in group.cells
            if cell.state == "run" and not {"fit", "augmented"} & set(cell.stored_stages)
            if (key := group.plan.fit_key(cell.seed)) is not None
        ]
        return len(set(waiting)), len(waiting)

    def summary(self) -> str:
        """One line, e.g. `48 cells: 12 cached, 30 to run, 6 skipped`."""
        total = sum(len(group.cells) for group in self.groups)
        counts = f"{self.count('cached')} cached, {self.count('run')} to run, {self.count('skipped')} skipped"
        return f"{total} cells: {counts}"


def make_run_plan(
    groups: Sequence[CellGroup],
    *,
    store: ArtefactStore,
    results: Path,
    exclusion_of: Callable[[CellGroup], str | None] = lambda group: None,
    retry: bool = True,
    force: bool = False,
) -> RunPlan:
    """Compares every cell with the stored records and artefacts.

    Args:
        groups: in the order in which they would run.
        store: the artefacts.
        results: the folder of records.
        exclusion_of: why a matrix leaves a group out, or None.
        retry: whether cells that failed are run again.
        force: run every cell again; artefacts are used all the same.

    Raises:
        UsageError: for an unknown method, task, dataset or parameter.
        RecordError: if a stored record cannot be read; it is not overwritten.
    """
    planned, stale, lacking = [], Counter[str](), dict[str, str]()
    for group in groups:
        plan = plan_group(group)
        excluded = exclusion_of(group)
        unsupported = None if excluded else plan.unsupported() or _unavailable(plan)
        if excluded or unsupported:
            reason = f"excluded: {excluded}" if excluded else f"unsupported: {unsupported}"
            cells = tuple(PlannedCell(seed, "skipped", reason) for seed in group.seeds)
            planned.append(PlannedGroup(plan, cells, unsupported))
            continue
        cells = tuple(_plan_cell(plan, seed, store, results, retry, force, stale) for seed in group.seeds)
        missing = plan.task.unavailable()
        if missing:
            lacking[plan.spec.id] = missing
            cells = tuple(_without_engine(cell, missing) if cell.state == "run" else cell for cell in cells)
        planned.append(PlannedGroup(plan, cells))
    warnings = [f"{task}: cannot be played on this machine: {missing}." for task, missing in lacking.items()]
    warnings += [
        f"{method}: its source has changed since {count} stored artefacts were made, and its version has not. "
        "They are used as they are; if the change moves numbers, raise `version`."
        for method, count in sorted(stale.items())
    ]
    return RunPlan(tuple(planned), tuple(warnings))


def _plan_cell(
    plan: GroupPlan,
    seed: int,
    store: ArtefactStore,
    results: Path,
    retry: bool,
    force: bool,
    stale: Counter[str],
) -> PlannedCell:
    stored = []
    for key in plan.keys(seed):
        artefact = store.find(key)
        if artefact is None:
            continue
        stored.append(key.stage)
        maker = plan.maker_of(key.stage)
        if maker is not None and plan.source_has_changed(artefact):
            stale[maker.text] += 1
    path = plan.group.cell(seed).path(results)
    record = read_record(path) if path.exists() else None
    state, reason = _state(plan, seed, record, retry, force)
    return PlannedCell(seed, state, reason, tuple(stored))


def _without_engine(cell: PlannedCell, missing: str) -> PlannedCell:
    """Left out and not recorded: another machine can run it."""
    return PlannedCell(cell.seed, "skipped", f"not on this machine: {missing}", cell.stored_stages)


def _state(plan: GroupPlan, seed: int, record: RunRecord | None, retry: bool, force: bool) -> tuple[State, str]:
    if record is None:
        return "run", "no record yet"
    if force:
        return "run", "--force"
    if record.artefacts.evaluation != plan.evaluation_key(seed).digest:
        return "run", "what determines the cell has changed since its record (bench explain says what)"
    if record.status in FINAL:
        return "cached", f"recorded as {record.status}"
    return ("run", f"{record.status} last time") if retry else ("cached", f"recorded as {record.status}, --no-retry")


def _unavailable(plan: GroupPlan) -> str | None:
    """Why the original data cannot be recorded, e.g. a behaviour policy that is not shipped."""
    try:
        _ = plan.dataset_key
    except UsageError as error:
        return str(error)
    return None
