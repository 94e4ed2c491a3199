"""How a run is watched: bars on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from benchmark.estimate import spoken
from benchmark.executors.base import Ended, Event, Progressed, Recorded, Started
from benchmark.planning import RunPlan

Watch = Callable[[Event], None]

_KNOWN_SECONDS = 5.0  # of a stage, before what is left of it is told
_LINE_SECONDS = 600.0  # between two lines about a stage that takes long, where there is no terminal


@contextmanager
def make_watcher(plan: RunPlan, workers: int) -> Iterator[Watch]:
    """A function that takes every event of the run."""
    total = sum(bool(group.seeds("run")) for group in plan.groups)
    if sys.stderr.isatty():
        with _bars(total, workers) as watch:
            yield watch
    else:
        yield _Lines(total, workers).take


class _Pace:
    """Groups done, and what is left of the time."""

    def __init__(self, total: int, workers: int) -> None:
        self.total, self.workers, self.done = total, workers, 0
        self.statuses: dict[str, list[str]] = {}
        self.started = time.monotonic()

    def take(self, event: Event) -> None:
        if isinstance(event, Recorded):
            self.statuses.setdefault(event.job.group.name, []).append(event.record.status)
        elif isinstance(event, Ended):
            self.done += 1

    def remaining(self) -> str:
        if not self.done or self.done == self.total:
            return ""
        seconds = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        return f", about {spoken(seconds)} left"

    def outcome(self, name: str) -> str:
        statuses = self.statuses.get(name, [])
        counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
        return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no record yet"


class _StagePaces:
    """How long the stages of groups still take, from what they have done since they first told of themselves.

    A stage that goes on behind what a killed process had done is as slow as it is now, not as that would make it look.
    """

    def __init__(self) -> None:
        self._began: dict[
            str, tuple[str, int, int, float]
        ] = {}  # stage, total, done and time of a group's first report

    def remaining(self, event: Progressed) -> str:
        """For behind a message; empty while nothing is known."""
        name, now = event.job.group.name, time.monotonic()
        stage, total, first, began = self._began.get(name, ("", 0, 0, now))
        if (stage, total) != (event.stage, event.total) or event.done < first:
            self._began[name] = (event.stage, event.total, event.done, now)
            return ""
        if not first < event.done < total or now - began < _KNOWN_SECONDS:
            return ""
        return f", about {spoken((now - began) / (event.done - first) * (total - event.done))} left"

    def forget(self, event: Ended) -> None:
        """A group is over."""
        self._began.pop(event.job.group.name, None)


class _Lines:
    """One line when a group is over, and now and then one about a stage that takes long."""

    def __init__(self, total: int, workers: int) -> None:
        self._pace, self._stages = _Pace(total, workers), _StagePaces()
        self._told = time.monotonic()

    def take(self, event: Event) -> None:
        self._pace.take(event)
        if isinstance(event, Progressed):
            left = self._stages.remaining(event)
            if left and time.monotonic() - self._told >= _LINE_SECONDS:
                name, done = event.job.group.name, f"{event.done:,} of {event.total:,}"
                typer.echo(f"{name} {event.stage}: {event.message}, {done}{left}", err=True)
                self._told = time.monotonic()
        elif isinstance(event, Ended):
            self._stages.forget(event)
            self._told = time.monotonic()
            pace = self._pace
            typer.echo(
                f"[{pace.done}/{pace.total}] {event.job.group.name}: {event.kind} in {event.seconds:.1f} s"
                f" ({pace.outcome(event.job.group.name)}){pace.remaining()}",
                err=True,
            )


@contextmanager
def _bars(total: int, workers: int) -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),  # names have brackets, and plugins say what they like
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    pace, stages, tasks = _Pace(total, workers), _StagePaces(), {}
    with Progress(*columns, console=console) as progress:
        overall = progress.add_task("cell groups", total=total)

        def watch(event: Event) -> None:
            pace.take(event)
            name = event.job.group.name
            if isinstance(event, Started):
                tasks[name] = progress.add_task(name, total=None)
            elif isinstance(event, Progressed):
                text = f"{name} {event.stage}: {event.message}{stages.remaining(event)}"
                progress.update(tasks[name], completed=event.done, total=event.total, description=text)
            elif isinstance(event, Ended):
                stages.forget(event)
                progress.remove_task(tasks.pop(name))
                # Not rich's own estimate, which forgets what is older than 30 s: a group takes longer.
                progress.update(overall, advance=1, description=f"cell groups{pace.remaining()}")
                console.print(f"{name}: {pace.outcome(name)}, {event.seconds:.1f} s", highlight=False, markup=False)

        yield watch
