"""The ranking of a selection: all augmenters of a board on the same cells and seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from benchmark.records import RunRecord
from leaderboard import statistics
from leaderboard.scores import (
    BASELINE,
    Board,
    Grid,
    ScoreMatrix,
    Selection,
    comparison_grid,
    is_control,
    score_matrix,
)
from leaderboard.statistics import Estimate, Resampling
from tasks.common.errors import RecordError
from tasks.common.seeding import make_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One augmenter in a ranking.

    Attributes:
        tier: None where there is no interval (one replicate) or where the augmenter is not ranked.
        n: independent replicates, that is augmented sets; 0 where not ranked.
        runs: records of any status in the selection. without_policy: those that ended without a policy.
        lift, mean_lift: IQM and mean of the paired differences to `original`.
        cost_seconds: mean seconds a run of fitting and generating; None where no run says.
        not_ranked: why not, in a sentence.
    """

    augmenter: str
    runs: int
    without_policy: int
    n: int = 0
    tier: int | None = None
    lift: Estimate | None = None
    mean_lift: Estimate | None = None
    iqm: Estimate | None = None
    median: Estimate | None = None
    mean: Estimate | None = None
    optimality_gap: Estimate | None = None
    improvement: Estimate | None = None
    cost_seconds: float | None = None
    not_ranked: str | None = None

    @property
    def control(self) -> bool:
        """Whether this is a control: it stands in the ranking, and is no contestant."""
        return is_control(self.augmenter)


@dataclass(frozen=True)
class Ranking:
    """The rows of a selection, best lift first, the unranked last."""

    selection: Selection
    grid: Grid
    rows: tuple[Row, ...]


def selections(board: Board) -> list[Selection]:
    """Every selection a page's filters can make, `all` first; only those in which something ran."""
    tasks, datasets, learners = (
        [None, *sorted({getattr(cell, axis) for cell in board.cells})] for axis in ("task", "dataset", "learner")
    )
    choices = [Selection(*choice) for choice in product(tasks, datasets, learners)]
    return [choice for choice in choices if any(cell in choice for cell in board.cells)]


def rank(board: Board, selection: Selection) -> Ranking:
    """Ranks all augmenters of a board on the cells of a selection. The same records give the same bits."""
    grid = comparison_grid(board, selection)
    matrices: dict[str, ScoreMatrix] = {}
    refused: dict[str, str] = {}
    for augmenter in board.augmenters:
        try:
            matrices[augmenter] = score_matrix(board, augmenter, grid)
        except RecordError as error:
            refused[augmenter] = str(error)
    if BASELINE not in matrices:
        why = refused.pop(BASELINE, "it has no run here")
        refused = dict.fromkeys(board.augmenters, f"no lift without `{BASELINE}`: {why}")
        matrices = {}
    ranked = [_row(board, selection, matrix, matrices[BASELINE]) for matrix in matrices.values()]
    ranked = [_with_tier(row, tier) for row, tier in zip(ranked, statistics.tiers(_lifts(ranked)), strict=True)]
    ranked.sort(key=lambda row: (-row.lift.value if row.lift else 0.0, row.augmenter))
    left = [_unranked(board, selection, name, why) for name, why in sorted(refused.items())]
    return Ranking(selection, grid, tuple(ranked) + tuple(row for row in left if row.runs))


def resamplings(board: Board, matrix: ScoreMatrix) -> tuple[Resampling, Resampling]:
    """Two independent sets of resamples for a grid: the same for every augmenter, and for every call."""
    parts = [board.key.slug, *(str(cell) for cell in matrix.grid.cells), *map(str, matrix.grid.seeds)]
    generator = make_generator("leaderboard", *parts)
    replicates = len(matrix.grid.seeds)
    first, second = (Resampling.draw(replicates, matrix.strata, generator) for _ in range(2))
    return first, second


def cost_seconds(records: list[RunRecord]) -> float | None:
    """Mean seconds a run of fitting the augmenter and generating its data, where the records say."""
    seconds = [
        sum(timing.wall_seconds / timing.together for stage, timing in record.timings.items() if _augments(stage))
        for record in records
        if any(_augments(stage) for stage in record.timings)
    ]
    return float(np.mean(seconds)) if seconds else None


def _augments(stage: str) -> bool:
    return stage in ("fit", "augmented")


def _row(board: Board, selection: Selection, matrix: ScoreMatrix, baseline: ScoreMatrix) -> Row:
    draws, baseline_draws = resamplings(board, matrix)
    scores, reference = matrix.scores, baseline.scores
    records = board.records(matrix.augmenter, selection)
    return Row(
        augmenter=matrix.augmenter,
        runs=len(records),
        without_policy=matrix.without_policy,
        n=len(matrix.grid.seeds),
        lift=statistics.paired_lift(scores, reference, draws),
        mean_lift=statistics.paired_lift(scores, reference, draws, statistics.mean),
        iqm=statistics.estimate(scores, statistics.iqm, draws),
        median=statistics.estimate(scores, statistics.median, draws),
        mean=statistics.estimate(scores, statistics.mean, draws),
        optimality_gap=statistics.estimate(scores, statistics.optimality_gap, draws),
        improvement=statistics.probability_of_improvement(scores, reference, draws, baseline_draws),
        cost_seconds=cost_seconds(records),
    )


def _with_tier(row: Row, tier: int | None) -> Row:
    return replace(row, tier=tier)


def _lifts(rows: list[Row]) -> list[Estimate]:
    return [row.lift for row in rows if row.lift is not None]


def _unranked(board: Board, selection: Selection, augmenter: str, reason: str) -> Row:
    records = board.records(augmenter, selection)
    failed = sum(record.status != "ok" for record in records)
    return Row(
        augmenter=augmenter,
        runs=len(records),
        without_policy=failed,
        cost_seconds=cost_seconds(records),
        not_ranked=reason,
    )
