"""Runs that ended without a policy, with their reasons: rows, never gaps."""

from __future__ import annotations

from leaderboard.pages.context import BoardSite
from leaderboard.reproduce import run_command
from leaderboard.scores import cell_of


def publish(site: BoardSite) -> None:
    """Writes `failures.html` of a board."""
    board = site.board
    failed = [run for name in board.augmenters for run in board.records(name) if run.status != "ok"]
    rows = [(run, run_command(run.cell.protocol, cell_of(run), run.cell.augmenter, [run.cell.seed])) for run in failed]
    site.render("failures.html.jinja", "failures.html", rows=rows)
