"""`bench explain CELL`: why a cell is cached or not, stage by stage."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.options import Home, Results


def explain(
    cell: Annotated[
        str,
        typer.Argument(help="protocol/task/dataset/augmenter/learner/seed-k, as `bench plan` and records print it."),
    ],
    results: Results = None,
    home: Home = None,
) -> None:
    """Say for every stage of a cell whether it is stored and, where not, which part of its key changed."""
    from benchmark.artefacts import ArtefactStore
    from benchmark.cells import parse_cell
    from benchmark.folders import home_folder, results_folder
    from benchmark.plans import plan_cell
    from benchmark.records import read_record

    wanted = parse_cell(cell)
    plan = plan_cell(wanted)
    store, path = ArtefactStore(home_folder(home)), wanted.path(results_folder(results))
    typer.echo(wanted.name)
    reason = plan.unsupported()
    if reason is not None:
        typer.echo(f"  unsupported: {reason}")
    for key in plan.keys(wanted.seed):
        stored = store.find(key)
        if stored is not None:
            typer.echo(f"  {key.stage}: hit  {key.digest[:12]}, made in {stored.cost.wall_seconds:.1f} s")
            if plan.source_has_changed(stored):
                typer.echo("    the source of its method has changed since, and its version has not")
            continue
        typer.echo(f"  {key.stage}: miss  {key.digest[:12]}")
        nearest = store.nearest(key)
        if nearest is None:
            typer.echo("    nothing of this stage is stored")
            continue
        artefact, changes = nearest
        typer.echo(f"    nearest stored: {artefact.digest[:12]}, which differs in")
        for change in changes:
            typer.echo(f"      {change}")
    if not path.exists():
        typer.echo("  record: none")
        return
    record = read_record(path)
    matches = record.artefacts.evaluation == plan.evaluation_key(wanted.seed).digest
    typer.echo(f"  record: {record.status}, {'of these keys' if matches else 'of other keys, so it will be run again'}")
