"""What `bench run` prints at its end: mean scores by augmenter; ranks and intervals are `bench report`'s."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmark.driver import RunSummary
from benchmark.planning import RunPlan
from benchmark.records import RunRecord, read_record


def records_of(planned: RunPlan, folder: Path) -> list[RunRecord]:
    """The stored records of a plan's cells, old and new."""
    paths = [group.group.cell(cell.seed).path(folder) for group in planned.groups for cell in group.cells]
    return [read_record(path) for path in paths if path.exists()]


def mean_scores(planned: RunPlan, folder: Path) -> list[str]:
    """A table: for each augmenter the mean score over all cells with one, how many those are, and how many failed."""
    scores: dict[str, list[float]] = defaultdict(list)
    others: dict[str, int] = defaultdict(int)
    name = "normalised"
    records = records_of(planned, folder)
    if not any(name in record.scores for record in records):
        name = "return"  # no task here has score references
    for record in records:
        if name in record.scores:
            scores[record.cell.augmenter].append(record.scores[name])
        else:
            others[record.cell.augmenter] += 1
            scores[record.cell.augmenter] += []
    width = max([len("augmenter"), *map(len, scores)])
    lines = [f"{'augmenter':<{width}}  mean {name:<10}  n  without a score"]
    for augmenter, values in scores.items():
        mean = f"{fmean(values):.2f}" if values else "-"
        lines.append(f"{augmenter:<{width}}  {mean:>15}  {len(values)}  {others[augmenter]}")
    return lines


def summary_document(planned: RunPlan, summary: RunSummary, folder: Path) -> dict[str, Any]:
    """The same as one JSON document."""
    return {
        "results": str(folder),
        "cached": planned.count("cached"),
        "skipped": planned.count("skipped"),
        "written": len(summary.records),
        "failed": summary.failed,
        "records": [
            {
                "cell": record.cell.name,
                "status": record.status,
                "path": str(record.cell.path(folder)),
                "scores": record.scores,
                "reason": record.failure.reason if record.failure else None,
            }
            for record in summary.records
        ],
    }
