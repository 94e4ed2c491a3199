"""`bench cache`: the artefacts under AUGMARL_HOME."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.options import AsJson, Home, print_json, print_rows

app = typer.Typer(
    help="Size of the cached artefacts, and how to prune them.", no_args_is_help=True, add_completion=False
)


@app.command()
def size(home: Home = None, as_json: AsJson = False) -> None:
    """Show how many artefacts of each stage are stored, and how large they are; checkpoints of unfinished fits too."""
    from benchmark.artefacts import ArtefactStore
    from benchmark.checkpoints import FOLDER, stored_bytes, stored_checkpoints
    from benchmark.folders import home_folder

    folder = home_folder(home)
    unfinished = stored_checkpoints(folder)
    sizes = {str(stage): size for stage, size in ArtefactStore(folder).sizes().items()}
    sizes[FOLDER] = (len(unfinished), sum(stored_bytes(path) for path in unfinished))
    if as_json:
        print_json({stage: {"artefacts": n, "bytes": total} for stage, (n, total) in sizes.items()})
        return
    print_rows(("stage", "artefacts", "MiB"), [(s, str(n), f"{total / 2**20:.1f}") for s, (n, total) in sizes.items()])
    typer.echo(f"in {folder}")


@app.command()
def prune(
    stage: Annotated[
        list[str] | None,
        typer.Option(help="Delete artefacts of this stage: dataset, fit, augmented, policy, evaluation."),
    ] = None,
    home: Home = None,
) -> None:
    """Delete what killed runs left behind, and all artefacts of the stages named. Records stay. Not during a run.

    Checkpoints of fits that nobody came back to within a week go too.
    """
    from benchmark.artefacts import ArtefactStore
    from benchmark.checkpoints import prune_checkpoints
    from benchmark.folders import home_folder
    from benchmark.keys import STAGES
    from tasks.common.errors import UnknownNameError

    folder = home_folder(home)
    store, removed = ArtefactStore(folder), 0
    for name in stage or ():
        if name not in STAGES:
            raise UnknownNameError("stage", name, STAGES)
        for artefact in list(store.stored(name)):
            store.remove(artefact)
            removed += 1
    leftovers = store.remove_leftovers() + prune_checkpoints(folder)
    typer.echo(f"Removed {removed} artefacts and {leftovers} leftovers of killed runs.")
