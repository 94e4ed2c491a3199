"""`bench timing`: takes the measurements, prints them, and saves them as a record on request."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from benchmark.cli.options import AsJson, Results
from tasks.common.errors import ExitCode, MissingDependencyError

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def timing(
    only: Annotated[
        str,
        typer.Option(
            help="Comma-separated groups: engine, smax, mujoco, evaluation, data, learner, diffusion, transition, "
            "stitching, attention, startup."
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:K.")] = "cpu",
    save: Annotated[bool, typer.Option("--save", help="Write the result to results/timings/.")] = False,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed as ratios, each against its baseline in this run on this machine."""
    from rich.console import Console

    from benchmark.folders import results_folder
    from benchmark.memory import keep_freed_memory
    from benchmark.timing import record
    from benchmark.timing.measurements import MEASUREMENTS, load_measurement

    groups = [name.strip() for name in only.split(",") if name.strip()] or list(MEASUREMENTS)
    functions = [load_measurement(name) for name in groups]  # unknown names fail before anything runs
    messages = Console(stderr=True)
    keep_freed_memory()  # as workers do
    taken = []
    for name, function in zip(groups, functions, strict=True):
        messages.print(f"{name}: {MEASUREMENTS[name][1]} ...")
        try:
            for measurement in function(device):
                messages.print(f"  {measurement.name}: {measurement.value:.4g} {measurement.unit}", highlight=False)
                taken.append(measurement)
        except MissingDependencyError as error:
            if only:
                raise
            messages.print(f"{name}: left out. {error}")
    document = record.make_record(taken, device)
    if as_json:
        json.dump(document.model_dump(mode="json"), sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        Console().print(record.as_table(taken))
    if save:
        messages.print(f"Saved {record.save(document, results_folder(results))}")
    if any(measurement.met is False for measurement in taken):
        messages.print("At least one target was missed.")
        raise typer.Exit(ExitCode.INVALID)
