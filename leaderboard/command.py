"""`bench leaderboard build` and `bench leaderboard serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import AsJson, Results, print_json

app = typer.Typer(help="Build the pages from run records, or serve them.", no_args_is_help=True, add_completion=False)

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the site.  \\[default: <results>/site]")]
OfMatrix = Annotated[
    str, typer.Option("--matrix", help="Only the cells and seeds of this matrix, in a site of its own, site-NAME.")
]


@app.command()
def build(
    results: Results = None,
    out: Out = None,
    matrix: OfMatrix = "",
    include_smoke: Annotated[
        bool,
        typer.Option("--include-smoke", help="Also protocols for tests; never publish it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build the leaderboard pages from all records, or a matrix's. They open from disk, without a network."""
    from benchmark.folders import results_folder
    from benchmark.matrix import load_matrix
    from leaderboard import site

    folder = results_folder(results)
    chosen = load_matrix(matrix) if matrix else None
    default = folder / (f"site-{chosen.name}" if chosen is not None else "site")
    target = out.expanduser().resolve() if out is not None else default
    built = site.build(folder, target, include_unpublished=include_smoke, matrix=chosen)
    if as_json:
        boards = [{"folder": b.key.slug, "title": b.key.title, "runs": len(b.runs)} for b in built.boards]
        print_json({"index": str(built.index), "boards": boards, "skipped": built.skipped})
        return
    for sentence in built.skipped:
        typer.echo(sentence)
    for board in built.boards:
        typer.echo(f"{board.key.title}: {len(board.runs)} runs, {len(board.cells)} cells")
    typer.echo(f"Open {built.index}")


@app.command()
def serve(
    results: Results = None,
    out: Out = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Serve a built site on this machine only, until interrupted. The pages also open without it."""
    from benchmark.folders import results_folder
    from leaderboard.serving import make_server
    from tasks.common.errors import NothingSelectedError

    folder = out.expanduser().resolve() if out is not None else results_folder(results) / "site"
    if not (folder / "index.html").is_file():
        raise NothingSelectedError(f"There is no site in {folder}. `bench leaderboard build` makes it.")
    with make_server(folder, port) as server:
        typer.echo(f"Serving {folder} at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Stopped.")
