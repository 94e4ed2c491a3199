"""`bench plugin`: start a package with an augmenter or a learner of your own, and check what is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Start and check augmenters and learners of other packages.", no_args_is_help=True, add_completion=False
)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the method and of its package, e.g. my-idea.")],
    kind: Annotated[str, typer.Option(help="augmenter or learner.")],
    out: Annotated[Path, typer.Option(help="Folder that gets the new folder.")] = Path(),
) -> None:
    """Write a small package that works as it is, to be changed into yours."""
    from benchmark import plugins

    for path in plugins.new_package(name, kind, out):
        typer.echo(path)
    typer.echo(f"Next: pip install -e {out / name} && bench plugin check {name}", err=True)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A registered augmenter or learner; parameters go in brackets.")],
) -> None:
    """Run the contract suite on a method, one line a check."""
    from benchmark import plugins
    from tasks.common.errors import MethodError

    kind, checks = plugins.method_checks(name)
    failed = []
    for result in plugins.run_checks(checks):
        typer.echo(f"{result.status:8}{result.name}" + (f": {result.message}" if result.message else ""))
        if result.status == "failed":
            failed.append(result)
    if failed:
        raise MethodError(
            f"{kind} {name}: {len(failed)} of {len(checks)} checks failed. First: {failed[0].name}: {failed[0].message}"
        )
    typer.echo(f"{kind} {name}: {len(checks)} checks passed or do not apply.")
