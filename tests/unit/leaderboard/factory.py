"""Synthetic run records with known effects, for tests of statistics and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmark.records import (
    Artefacts,
    CellId,
    CurvePoint,
    Evaluation,
    Failure,
    Method,
    Provenance,
    RunRecord,
    StageTiming,
    Status,
    write_record,
)
from tasks.common.seeding import make_generator

PROVENANCE = Provenance(
    started="2026-01-02T03:04:05+00:00",
    finished="2026-01-02T03:05:05+00:00",
    commit="0123456789abcdef",
    dirty=False,
    augmarl="0.1.0",
    python="3.12.1",
    platform="Linux-x86_64",
    cpu="Test CPU",
    cpu_count=2,
    memory_bytes=8 * 2**30,
    gpu=None,
    device="cpu",
    torch_threads=1,
    libraries={"numpy": "2.4.0", "torch": "2.11.0"},
)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A matrix of synthetic runs. `effects` adds to the score of an augmenter; scores are exact where `noise` is 0.

    The score of a run is 40 + task number x 5 + effect + noise shared by learners of one augmented set + own noise.
    """

    tasks: Sequence[str] = ("mpe/spread", "mpe/tag")
    datasets: Sequence[str] = ("exp", "exp-m")
    learners: Sequence[str] = ("bc", "bc50")
    effects: Mapping[str, float] = field(
        default_factory=lambda: {"original": 0, "duplicate": 0, "rad-s": -12, "more-real-data": 20}
    )
    seeds: int = 5
    noise: float = 3.0
    protocol: str = "quick"
    variant: str = "omar+continuous"
    master_seed: int = 0

    def records(self) -> list[RunRecord]:
        """All runs of the suite, finished."""
        return [
            make_record(
                CellId(protocol=self.protocol, task=task, dataset=data, augmenter=name, learner=learner, seed=seed),
                score=self.score(task, data, name, learner, seed),
                variant=self.variant,
            )
            for task in self.tasks
            for data in self.datasets
            for name in self.effects
            for learner in self.learners
            for seed in range(self.seeds)
        ]

    def score(self, task: str, data: str, augmenter: str, learner: str, seed: int) -> float:
        """The score of one run."""
        shared = make_generator("shared", self.master_seed, task, data, augmenter, seed).normal()
        own = make_generator("own", self.master_seed, task, data, augmenter, learner, seed).normal()
        return 40 + 5 * list(self.tasks).index(task) + self.effects[augmenter] + self.noise * (shared + own) / 2**0.5


def make_record(
    cell: CellId, *, score: float | None = 50.0, status: Status = "ok", variant: str = "omar+continuous"
) -> RunRecord:
    """One record. Without a score it has no evaluation and, where the status is not ok, a failure."""
    finished = status == "ok" and score is not None
    curve = [
        CurvePoint(updates=step * 100, mean_return=(score or 0.0) * (1 - 0.5**step), episodes=10) for step in range(6)
    ]
    key = f"{cell.task}-{cell.dataset}"
    return RunRecord(
        cell=cell,
        status=status,
        engine="mpe-batched",
        engine_version="1",
        variant=variant,
        team_reward="sum",
        protocol_settings={"updates": 500, "evaluation_episodes": 100},
        augmenter=Method(name=cell.augmenter, version=1, config={"copies": 1}, source_digest="a" * 64),
        learner=Method(name=cell.learner, version=1, config={"lr": 1e-3}, source_digest="b" * 64),
        artefacts=Artefacts(
            dataset=f"data-{key}",
            augmented=f"augmented-{key}-{cell.augmenter}-{cell.seed}",
            policy=f"policy-{cell.name}",
            dataset_card_sha256="c" * 64,
        ),
        dataset_summary={"mean_return": 12.5, "episodes": 100, "steps": 2500, "synthetic_share": 0.5},
        evaluation=Evaluation(episodes=3, environment_seed=7, returns=[1.0, 2.0, 3.0], curve=curve)
        if finished
        else None,
        scores={"normalised": score} if finished and score is not None else {},
        diagnosis={"best_checkpoint_return": 3.0},
        timings={
            "dataset": StageTiming(wall_seconds=2.0, cached=True),
            "augmented": StageTiming(wall_seconds=1.5 if cell.augmenter != "original" else 0.0),
            "policy": StageTiming(wall_seconds=50.0, together=5, peak_memory_bytes=2**28),
            "evaluation": StageTiming(wall_seconds=4.0),
        },
        provenance=PROVENANCE,
        failure=None if status == "ok" else Failure(stage="policy", reason="loss became NaN", log_tail=["step 12"]),
    )


def with_status(record: RunRecord, status: Status) -> RunRecord:
    """The same run, ended another way."""
    return make_record(record.cell, score=None, status=status, variant=record.variant)


def change(record: RunRecord, **fields: object) -> RunRecord:
    """A copy with other fields, unchecked."""
    return record.model_copy(update=fields)


def with_seed(record: RunRecord, seed: int) -> RunRecord:
    """The same run under another seed."""
    return make_record(record.cell.model_copy(update={"seed": seed}), score=record.scores["normalised"])


def write(records: Sequence[RunRecord], results: Path) -> Path:
    """Writes records as a run does, and returns the results folder."""
    for record in records:
        write_record(record, results)
    return results


def write_raw(record: RunRecord, path: Path) -> Path:
    """Writes a record at any path, for names that no run could have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json())
    return path


def matrix(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """A float64 score matrix (R, C)."""
    return np.array(rows, dtype=np.float64)


__all__ = ["Suite", "change", "make_record", "matrix", "replace", "with_seed", "with_status", "write", "write_raw"]
