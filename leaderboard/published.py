"""The papers' tables (results/published/*.csv) beside our cells, and how their protocols differ from ours."""

from __future__ import annotations

import csv
import re
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
        "Data: the public OMAR and OG-MARL datasets, replaced by 5M synthetic transitions; ours are of other policies, "
        "and the protocol of this page says how many are made and how they are mixed.",
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
        "Data: a 3% sample of OG-MARL's datasets; ours is a sample of data of other policies.",
        "Spread: standard deviation of 5 runs; ours is a 95% interval.",
    ),
}

_TASKS = {"cn": "spread", "pp": "tag"}  # MADiTS and CODI: cooperative navigation, predator-prey
_DATASETS = {"md-replay": "medium-replay"}
_EAQ_SHARE = "[fraction=0.03]"
"""EAQ, Sec. 4.3: all of its results are on so much of a dataset."""
_INS_SHARES = {"ins-10pct": "[fraction=0.1]", "ins-50pct": "[fraction=0.5]", "ins-100pct": ""}
"""INS, Tables 2 and A2: `ins` fitted on so much of a dataset."""


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


def score_like(value: PublishedValue) -> str:
    """The score of ours on the scale of a printed value: returns and win rates are what they are, else the paper's."""
    return value.paper if value.metric == "normalized_return" else value.metric


def _plain(cell: Cell) -> Cell:
    """A cell of ours as papers name it: without parameters but for the share of the data, nor whose preset it is."""
    share = re.search(r"[\[,](fraction=[\d.]+)[,\]]", cell.dataset)
    dataset = cell.dataset.partition("[")[0] + (f"[{share[1]}]" if share else "")
    return Cell(cell.task.partition("[")[0], dataset, cell.learner.partition("[")[0].partition("@")[0])


def _value(row: Mapping[str, str]) -> PublishedValue:
    float(row["mean"])  # ValueError where a number is damaged
    task = f"{row['engine_family']}/{_TASKS.get(row['task'], row['task'])}"
    share = _EAQ_SHARE if row["paper"] == "eaq" else _INS_SHARES.get(row["augmenter"], "")
    return PublishedValue(
        paper=row["paper"],
        table=row["table"],
        cell=Cell(task, _DATASETS.get(row["dataset"], row["dataset"]) + share, row["learner"]),
        augmenter="ins" if row["augmenter"] in _INS_SHARES else row["augmenter"],
        metric=row["metric"],
        mean=row["mean"],
        spread=row["spread"],
        spread_kind=row["spread_kind"],
        seeds=row["seeds"],
        notes=row["notes"],
    )
