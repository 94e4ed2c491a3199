"""Run records -> score matrices: independent replicates x cells, whole and unmixed, or an error that says where.

A *board* holds the records that may be compared: one protocol, one engine version, one variant. Inside a board a
*cell* is task x dataset x learner, and each augmenter has one score a cell and seed. Seed k pairs augmentation seed k
with learner seed k, and the run of `original` with the same cell and seed is its partner.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmark.records import Method, RunRecord
from methods.run import COMPUTES
from tasks.common.errors import RecordError

BASELINE = "original"
CONTROLS: Mapping[str, str] = {
    "original": "no augmentation: the line that lift is measured from",
    "duplicate": "the same added volume, no new information",
    "noise": "Gaussian noise: variety without information",
    "noise-s4rl": "the same with the much smaller noise of S4RL",
    "more-real-data": "new episodes of the same regime: the oracle's upper line",
}
SCORE = "normalised"  # 0 is the random policy, 100 the expert
RANDOM_POLICY_SCORE = 0.0
WITHOUT_POLICY = ("failed", "timeout", "oom", "diverged")
_WITHOUT_EFFECT = ("summary", "timeout_seconds", "publishable")  # settings of a protocol that move no score
# These have no augmentation seed to be independent in: one augmented set under all seeds is right for them.
_WITHOUT_RANDOMNESS = ("original", "duplicate")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What a score is compared within: task x dataset x learner."""

    task: str
    dataset: str
    learner: str

    def __str__(self) -> str:
        return f"{self.task} / {self.dataset} / {self.learner}"


@dataclass(frozen=True, slots=True, order=True)
class BoardKey:
    """What records must share to stand on one leaderboard.

    Attributes:
        variant: the choices all tasks of an engine have. Choices of one task (`prey=pretrained`) are left out, so that
            spread and tag share a board; where such a choice is not the default, `parameters` of the task id has it.
    """

    protocol: str
    engine: str
    engine_version: str
    variant: str
    parameters: str

    @classmethod
    def of(cls, record: RunRecord) -> BoardKey:
        """The board a record belongs to."""
        variant = "+".join(part for part in record.variant.split("+") if "=" not in part)
        _, _, parameters = record.cell.task.partition("[")
        return cls(record.cell.protocol, record.engine, record.engine_version, variant, parameters.rstrip("]"))

    @property
    def title(self) -> str:
        """How the board is called on pages, e.g. `quick · particle 1 · omar+continuous`."""
        parts = (self.protocol, f"{self.engine} {self.engine_version}", self.variant, self.parameters)
        return " · ".join(part for part in parts if part.strip())

    @property
    def slug(self) -> str:
        """The board as a folder name: safe characters only."""
        text = "--".join((self.protocol, f"{self.engine}-{self.engine_version}", self.variant, self.parameters))
        return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.")


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a board: one task or all (None), one dataset or all, one learner or all."""

    task: str | None = None
    dataset: str | None = None
    learner: str | None = None

    def __contains__(self, cell: Cell) -> bool:
        chosen = ((self.task, cell.task), (self.dataset, cell.dataset), (self.learner, cell.learner))
        return all(want is None or want == have for want, have in chosen)

    @property
    def key(self) -> tuple[str, str, str]:
        """The three choices, "" for all: how a page's filters name the selection."""
        return self.task or "", self.dataset or "", self.learner or ""


