"""`bench run`: runs a matrix, resumes where it stopped, and says how it went."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import (
    AsJson,
    Device,
    Force,
    Home,
    Jobs,
    MatrixName,
    Only,
    ProtocolName,
    Results,
    Retry,
    print_json,
)

if TYPE_CHECKING:
    from benchmark.driver import RunSummary
    from benchmark.planning import RunPlan


def run(
    matrix: MatrixName,
    only: Only = None,
    protocol: ProtocolName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", envvar="AUGMARL_DRY_RUN", help="Show the plan and stop.")
    ] = False,
    jobs: Jobs = None,
    executor: Annotated[
        str,
        typer.Option(
            envvar="AUGMARL_EXECUTOR", help="Where cells run: local, or inline (this process, for debugging)."
        ),
    ] = "local",
    device: Device = "auto",
    threads: Annotated[
        int,
        typer.Option(min=1, envvar="AUGMARL_THREADS", help="CPU threads a worker. With 1, a re-run is bit-identical."),
    ] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=1.0, envvar="AUGMARL_TIMEOUT", help="Seconds a cell group may take.  \\[default: the protocol's]"
        ),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            min=0.01, envvar="AUGMARL_MEMORY_LIMIT", help="GiB that a worker may hold.  \\[default: no limit]"
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0.0, envvar="AUGMARL_CHECKPOINT_SECONDS", help="Seconds between checkpoints of a long fit."),
    ] = 60.0,
    retry: Retry = True,
    force: Force = False,
    results: Results = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run every cell of a matrix that has no record yet.

    Resumes by itself: finished cells and stages are found, cells that failed run again. Exit code 3: some cells
    failed; their records say why.
    """
    from benchmark.cli.plan import show_plan
    from benchmark.cli.selected import default_jobs, plan_from
    from benchmark.executors import make_executor
    from benchmark.folders import home_folder, results_folder

    planned = plan_from(matrix, only, protocol, results, home, retry=retry, force=force)
    workers = default_jobs(jobs, device)
    chosen = make_executor(executor, workers)
    folder = results_folder(results)
    if dry_run:
        show_plan(planned, workers, folder, as_json=as_json)
        return
    for warning in planned.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    typer.echo(planned.summary(), err=True)

    from benchmark.cli.progress import make_watcher
    from benchmark.devices import device_pool
    from benchmark.driver import Limits, run_plan
    from benchmark.provenance import take_origin

    limits = Limits(
        devices=device_pool(device),
        threads=threads,
        timeout_seconds=timeout,
        memory_limit_bytes=None if memory_limit is None else int(memory_limit * 2**30),
        checkpoint_seconds=checkpoint_seconds,
    )
    with make_watcher(planned, workers) as watch:
        summary = run_plan(
            planned,
            chosen,
            home=home_folder(home),
            results=folder,
            origin=take_origin(threads),
            limits=limits,
            watch=watch,
        )
    _finish(planned, summary, folder, _Flags(matrix, protocol, results), as_json)


@dataclass(frozen=True, slots=True)
class _Flags:
    """What a command that is recommended must repeat, to look at the same cells and records."""

    matrix: str
    protocol: str | None
    results: Path | None

    def of_cells(self) -> str:
        protocol = ["--protocol", self.protocol] if self.protocol else []
        return shlex.join(["--matrix", self.matrix, *protocol]) + self.of_results()

    def of_results(self) -> str:
        return f" {shlex.join(['--results', str(self.results)])}" if self.results else ""


def _finish(planned: RunPlan, summary: RunSummary, folder: Path, flags: _Flags, as_json: bool) -> None:
    """Prints what happened, and ends with the exit code that says so."""
    from benchmark.cli.summary import mean_scores, summary_document
    from tasks.common.errors import ExitCode, NothingSelectedError

    if as_json:
        print_json(summary_document(planned, summary, folder))
    else:
        for line in mean_scores(planned, folder):
            typer.echo(line)
        typer.echo(
            f"{len(summary.records)} records written, {summary.failed} of them failed. Records: {folder / 'runs'}"
        )
        typer.echo(f"Ranking: bench report {flags.of_cells()}")
        typer.echo(f"Pages: bench leaderboard build{flags.of_results()}")
    for record in summary.records:
        if record.status != "ok" and record.failure is not None:
            typer.echo(f"{record.status}: {record.cell.name}: {record.failure.reason}", err=True)
    if summary.failed:
        raise typer.Exit(int(ExitCode.FAILED_CELLS))
    if not planned.count("run") and not planned.count("cached"):
        raise NothingSelectedError(f"Every cell was skipped. `bench plan {flags.of_cells()}` says why.")
