"""How a run is watched: bars on a terminal, one plain line a finished group elsewhere. Always on standard error."""

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


class _Lines:
    """One line when a group is over."""

    def __init__(self, total: int, workers: int) -> None:
        self._pace = _Pace(total, workers)

    def take(self, event: Event) -> None:
        self._pace.take(event)
        if isinstance(event, Ended):
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
    pace, tasks = _Pace(total, workers), {}
    with Progress(*columns, console=console) as progress:
        overall = progress.add_task("cell groups", total=total)

        def watch(event: Event) -> None:
            pace.take(event)
            name = event.job.group.name
            if isinstance(event, Started):
                tasks[name] = progress.add_task(name, total=None)
            elif isinstance(event, Progressed):
                text = f"{name} {event.stage}: {event.message}"
                progress.update(tasks[name], completed=event.done, total=event.total, description=text)
            elif isinstance(event, Ended):
                progress.remove_task(tasks.pop(name))
                # Not rich's own estimate, which forgets what is older than 30 s: a group takes longer.
                progress.update(overall, advance=1, description=f"cell groups{pace.remaining()}")
                console.print(f"{name}: {pace.outcome(name)}, {event.seconds:.1f} s", highlight=False, markup=False)

        yield watch
