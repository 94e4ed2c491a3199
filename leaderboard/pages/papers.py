"""Published numbers beside ours, where a paper has the same task, regime, learner and augmenter."""

from __future__ import annotations

from leaderboard.pages.cells import CellRow, cell_rows
from leaderboard.pages.context import BoardSite
from leaderboard.published import DIFFERENCES, PAPERS, PublishedValue, belongs_to, matching, score_like


def publish(site: BoardSite) -> None:
    """Writes `published.html` of a board."""
    ours = cell_rows(site.board)
    values = matching(site.site.published, [(row.cell, row.augmenter) for row in ours])
    pairs: list[tuple[PublishedValue, CellRow, float | None]] = [
        (value, row, row.other_scores.get(score_like(value)))
        for value in values
        for row in ours
        if belongs_to(value, row.cell, row.augmenter)
    ]
    papers = [(paper, title) for paper, title in PAPERS.items() if any(value.paper == paper for value in values)]
    site.render(
        "published.html.jinja",
        "published.html",
        pairs=pairs,
        papers=papers,
        differences=DIFFERENCES,
        available=len(site.site.published),
    )