@dataclass(frozen=True)
class Board:
    """All records of one board, by augmenter, cell and seed."""

    key: BoardKey
    runs: Mapping[tuple[str, Cell, int], RunRecord] = field(repr=False)

    @cached_property
    def by_place(self) -> Mapping[tuple[str, Cell], Mapping[int, RunRecord]]:
        """The runs of each augmenter and cell, by seed; everything sorted."""
        places: dict[tuple[str, Cell], dict[int, RunRecord]] = defaultdict(dict)
        for augmenter, cell, seed in sorted(self.runs):
            places[augmenter, cell][seed] = self.runs[augmenter, cell, seed]
        return places

    @cached_property
    def augmenters(self) -> list[str]:
        """Names, in alphabetical order."""
        return sorted({augmenter for augmenter, _ in self.by_place})

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells in which anything ran."""
        return sorted({cell for _, cell in self.by_place})

    def seeds(self, augmenter: str, cell: Cell) -> list[int]:
        """The seeds an augmenter has a record for in a cell, whatever its status."""
        return list(self.by_place.get((augmenter, cell), ()))

    def records(self, augmenter: str, selection: Selection | None = None) -> list[RunRecord]:
        """The records of an augmenter, in the order of cell and seed."""
        cells = [cell for cell in self.cells if selection is None or cell in selection]
        return [run for cell in cells for run in self.by_place.get((augmenter, cell), {}).values()]


@dataclass(frozen=True)
class Grid:
    """The cells and seeds on which all augmenters of a selection are compared: those that `original` has.

    Attributes:
        notes: what is left out, in sentences for the reader.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of one augmenter, (R, C): R independent replicates, C cells.

    Attributes:
        without_policy: how many entries came from the rule for runs without a policy (`run_score`).
    """

    augmenter: str
    grid: Grid
    scores: NDArray[np.float64]
    without_policy: int

    @property
    def strata(self) -> NDArray[np.int64]:
        """(C,) Which cells share their augmented sets: equal numbers for equal task and dataset."""
        names = [(cell.task, cell.dataset) for cell in self.grid.cells]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names], dtype=np.int64)


def group(records: Iterable[RunRecord]) -> list[Board]:
    """The boards of these records, in the order of their keys.

    Raises:
        RecordError: if a run is there twice, or if runs of one task and learner had different protocol settings.
    """
    runs: dict[BoardKey, dict[tuple[str, Cell, int], RunRecord]] = defaultdict(dict)
    settings: dict[tuple[BoardKey, str, str, str], RunRecord] = {}
    for record in records:
        board, cell = BoardKey.of(record), cell_of(record)
        place = (record.cell.augmenter, cell, record.cell.seed)
        if place in runs[board]:
            raise RecordError(f"{record.cell.name} has two records. Delete the one that should not count.")
        first = settings.setdefault((board, cell.task, cell.learner, ""), record)
        _refuse_other_protocol(first, record, (*_WITHOUT_EFFECT, *COMPUTES))
        for compute in COMPUTES:  # every model of a kind has the same compute; other methods have none
            if compute in record.protocol_settings:
                first = settings.setdefault((board, cell.task, cell.learner, compute), record)
                _refuse_other_protocol(first, record, (*_WITHOUT_EFFECT, *(c for c in COMPUTES if c != compute)))
        runs[board][place] = record
    return [Board(key, runs[key]) for key in sorted(runs)]


def cell_of(record: RunRecord) -> Cell:
    """The cell of a record."""
    return Cell(record.cell.task, record.cell.dataset, record.cell.learner)


def is_control(augmenter: str) -> bool:
    """Whether a name, with or without parameters, is one of the controls."""
    return augmenter.partition("[")[0] in CONTROLS


def comparison_grid(board: Board, selection: Selection) -> Grid:
    """The cells that `original` has in a selection, and the seeds it has in every one of them."""
    wanted = [cell for cell in board.cells if cell in selection]
    seeds = {cell: set(board.seeds(BASELINE, cell)) for cell in wanted}
    cells = [cell for cell in wanted if seeds[cell]]
    shared = set.intersection(*(seeds[cell] for cell in cells)) if cells else set()
    notes = [f"{cell} is not compared: `{BASELINE}` has no run there." for cell in wanted if not seeds[cell]]
    for cell in cells:
        extra = sorted(seeds[cell] - shared)
        if extra:
            notes.append(
                f"{cell}: seeds {_listed(extra)} are left out, because other cells of this selection lack them."
            )
    return Grid(tuple(cells), tuple(sorted(shared)), tuple(notes))


def score_matrix(board: Board, augmenter: str, grid: Grid) -> ScoreMatrix:
    """The scores of one augmenter on a grid.

    Raises:
        RecordError: on an empty grid, a missing or unsupported run, a score that is missing, infinite or NaN, an
            augmented set under several seeds, or runs of different method versions. The message names the first place.
    """
    if not grid.cells or not grid.seeds:
        raise RecordError(f"`{BASELINE}` has no seed that all cells share. Run it: lift is measured from it.")
    wanted = [(cell, seed) for cell in grid.cells for seed in grid.seeds]
    missing = [place for place in wanted if (augmenter, *place) not in board.runs]
    if missing:
        raise RecordError(
            f"{len(missing)} of {len(wanted)} runs are missing (first: {missing[0][0]}, seed {missing[0][1]})"
        )
    _refuse_mixture(board, augmenter, grid)
    _refuse_shared_sets(board, augmenter, grid)
    scores = np.empty((len(grid.seeds), len(grid.cells)))  # (R, C)
    for column, cell in enumerate(grid.cells):
        runs = [board.runs[augmenter, cell, seed] for seed in grid.seeds]
        finished = [finished_score(run) for run in runs if run.status == "ok"]
        scores[:, column] = [run_score(run, finished) for run in runs]
    failed = sum(board.runs[(augmenter, *place)].status in WITHOUT_POLICY for place in wanted)
    return ScoreMatrix(augmenter, grid, scores, failed)


def run_score(record: RunRecord, finished: Sequence[float]) -> float:
    """The score a run enters aggregates with: the one published rule (docs/statistics.md).

    A finished run has its normalised score. A run that ended without a policy (failed, timeout, oom, diverged) counts
    as the random policy, 0, or as the worst finished replicate of its cell where that is lower: a failure never
    improves a mean, and is never dropped. An unsupported combination has no score.

    Args:
        record: the run.
        finished: scores of the finished replicates of the same augmenter in the same cell.

    Raises:
        RecordError: if the run is unsupported, or finished without a finite score.
    """
    if record.status == "ok":
        return finished_score(record)
    if record.status in WITHOUT_POLICY:
        return min(RANDOM_POLICY_SCORE, *finished) if finished else RANDOM_POLICY_SCORE
    reason = f": {record.failure.reason}" if record.failure else ""
    raise RecordError(f"{cell_of(record)} is unsupported{reason}")


def finished_score(record: RunRecord) -> float:
    """The normalised score of a finished run. Raises RecordError where it is missing, infinite or NaN."""
    score = record.scores.get(SCORE, math.nan)
    if not math.isfinite(score):
        raise RecordError(
            f"{record.cell.name} has status ok and no finite {SCORE!r} score ({score}). Run the cell again: a NaN is "
            "neither dropped nor averaged."
        )
    return score


def _refuse_other_protocol(first: RunRecord, record: RunRecord, without_effect: tuple[str, ...]) -> None:
    for what in ("protocol_settings", "team_reward", "variant"):
        ours, theirs = getattr(first, what), getattr(record, what)
        if what == "protocol_settings":
            ours, theirs = ({k: v for k, v in s.items() if k not in without_effect} for s in (ours, theirs))
        if ours != theirs:
            raise RecordError(
                f"{first.cell.name} and {record.cell.name} differ in {what} ({ours!r} and {theirs!r}), so their scores "
                "do not compare. Delete the outdated record and run its cell again."
            )


def _refuse_mixture(board: Board, augmenter: str, grid: Grid) -> None:
    made_by: dict[tuple[object, ...], RunRecord] = {}
    for cell in grid.cells:
        for seed in grid.seeds:
            run, partner = board.runs[augmenter, cell, seed], board.runs[BASELINE, cell, grid.seeds[0]]
            if run.augmenter is not None:
                made_by.setdefault(_identity_of(run.augmenter), run)
            if run.learner and partner.learner and _identity(run) != _identity(partner):
                raise RecordError(
                    f"{run.cell.name}: learner {_identity(run)} is not the one `{BASELINE}` was run with "
                    f"({_identity(partner)}). Run the older one again."
                )
    if len(made_by) > 1:
        first, second = list(made_by.values())[:2]
        raise RecordError(
            f"runs of several makes of {augmenter}: {_make(first)}, {_make(second)}. Run the older ones again, or give "
            "a variant its own name, e.g. codi[oracle=llm]."
        )


def _make(record: RunRecord) -> str:
    method = record.augmenter
    assert method is not None
    told = ", ".join(f"{name}={value}" for name, value in sorted(method.config.items()))
    return f"version {method.version}{f' with {told}' if told else ''} in {record.cell.name}"


def _identity(record: RunRecord) -> tuple[object, ...]:
    return () if record.learner is None else _identity_of(record.learner)


def _identity_of(method: Method) -> tuple[object, ...]:
    return method.name, method.version, tuple(sorted(method.config.items()))


def _refuse_shared_sets(board: Board, augmenter: str, grid: Grid) -> None:
    if augmenter.partition("[")[0] in _WITHOUT_RANDOMNESS:
        return
    for cell in grid.cells:
        owner: dict[str, int] = {}
        for seed in grid.seeds:
            key = board.runs[augmenter, cell, seed].artefacts.augmented
            if key is not None and owner.setdefault(key, seed) != seed:
                raise RecordError(
                    f"{cell}: seeds {owner[key]} and {seed} share one augmented set, so they are not independent "
                    "replicates. Run the cell again with one augmented set a seed."
                )


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
