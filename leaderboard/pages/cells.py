"""Every cell of a board: replicates, mean, lift, status, seconds by stage, and the command that runs it again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from benchmark.records import RunRecord
from leaderboard import statistics
from leaderboard.pages.context import BoardSite, Scalar
from leaderboard.reproduce import run_command
from leaderboard.scores import BASELINE, SCORE, Board, Cell, is_control, run_score
from leaderboard.statistics import Estimate
from tasks.common.errors import RecordError

STAGES = ("dataset", "fit", "augmented", "policy", "evaluation")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """One augmenter in one cell.

    Attributes:
        n: independent replicates that the mean is over: seeds with a score, failed ones included by the rule.
        mean: of the normalised score, with Student's t interval. lift: mean of the paired differences, likewise.
        other_scores: means under further normalisations, of the finished runs.
        seconds: mean seconds a run, by stage. why: the reason where there is no mean.
    """

    cell: Cell
    augmenter: str
    n: int
    mean: Estimate | None
    lift: Estimate | None
    statuses: dict[str, int]
    other_scores: dict[str, float]
    seconds: dict[str, float]
    command: str
    why: str | None

    @property
    def control(self) -> bool:
        """Whether the augmenter is a control."""
        return is_control(self.augmenter)


def publish(site: BoardSite) -> None:
    """Writes `cells.html`, `cells.csv` and `cells.json` of a board."""
    rows = cell_rows(site.board)
    stages = [stage for stage in STAGES if any(stage in row.seconds for row in rows)]
    stages += sorted({stage for row in rows for stage in row.seconds} - set(STAGES))
    filters = {axis: sorted({str(getattr(row.cell, axis)) for row in rows}) for axis in ("task", "dataset", "learner")}
    filters["augmenter"] = site.board.augmenters
    site.render("cells.html.jinja", "cells.html", rows=rows, stages=stages, filters=filters)
    site.site.write_csv(site.path("cells.csv"), [_flat(row, stages) for row in rows])
    site.site.write_json(site.path("cells.json"), [asdict(row) for row in rows])


def cell_rows(board: Board) -> list[CellRow]:
    """All rows, in the order of cell and augmenter."""
    return [
        _row(board, cell, augmenter)
        for cell in board.cells
        for augmenter in board.augmenters
        if (augmenter, cell) in board.by_place
    ]


def cell_scores(board: Board, augmenter: str, cell: Cell) -> dict[int, float]:
    """The score of each seed by the published rule. Raises RecordError where a run has none."""
    runs = board.by_place[augmenter, cell]
    finished = [run.scores[SCORE] for run in runs.values() if run.status == "ok" and SCORE in run.scores]
    return {seed: run_score(run, finished) for seed, run in runs.items()}


def _row(board: Board, cell: Cell, augmenter: str) -> CellRow:
    runs = board.by_place[augmenter, cell]
    try:
        scores, why = cell_scores(board, augmenter, cell), None
    except RecordError as error:
        scores, why = {}, str(error)
    return CellRow(
        cell=cell,
        augmenter=augmenter,
        n=len(scores),
        mean=statistics.cell_mean(np.array(list(scores.values()))) if scores else None,
        lift=_lift(board, cell, scores),
        statuses=dict(sorted(Counter(run.status for run in runs.values()).items())),
        other_scores=_other_scores(list(runs.values())),
        seconds=_seconds(list(runs.values())),
        command=run_command(board.key.protocol, cell, augmenter, list(runs)),
        why=why,
    )


def _lift(board: Board, cell: Cell, scores: dict[int, float]) -> Estimate | None:
    if (BASELINE, cell) not in board.by_place:
        return None
    try:
        partners = cell_scores(board, BASELINE, cell)
    except RecordError:
        return None
    differences = [score - partners[seed] for seed, score in scores.items() if seed in partners]
    return statistics.cell_mean(np.array(differences)) if differences else None


def _other_scores(runs: list[RunRecord]) -> dict[str, float]:
    finished = [run.scores for run in runs if run.status == "ok"]
    names = sorted(set().union(*finished) - {SCORE}) if finished else []
    return {name: float(np.mean([scores[name] for scores in finished if name in scores])) for name in names}


def _seconds(runs: list[RunRecord]) -> dict[str, float]:
    stages = sorted({stage for run in runs for stage in run.timings})
    per_run = {s: [r.timings[s].wall_seconds / r.timings[s].together for r in runs if s in r.timings] for s in stages}
    return {stage: float(np.mean(seconds)) for stage, seconds in per_run.items()}


def _flat(row: CellRow, stages: list[str]) -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {**asdict(row.cell), "augmenter": row.augmenter, "control": row.control, "n": row.n}
    for name, estimate in (("mean", row.mean), ("lift", row.lift)):
        flat[name] = estimate.value if estimate else None
        flat[f"{name}_low"] = estimate.low if estimate else None
        flat[f"{name}_high"] = estimate.high if estimate else None
    flat["statuses"] = " ".join(f"{status}={count}" for status, count in row.statuses.items())
    flat |= {f"{stage}_seconds": row.seconds.get(stage) for stage in stages}
    return {**flat, "command": row.command, "why": row.why}
