"""Options that several commands share, and how they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

MatrixName = Annotated[
    str,
    typer.Option("--matrix", "-m", envvar="AUGMARL_MATRIX", help="A name of `bench list matrices`, or a YAML file."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        envvar="AUGMARL_ONLY",
        metavar="AXIS=GLOB",
        help="Only cells that match, e.g. task=mpe/* or seed=0. Several of one axis are alternatives.",
    ),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        envvar="AUGMARL_PROTOCOL",
        help="Another protocol than the matrix's, e.g. smoke or quick\\[updates=500].",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results", envvar="AUGMARL_RESULTS", help="Folder of records.  \\[default: results/ of the checkout]"
    ),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="AUGMARL_HOME", help="Folder of caches.  \\[default: the platform's cache folder]"),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, envvar="AUGMARL_JOBS", help="Cell groups at once.  \\[default: CPU cores]"),
]
Device = Annotated[str, typer.Option("--device", envvar="AUGMARL_DEVICE", help="auto, cpu, cuda or cuda:K.")]
Retry = Annotated[
    bool, typer.Option("--retry/--no-retry", envvar="AUGMARL_RETRY", help="Run cells again that failed last time.")
]
Force = Annotated[
    bool,
    typer.Option("--force", envvar="AUGMARL_FORCE", help="Write all records again; stored artefacts are still used."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", envvar="AUGMARL_JSON", help="One JSON document on stdout; everything else on stderr."),
]


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=1, allow_nan=False))


def print_rows(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table of text, columns aligned, without borders."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
