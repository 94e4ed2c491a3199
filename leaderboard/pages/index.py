"""The front page: one leaderboard for each protocol, engine and variant."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.pages.context import BoardSite, Site
from leaderboard.ranking import Row


def publish(site: Site, boards: Sequence[BoardSite]) -> None:
    """Writes `index.html` of the site."""
    entries = [(board.board, _size(board), _leaders(board.overall.rows)) for board in boards]
    site.render("index.html.jinja", "index.html", entries=entries, skipped=site.skipped)


def _size(board: BoardSite) -> dict[str, int]:
    return {
        "runs": len(board.board.runs),
        "cells": len(board.board.cells),
        "tasks": len({cell.task for cell in board.board.cells}),
        "n": len(board.overall.grid.seeds),
    }


def _leaders(rows: Sequence[Row]) -> list[Row]:
    """The contestants of the best tier that has one."""
    contestants = [row for row in rows if not row.control and row.tier is not None]
    best = min((row.tier for row in contestants if row.tier is not None), default=None)
    return [row for row in contestants if row.tier == best]
