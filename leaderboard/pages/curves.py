"""Learning curves of a board: whether learning has flattened by the end of the budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from leaderboard.pages.context import BoardSite
from leaderboard.pages.figures import as_svg, colours, figure, line_styles
from leaderboard.scores import Board, Cell

LAST_PART = 0.75  # the end of a curve begins here


@dataclass(frozen=True)
class Curve:
    """Returns on the way, of the finished replicates that have them.

    Attributes:
        updates: (P,) points that all replicates have. returns: (R, P) mean team return of each.
    """

    cell: Cell
    augmenter: str
    updates: NDArray[np.int64]
    returns: NDArray[np.float64]

    @property
    def late_change(self) -> float | None:
        """Change of the mean curve over its last quarter, in percent of the final mean return; None where that is 0."""
        mean = self.returns.mean(axis=0)  # (P,)
        before, final = float(np.interp(LAST_PART * self.updates[-1], self.updates, mean)), float(mean[-1])
        return 100 * (final - before) / abs(final) if final else None


def publish(site: BoardSite) -> None:
    """Writes `curves.html` of a board."""
    curves = board_curves(site.board)
    figures = [
        (task, _figure(site.board, task, [c for c in curves if c.cell.task == task]))
        for task in sorted({curve.cell.task for curve in curves})
    ]
    site.render("curves.html.jinja", "curves.html", figures=figures, curves=curves)


def board_curves(board: Board) -> list[Curve]:
    """The curves of all cells and augmenters that recorded one with at least two points."""
    found = (_curve(board, cell, augmenter) for cell in board.cells for augmenter in board.augmenters)
    return [curve for curve in found if curve is not None]


def _curve(board: Board, cell: Cell, augmenter: str) -> Curve | None:
    runs = board.by_place.get((augmenter, cell), {}).values()
    points = [
        {p.updates: p.mean_return for p in run.evaluation.curve if p.mean_return is not None}
        for run in runs
        if run.status == "ok" and run.evaluation is not None
    ]
    points = [curve for curve in points if curve]
    shared = sorted(set.intersection(*map(set, points))) if points else []
    if len(shared) < 2:
        return None
    returns = [[curve[updates] for updates in shared] for curve in points]
    return Curve(cell, augmenter, np.array(shared), np.array(returns, dtype=np.float64))


def _figure(board: Board, task: str, curves: list[Curve]) -> Markup:
    datasets = sorted({curve.cell.dataset for curve in curves})
    learners = sorted({curve.cell.learner for curve in curves})
    shades, lines, seen = colours(board.augmenters), line_styles(board.augmenters), {}
    with figure((2.9 * len(datasets) + 0.4, 2.4 * len(learners) + 0.8), len(learners), len(datasets)) as (fig, panels):
        for index, axes in enumerate(panels):
            learner, dataset = learners[index // len(datasets)], datasets[index % len(datasets)]
            for curve in curves:
                if (curve.cell.learner, curve.cell.dataset) != (learner, dataset):
                    continue
                shade = shades[curve.augmenter]
                mean = curve.returns.mean(axis=0)  # (P,)
                (line,) = axes.plot(curve.updates, mean, lines[curve.augmenter], color=shade, linewidth=1.5)
                low, high = curve.returns.min(axis=0), curve.returns.max(axis=0)
                axes.fill_between(curve.updates, low, high, color=shade, alpha=0.1, linewidth=0)
                seen[curve.augmenter] = line
            axes.set_title(f"{dataset} · {learner}", fontsize=10)
            axes.tick_params(labelsize=8)
        fig.supxlabel("updates", fontsize=10)
        fig.supylabel("mean return", fontsize=10)
        fig.legend(list(seen.values()), list(seen), loc="outside upper left", ncols=6)
        name = f"curves-{[cell.task for cell in board.cells].index(task)}"
        return as_svg(
            fig, name, f"Learning curves on {task}: mean return against updates, a panel a dataset and learner"
        )
