"""Run records: one JSON file a run, whole or not at all, readable by every later version (docs/record-format.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tasks.common.errors import RecordError
from tasks.common.files import write_bytes
from tasks.common.selector import Scalar, Selector

SCHEMA_VERSION = 1
Status = Literal["ok", "failed", "timeout", "oom", "diverged", "unsupported"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CellId(_Model):
    """Which run this is: the axes of the matrix. `seed` is the replicate: augmentation seed and learner seed."""

    protocol: str
    task: str
    dataset: str
    augmenter: str
    learner: str
    seed: int

    @property
    def name(self) -> str:
        """The text that `bench explain` takes, e.g. `quick/mpe/spread/exp/rad-s/bc/seed-0`."""
        return f"{self.protocol}/{self.task}/{self.dataset}/{self.augmenter}/{self.learner}/seed-{self.seed}"

    def path(self, results: Path) -> Path:
        """Where its record lives: one folder level an axis under `results/runs`."""
        axes = [Selector.parse(text).slug for text in (self.task, self.dataset, self.augmenter, self.learner)]
        return results.joinpath("runs", self.protocol, *axes, f"seed-{self.seed}.json")


class Method(_Model):
    """A method as it ran: its version, all config fields, and the digest of its source."""

    name: str
    version: int
    config: dict[str, Scalar | None]
    source_digest: str


class CurvePoint(_Model):
    """One evaluation on the way: updates done so far and the mean team return over `episodes`."""

    updates: int
    mean_return: float | None
    episodes: int


class Evaluation(_Model):
    """What the final policy did in the environment. All lists have one entry an episode.

    A policy that diverged has no returns; `status` is then `diverged`.
    """

    episodes: int
    environment_seed: int
    returns: list[float]
    won: list[bool] | None = None
    curve: list[CurvePoint] = Field(default_factory=list)


class StageTiming(_Model):
    """Cost of one stage. `shared_by` runs used the same artefact; `cached` says that this run found it ready.

    `wall_seconds` is what making the artefact took when it was made, also where it was found ready. A learner that
    trains R seeds together reports the seconds of all R in `wall_seconds` and R in `together`.
    """

    wall_seconds: float
    peak_memory_bytes: int | None = None
    cached: bool = False
    together: int = 1


class Artefacts(_Model):
    """Keys of the four stages' artefacts, and the digest of the dataset's card."""

    dataset: str
    augmented: str | None = None
    policy: str | None = None
    evaluation: str | None = None
    dataset_card_sha256: str | None = None


class Provenance(_Model):
    """Where and with what it ran; allow-listed, so nothing private gets in."""

    started: str
    finished: str
    commit: str | None
    dirty: bool | None
    augmarl: str
    python: str
    platform: str
    cpu: str
    cpu_count: int
    memory_bytes: int
    gpu: str | None
    device: str
    torch_threads: int
    libraries: dict[str, str]


class Failure(_Model):
    """Why a run has no score: the reason in one sentence, the stage, and the last lines of its log."""

    stage: str
    reason: str
    log_tail: list[str] = Field(default_factory=list)


class RunRecord(_Model):
    """Everything about one run.

    Attributes:
        protocol_settings: the protocol's budgets, in full.
        engine: engine, version and variant: records of different engines never share a leaderboard.
        dataset_summary: of the data before and after augmentation (mean_return, episodes, steps, synthetic_share).
        scores: by normalisation name, e.g. `normalised` and `madits`; empty unless `status` is `ok`.
        diagnosis: further numbers that rank nothing, e.g. `best_checkpoint_return`, `final_loss`.
        augmenter_diagnosis: what the augmenter tells of its fit and its generation, e.g. `acceptance_rate`. Records
            from before this field read as an empty one.
        quality: metrics of the synthetic data by name, null where one is undefined (docs/quality.md); ranks nothing.
            Empty without synthetic data, and in records from before this field.
        quality_details: by metric, `original` (the same number of the original data) and what else is behind it, e.g.
            Kendall's tau of every credit function; empty where `quality` is, and in records from before this field.
    """

    schema_version: int = SCHEMA_VERSION
    cell: CellId
    status: Status
    engine: str
    engine_version: str
    variant: str
    team_reward: str
    protocol_settings: dict[str, Any]
    augmenter: Method | None
    learner: Method | None
    artefacts: Artefacts
    dataset_summary: dict[str, float]
    evaluation: Evaluation | None
    scores: dict[str, float]
    diagnosis: dict[str, float | None]
    augmenter_diagnosis: dict[str, JsonValue] = Field(default_factory=dict)
    quality: dict[str, float | None] = Field(default_factory=dict)
    quality_details: dict[str, dict[str, float | int | str | None]] = Field(default_factory=dict)
    timings: dict[str, StageTiming]
    provenance: Provenance
    failure: Failure | None = None


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""One step a version: `UPGRADES[n]` turns a document of schema n into one of schema n + 1."""


def write_record(record: RunRecord, results: Path) -> Path:
    """Writes the record whole or not at all, and returns its path. Raises StorageError."""
    path = record.cell.path(results)
    write_bytes(path, (record.model_dump_json(indent=1) + "\n").encode())
    return path


def remove_leftovers(results: Path, older_than_seconds: float = 3600.0) -> int:
    """Deletes temporary files that killed runs left beside records, and returns how many.

    Young ones stay: another run may be writing them.
    """
    removed = 0
    for path in (results / "runs").rglob(".seed-*.json.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                removed += 1
    return removed


def read_record(path: Path) -> RunRecord:
    """Reads a record of this or an earlier schema.

    Raises:
        RecordError: if the file is damaged, is no record, or comes from a newer version of AugMARL.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is not readable as JSON ({error}). Delete it and run its cell again.") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError(f"{path} is no run record: it has no schema_version. Move it out of the results folder.")
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema {version}, and this AugMARL reads up to {SCHEMA_VERSION}. Update AugMARL to read it."
        )
    for step in range(version, SCHEMA_VERSION):
        if step not in UPGRADES:
            raise RecordError(f"{path} has schema {version}, which never was one. Delete it and run its cell again.")
        document = UPGRADES[step](document)
    try:
        return RunRecord.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise RecordError(
            f"{path}: field {where!r}: {problem['msg']} ({error.error_count()} problems in all). "
            "Delete the file and run its cell again."
        ) from error


def record_paths(results: Path) -> list[Path]:
    """The files of all records under `results/runs`, in order."""
    return sorted((results / "runs").rglob("seed-*.json"))


def read_records(results: Path) -> Iterator[RunRecord]:
    """All records under `results/runs`, in path order. Raises RecordError at the first unreadable one."""
    for path in record_paths(results):
        yield read_record(path)
