"""The papers' tables (results/published/*.csv) beside our cells, and how their protocols differ from ours."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from leaderboard.scores import Cell
from tasks.common.errors import DataError

COLUMNS = (
    "paper", "table", "task", "engine_family", "dataset", "learner", "augmenter", "metric", "mean", "spread",
    "spread_kind", "seeds", "notes",
)  # fmt: skip

PAPERS: Mapping[str, str] = {
    "madits": "MADiTS: Yuan et al., Efficient Multi-Agent Offline Coordination via Diffusion-based Trajectory "
    "Stitching",
    "mastars": "MASTARS: Multi-Agent Sequential Trajectory Augmentation with Return-Conditioned Subgoals, in review",
    "ins": "INS: Fu et al., Interaction-aware Synthesis to Enhance Offline Multi-Agent Reinforcement Learning",
    "codi": "CODI: Li et al., Boosting Offline MARL under Imbalanced Datasets via Compositional Diffusion Models, 2026",
    "eaq": "EAQ: Oh et al., Diffusion-based Episodes Augmentation for Offline Multi-Agent RL, ICML workshop 2024",
}

DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "madits": (
        "Score: 0 and 100 are returns taken from deciles of the paper's expert data; ours are the mean returns of a "
        "random and an expert policy.",
        "Data: collected with the authors' own policies; probability and default length of the perturbation are not "
        "stated in the paper.",
        "Spread: the caption says standard error of 5 seeds, though several cells are wider than one can be; ours is a "
        "95% interval.",
    ),
    "mastars": (
        "Score: about 0 to 100, references not stated in the paper.",
        "Data: the public OMAR datasets; ours are collected anew from our own policies.",
        "Spread: standard deviation of 5 seeds, which may share one augmented set; ours is a 95% interval over "
        "independent sets.",
    ),
    "ins": (
        "Score: 0 and 100 are mean scores of the paper's random and expert policies; ours are of other policies.",
        "Data: the public OMAR datasets, replaced by 5M synthetic transitions; ours adds to the original data.",
        "Spread: standard deviation of 8 seeds; ours is a 95% interval over independent sets.",
    ),
    "codi": (
        "Score: 0 is the mean return of the imbalanced data and 1 the balanced expert policy; ours runs from the "
        "random policy (0) to the expert (100). The two cannot be converted into each other.",
        "Data: discrete actions on the particle tasks; the plain task of ours has continuous ones.",
        "Spread: standard deviation of 3 seeds; ours is a 95% interval.",
    ),
    "eaq": (
        "Score: mean episode return, 20 at most; ours is normalised.",
        "Data: a 3% sample of the public datasets.",
        "Spread: standard deviation of 5 runs; ours is a 95% interval.",
    ),
}

_TASKS = {"cn": "spread", "pp": "tag"}  # MADiTS and CODI: cooperative navigation, predator-prey
_DATASETS = {"md-replay": "medium-replay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedValue:
    """One printed number, as printed. `cell` and `augmenter` are in our names."""

    paper: str
    table: str
    cell: Cell
    augmenter: str
    metric: str
    mean: str
    spread: str
    spread_kind: str
    seeds: str
    notes: str


def read_published(results: Path) -> list[PublishedValue]:
    """All printed results under `results/published`; settings and timings of the papers are passed over.

    Raises:
        DataError: if a table is not readable or a mean is not a number.
    """
    values: list[PublishedValue] = []
    for path in sorted((results / "published").glob("*.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) == COLUMNS:
                    values.extend(_value(row) for row in reader)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not readable as a table of published results ({error}). Restore it.") from error
    return values


def matching(values: Iterable[PublishedValue], ours: Iterable[tuple[Cell, str]]) -> list[PublishedValue]:
    """The printed values of the same task, regime, learner and augmenter as one of ours, in the order of the papers."""
    plain = {(_plain(cell), augmenter.partition("[")[0]) for cell, augmenter in ours}
    return [value for value in values if (value.cell, value.augmenter) in plain]


def belongs_to(value: PublishedValue, cell: Cell, augmenter: str) -> bool:
    """Whether a printed value is about this cell of ours."""
    return (value.cell, value.augmenter) == (_plain(cell), augmenter.partition("[")[0])


def _plain(cell: Cell) -> Cell:
    return Cell(*(text.partition("[")[0] for text in (cell.task, cell.dataset, cell.learner)))


def _value(row: Mapping[str, str]) -> PublishedValue:
    float(row["mean"])  # ValueError where a number is damaged
    task = f"{row['engine_family']}/{_TASKS.get(row['task'], row['task'])}"
    return PublishedValue(
        paper=row["paper"],
        table=row["table"],
        cell=Cell(task, _DATASETS.get(row["dataset"], row["dataset"]), row["learner"]),
        augmenter=row["augmenter"],
        metric=row["metric"],
        mean=row["mean"],
        spread=row["spread"],
        spread_kind=row["spread_kind"],
        seeds=row["seeds"],
        notes=row["notes"],
    )
