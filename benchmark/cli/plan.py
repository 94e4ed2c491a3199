"""`bench plan`: what a run would do, without doing it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

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
    from pathlib import Path

    from benchmark.planning import PlannedGroup, RunPlan


def plan(
    matrix: MatrixName,
    only: Only = None,
    protocol: ProtocolName = None,
    jobs: Jobs = None,
    device: Device = "auto",
    retry: Retry = True,
    force: Force = False,
    results: Results = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do: cells, what is cached, what is skipped and why, and the estimated time."""
    from benchmark.cli.selected import default_jobs, plan_from
    from benchmark.folders import results_folder

    planned = plan_from(matrix, only, protocol, results, home, retry=retry, force=force)
    show_plan(planned, default_jobs(jobs, device), results_folder(results), as_json=as_json)


def show_plan(planned: RunPlan, workers: int, results: Path, *, as_json: bool) -> None:
    """Prints a plan, as text or as JSON."""
    from benchmark.estimate import read_timings, run_seconds, spoken

    seconds = run_seconds(planned.groups, read_timings(results), workers)
    if as_json:
        print_json(_document(planned, workers, seconds))
        return
    for group in planned.groups:
        typer.echo(_line(group))
    typer.echo(planned.summary())
    fits, waiting = planned.fits()
    if fits:
        typer.echo(f"{fits} fits of augmenters for {waiting} cells: variants and learners share them.")
    if planned.count("run"):
        typer.echo(
            f"Estimated time on {workers} workers: {spoken(seconds)}."
            if seconds is not None
            else "No estimate: no earlier record resembles some of the cells."
        )
    for warning in planned.warnings:
        typer.echo(f"Warning: {warning}", err=True)


def _line(group: PlannedGroup) -> str:
    """One line a group: replicates by state, with the reasons, and what is stored of those to run."""
    parts = []
    for (state, reason), count in Counter((cell.state, cell.reason) for cell in group.cells).items():
        parts.append(f"{count} {'to run' if state == 'run' else state} ({reason})")
    stored = Counter(stage for cell in group.cells if cell.state == "run" for stage in cell.stored_stages)
    if stored:
        parts.append("stored: " + ", ".join(f"{count} {stage}" for stage, count in stored.items()))
    return f"{group.group.name}  {'; '.join(parts)}"


def _document(planned: RunPlan, workers: int, seconds: float | None) -> dict[str, Any]:
    fits, waiting = planned.fits()
    return {
        "summary": {
            "cached": planned.count("cached"),
            "run": planned.count("run"),
            "skipped": planned.count("skipped"),
        },
        "fits": {"missing": fits, "cells": waiting},
        "workers": workers,
        "estimated_seconds": seconds,
        "warnings": list(planned.warnings),
        "cells": [
            {
                "cell": group.group.cell(cell.seed).name,
                "state": cell.state,
                "reason": cell.reason,
                "stored_stages": list(cell.stored_stages),
            }
            for group in planned.groups
            for cell in group.cells
        ],
    }
