"""The driver: hands groups to an executor and writes their records. It is the only writer of records."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmark.checkpoints import DEFAULT_SECONDS
from benchmark.executors.base import Ended, Event, Executor, Job, Recorded
from benchmark.outcomes import Moment, failed_record
from benchmark.planning import PlannedGroup, RunPlan
from benchmark.provenance import Origin, now
from benchmark.records import RunRecord, Status, remove_leftovers, write_record
from tasks.common.errors import StorageError

_STATUS_OF_END: dict[str, Status] = {"crashed": "failed", "done": "failed", "timeout": "timeout", "oom": "oom"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What every job may use. None: the protocol's time, any memory."""

    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    timeout_seconds: float | None = None
    memory_limit_bytes: int | None = None
    checkpoint_seconds: float = DEFAULT_SECONDS


@dataclass(slots=True)
class RunSummary:
    """What a run did: the records that it wrote."""

    records: list[RunRecord] = field(default_factory=list)

    def count(self, *statuses: Status) -> int:
        """Records with one of these statuses."""
        return sum(record.status in statuses for record in self.records)

    @property
    def failed(self) -> int:
        """Records that should have had a score."""
        return self.count("failed", "timeout", "oom", "diverged")


def run_plan(
    plan: RunPlan,
    executor: Executor,
    *,
    home: Path,
    results: Path,
    origin: Origin,
    limits: Limits,
    watch: Callable[[Event], None] = lambda event: None,
) -> RunSummary:
    """Runs what the plan has left and writes one record a cell as soon as it is known.

    Raises:
        StorageError: if a record or an artefact cannot be written; what was written before stays.
    """
    summary = RunSummary()
    by_name = {planned.group.name: planned for planned in plan.groups}
    open_seeds: dict[str, set[int]] = {}
    started: dict[str, str] = {}

    def keep(record: RunRecord) -> None:
        write_record(record, results)
        summary.records.append(record)

    for planned in plan.groups:
        for record in _unsupported(planned, results, origin):
            keep(record)
    remove_leftovers(results)
    jobs = _jobs(plan, home, origin, limits)
    with closing(executor.run(jobs)) as events:  # type: ignore[type-var]  # a generator, which can be closed
        for event in events:
            name = event.job.group.name
            if name not in open_seeds:
                open_seeds[name], started[name] = set(event.job.group.seeds), now()
            if isinstance(event, Recorded):
                keep(event.record)
                open_seeds[name].discard(event.record.cell.seed)
            if isinstance(event, Ended) and event.kind != "fatal":
                for record in _lost(by_name[name], event, open_seeds[name], origin, started[name]):
                    keep(record)
                    watch(Recorded(event.job, record))
            watch(event)
            if isinstance(event, Ended) and event.kind == "fatal":
                raise StorageError(event.reason)
    return summary


def _jobs(plan: RunPlan, home: Path, origin: Origin, limits: Limits) -> list[Job]:
    jobs: list[Job] = []
    for planned in plan.groups:
        seeds = planned.seeds("run")
        if not seeds:
            continue
        jobs.append(
            Job(
                group=replace(planned.group, seeds=seeds),
                home=str(home),
                device=limits.devices[len(jobs) % len(limits.devices)],
                threads=limits.threads,
                timeout_seconds=(
                    planned.plan.protocol.timeout_seconds if limits.timeout_seconds is None else limits.timeout_seconds
                ),
                memory_limit_bytes=limits.memory_limit_bytes,
                checkpoint_seconds=limits.checkpoint_seconds,
                origin=asdict(origin),
            )
        )
    return jobs


def _lost(planned: PlannedGroup, event: Ended, seeds: set[int], origin: Origin, started: str) -> list[RunRecord]:
    """Records of the replicates that a job ended without."""
    reason = event.reason or "The worker ended without a record of this cell."
    moment = Moment(started, event.job.device)
    return [
        failed_record(
            planned.plan, seed, _STATUS_OF_END[event.kind], event.stage, reason, event.log_tail, origin, moment
        )
        for seed in sorted(seeds)
    ]


def _unsupported(planned: PlannedGroup, results: Path, origin: Origin) -> list[RunRecord]:
    """Records of an undefined combination: a row with its reason, written once."""
    if planned.unsupported is None:
        return []
    return [
        failed_record(planned.plan, seed, "unsupported", "plan", planned.unsupported, (), origin, Moment(now(), "none"))
        for seed in planned.group.seeds
        if not planned.group.cell(seed).path(results).exists()
    ]
