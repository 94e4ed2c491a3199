"""`bench report`: the ranking in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import AsJson, Results, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from leaderboard.ranking import Ranking
    from leaderboard.scores import Board, Selection


def report_command(
    matrix: Annotated[str | None, typer.Option("--matrix", help="Only the cells of this matrix.")] = None,
    protocol: Annotated[str | None, typer.Option("--protocol", help="Only this protocol, e.g. quick.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only this dataset.")] = None,
    learner: Annotated[str | None, typer.Option("--learner", help="Only this learner.")] = None,
    results: Results = None,
    as_json: AsJson = False,
) -> None:
    """Print the ranking: lift over `original`, its interval, tier and n. Smoke records are shown here too."""
    from rich.console import Console

    from benchmark.folders import results_folder
    from leaderboard.pages.ranking import flat_row
    from leaderboard.scores import Selection

    selection = Selection(task, dataset, learner)
    rankings = report(results_folder(results), selection, matrix=matrix, protocol=protocol)
    if as_json:
        boards = [
            {
                "board": board.key.title,
                "rows": [flat_row(ranking, row) for row in ranking.rows],
                "notes": ranking.grid.notes,
            }
            for board, ranking in rankings
        ]
        print_json({"boards": boards})
        return
    console = Console()
    for board, ranking in rankings:
        console.print(table_of(board, ranking))
        for line in remarks(ranking):
            console.print(line, markup=False, highlight=False)


def report(
    results: Path, selection: Selection, *, matrix: str | None = None, protocol: str | None = None
) -> list[tuple[Board, Ranking]]:
    """The ranking of every board that has something in the selection.

    Raises:
        NothingSelectedError: if no record is left.
    """
    from benchmark.records import read_records
    from leaderboard.ranking import rank
    from leaderboard.scores import group
    from tasks.common.errors import NothingSelectedError

    records = list(read_records(results))
    wanted = [r for r in records if protocol is None or r.cell.protocol == protocol]
    if matrix is not None:
        from benchmark.matrix import load_matrix

        loaded = load_matrix(matrix) if protocol is None else load_matrix(matrix).with_protocol(protocol)
        wanted = [r for r in wanted if loaded.holds(r.cell)]
    rankings = [(board, rank(board, selection)) for board in group(wanted)]
    rankings = [(board, ranking) for board, ranking in rankings if ranking.rows]
    if not rankings:
        present = sorted({r.cell.protocol for r in records})
        have = (
            f"{len(records)} records of protocols {', '.join(present)} are there." if records else "There is no record."
        )
        for axis in ("task", "dataset", "learner"):
            name, names = getattr(selection, axis), sorted({str(getattr(r.cell, axis)) for r in records})
            if records and name is not None and name not in names:
                have += f" None has the {axis} {name!r}; they have {', '.join(names)}."
        raise NothingSelectedError(f"Nothing in {results} matches. {have} `bench run --matrix quick` makes more.")
    return rankings


def table_of(board: Board, ranking: Ranking) -> Table:
    """The ranking as a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from leaderboard.pages.context import estimate_text, number

    size = f"{len(ranking.grid.cells)} cells, n = {len(ranking.grid.seeds)} independent augmented sets"
    table = Table(
        title=Text(f"{board.key.title}: {size}"),
        title_justify="left",
        caption="* control; lift and P(better): against original; [..]: 95% interval; cost: seconds",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    some_failed = any(row.without_policy for row in ranking.rows)
    table.add_column("tier", justify="right")
    table.add_column("augmenter", no_wrap=True)
    for heading in ("lift", "IQM", "P(better)", "n", "cost", *(["failed"] if some_failed else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in ranking.rows:
        name = Text(row.augmenter)
        name.append(" *" if row.control else "", style="dim")
        table.add_row(
            number(row.tier, 0),
            name,
            _two_lines(estimate_text(row.lift)),
            _two_lines(estimate_text(row.iqm)),
            _two_lines(estimate_text(row.improvement, 2)),
            str(row.n or "–"),
            number(row.cost_seconds),
            *([f"{row.without_policy} of {row.runs}" if row.without_policy else ""] if some_failed else []),
        )
    return table


def _two_lines(estimate: str) -> str:
    """The value, and its interval below: so the table fits 80 columns."""
    return estimate.replace(" [", "\n[")


def remarks(ranking: Ranking) -> list[str]:
    """Who is not ranked and why, and what the comparison leaves out."""
    return [
        *(f"{row.augmenter} is not ranked: {row.not_ranked}" for row in ranking.rows if row.not_ranked),
        *ranking.grid.notes,
    ]
