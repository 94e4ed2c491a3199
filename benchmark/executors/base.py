"""What an executor is: jobs in, events out. It neither reads nor writes records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from benchmark.cells import CellGroup
from benchmark.checkpoints import DEFAULT_SECONDS
from benchmark.records import RunRecord

EndKind = Literal["done", "crashed", "timeout", "oom", "fatal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One cell group and what it may use. Plain values only: it travels to another process or machine.

    Attributes:
        home: AUGMARL_HOME of the worker.
        checkpoint_seconds: between two checkpoints of a fit.
        origin: fields of `provenance.Origin`, taken by the driver.
    """

    group: CellGroup
    home: str
    device: str
    threads: int
    timeout_seconds: float
    memory_limit_bytes: int | None
    checkpoint_seconds: float = DEFAULT_SECONDS
    origin: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Started:
    """A job began to run."""

    job: Job


@dataclass(frozen=True, slots=True)
class Progressed:
    """A job tells how far a stage is."""

    job: Job
    stage: str
    done: int
    total: int
    message: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A replicate of a job has its record."""

    job: Job
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over.

    Attributes:
        kind: `done`; `crashed`, `timeout` or `oom` when the replicates without a record failed so; `fatal` when the
            run cannot go on (a full disk).
        stage: what it was doing.
        log_tail: the last lines of its log.
    """

    job: Job
    kind: EndKind
    stage: str = ""
    reason: str = ""
    log_tail: tuple[str, ...] = ()
    seconds: float = 0.0


Event = Started | Progressed | Recorded | Ended


class Executor(Protocol):
    """Runs jobs, in order, as many at once as it sees fit."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Events of all jobs as they happen. Closing the iterator stops every job that still runs."""


def job_to_json(job: Job) -> str:
    """A job as one line."""
    return json.dumps(asdict(job))


def job_from_json(text: str) -> Job:
    """The inverse of `job_to_json`."""
    fields = json.loads(text)
    group = fields.pop("group")
    return Job(group=CellGroup(**{**group, "seeds": tuple(group["seeds"])}), **fields)
