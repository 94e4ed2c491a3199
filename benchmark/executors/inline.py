"""Jobs in this process, one after another: for debuggers and tests. Nothing isolates a method here."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmark.executors.base import Ended, EndKind, Event, Job, Progressed, Recorded, Started
from benchmark.records import RunRecord
from tasks.common.errors import StorageError


class InlineExecutor:
    """Runs jobs where it is called. A time limit is only what methods themselves keep to; memory has none."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Events of all jobs; those of one job come when it is over."""
        for job in jobs:
            yield Started(job)
            started, collected = time.monotonic(), _Collected(job)
            kind: EndKind = "done"
            reason = ""
            try:
                with contextlib.redirect_stdout(sys.stderr):  # standard output may be a document
                    run_job(job, collected.progress, collected.record)
            except StorageError as error:
                kind, reason = "fatal", str(error)
            yield from collected.events
            yield Ended(job, kind, "", reason, (), time.monotonic() - started)


class _Collected:
    """The events of a job while it runs."""

    def __init__(self, job: Job) -> None:
        self.job, self.events = job, list[Event]()

    def progress(self, stage: str, done: int, total: int, message: str) -> None:
        self.events.append(Progressed(self.job, stage, done, total, message))

    def record(self, record: RunRecord) -> None:
        self.events.append(Recorded(self.job, record))


def run_job(job: Job, report: Callable[[str, int, int, str], None], emit: Callable[[RunRecord], None]) -> None:
    """Runs one job in this process; workers do the same. Raises StorageError."""
    import torch

    from benchmark.artefacts import ArtefactStore
    from benchmark.pipeline import run_group
    from benchmark.plans import plan_group
    from benchmark.provenance import Origin
    from benchmark.stages.context import Context

    torch.set_num_threads(job.threads)
    context = Context(
        store=ArtefactStore(Path(job.home)),
        device=job.device,
        deadline=time.monotonic() + job.timeout_seconds,
        checkpoint_seconds=job.checkpoint_seconds,
        report=report,
    )
    run_group(plan_group(job.group), context, Origin(**job.origin), emit)
