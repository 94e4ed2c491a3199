"""`bench results`: run records as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.options import AsJson, Results, print_json, print_rows

app = typer.Typer(help="Query all run records with SQL.", no_args_is_help=True, add_completion=False)


@app.callback()
def results() -> None:
    """Query all run records with SQL."""


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help='One statement about the table `runs`, e.g. "select * from runs".')],
    folder: Results = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")] = False,
) -> None:
    """Answer a SQL query about all records (DuckDB, read-only): one row a run, `record` is the whole document."""
    from benchmark import queries
    from benchmark.folders import results_folder
    from tasks.common.errors import UsageError

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other. Give one of them.")
    answer = queries.query(sql, results_folder(folder))
    if as_json:
        print_json(queries.as_documents(answer))
    elif as_csv:
        typer.echo(queries.as_csv(answer), nl=False)
    else:
        print_rows(answer.columns, [tuple("" if v is None else str(v) for v in row) for row in answer.rows])
