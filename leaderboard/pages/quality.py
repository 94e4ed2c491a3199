"""What the synthetic data of each augmenter are like: one row a task, dataset and augmenter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from benchmark.records import RunRecord
from leaderboard.pages.context import BoardSite, Scalar
from leaderboard.scores import Board, is_control

COLUMNS: Mapping[str, tuple[str, str]] = {
    "similarity": ("Similarity", "1 minus the mean KS distance of the columns; 1 is alike"),
    "correlation": ("Correlation", "How alike the rank correlations of columns are; 1 is alike"),
    "covered_share": ("Covered", "Share of the original points with a generated one beside them on the map of (o, a)"),
    "inside_share": ("Inside", "Share of the generated points with an original one beside them on the map of (o, a)"),
    "oracle_reward": ("True reward", "Team reward a step that the engine pays for the transitions"),
    "reward_mse": ("Reward MSE", "Squared difference of the claimed reward to the engine's"),
    "dynamics_mse": ("Dynamics MSE", "Squared error of the next observation, in standard deviations"),
    "novelty": ("Novelty", "Squared distance to the nearest original transition"),
    "new_row_share": ("New rows", "Share of observation rows that were never recorded"),
    "mean_ade": ("Mean ADE", "Distance between where an entity is and where the agents see it"),
    "uncovered_landmarks": ("Uncovered", "Landmarks without an agent at the end of an episode"),
    "cn_score_improvement": ("CN improvement", "How much nearer the agents come to landmarks"),
    "mean_return": ("Return", "Of an episode or segment, as the data claim it"),
    "reward_per_step": ("Reward a step", "As the data claim it"),
    "reward_distance": ("Reward distance", "Wasserstein distance of the rewards of a step, in standard deviations"),
    "value_distance": ("Value distance", "Wasserstein distance of the returns-to-go, in standard deviations"),
    "focus_fire": ("Focus fire", "Share of attackers whose enemy another agent attacks too"),
    "kendall_tau": ("Kendall τ", "Rank correlation of the method's credit with the true contributions"),
    "dire": ("DIRE", "How badly the method's model rebuilds its own windows"),
    "attention_correlation": ("Attention", "Rank correlation of the model's attention with inverse distance"),
    "dire_ratio": ("DIRE ratio", "DIRE over that of original windows by the same model"),
    "acceptance_rate": ("Accepted", "Share of the generated windows that passed the method's filter"),
    "heldout_denoising_loss": ("Held-out loss", "Denoising loss on episodes that were not trained on"),
}
"""Label and help of every metric (docs/quality.md), then what the methods themselves tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One augmenter on one dataset.

    Attributes:
        n: synthetic sets that were measured: learners that share a set count once.
        means: of each metric over the sets that have one; None where none has.
    """

    task: str
    dataset: str
    augmenter: str
    control: bool
    n: int
    means: dict[str, float | None]


def publish(site: BoardSite) -> None:
    """Writes `quality.html`, `quality.csv` and `quality.json` of a board."""
    rows = quality_rows(site.board)
    shown = {name: label for name, label in COLUMNS.items() if any(row.means[name] is not None for row in rows)}
    filters = {axis: sorted({str(getattr(row, axis)) for row in rows}) for axis in ("task", "dataset", "augmenter")}
    site.render(
        "quality.html.jinja", "quality.html", rows=rows, columns=shown, filters=filters, significant=significant
    )
    site.site.write_csv(site.path("quality.csv"), [_flat(row) for row in rows])
    site.site.write_json(site.path("quality.json"), [asdict(row) for row in rows])


def quality_rows(board: Board) -> list[QualityRow]:
    """All rows with at least one measured set, in the order of task, dataset and augmenter."""
    places = sorted({(cell.task, cell.dataset) for cell in board.cells})
    rows = []
    for task, dataset in places:
        for augmenter in board.augmenters:
            runs = [r for r in board.records(augmenter) if (r.cell.task, r.cell.dataset) == (task, dataset)]
            sets = {run.artefacts.augmented: told(run) for run in runs if run.quality}
            if sets:
                control = is_control(augmenter)
                means = _means(sets.values())
                rows.append(
                    QualityRow(
                        task=task, dataset=dataset, augmenter=augmenter, control=control, n=len(sets), means=means
                    )
                )
    return rows


def told(run: RunRecord) -> dict[str, float | None]:
    """The metrics of a record, and the numbers of its augmenter's diagnosis that the page shows."""
    generation = run.augmenter_diagnosis.get("generation")
    own = {**run.augmenter_diagnosis, **(generation if isinstance(generation, dict) else {})}
    if own.get("threshold_kind") == "none":  # nothing could be refused
        own.pop("acceptance_rate", None)
    own["dire_ratio"] = run.quality_details.get("dire", {}).get("ratio")
    numbers = {name: float(v) for name, v in own.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: run.quality[name] if name in run.quality else numbers.get(name) for name in COLUMNS}


def significant(value: float | None) -> str:
    """Three digits, whatever the size: `1.22e−15`, `0.0812`, `1220`; a dash for nothing."""
    if value is None:
        return "–"
    size = abs(value)
    text = f"{value:.0f}" if 1000 <= size < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def _means(sets: Collection[Mapping[str, float | None]]) -> dict[str, float | None]:
    columns = {name: [values[name] for values in sets] for name in COLUMNS}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def _flat(row: QualityRow) -> dict[str, Scalar]:
    axes: dict[str, Scalar] = {"task": row.task, "dataset": row.dataset, "augmenter": row.augmenter}
    return {**axes, "control": row.control, "n": row.n, **row.means}
