from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmark import records
from benchmark.records import RunRecord, read_record, read_records, remove_leftovers, write_record
from tasks.common.errors import RecordError, StorageError
from tests.unit.benchmark.conftest import RunSmoke


@pytest.fixture
def record(run_smoke: RunSmoke) -> RunRecord:
    return run_smoke(seeds=(0,), dataset="random[fraction=0.5]")[0]


def test_a_record_is_read_back_from_one_folder_an_axis(record: RunRecord, tmp_path: Path) -> None:
    path = write_record(record, tmp_path)
    assert path == tmp_path / "runs/smoke/mpe--spread/random[fraction=0.5]/rad-s/bc/seed-0.json"
    assert read_record(path) == record
    assert list(read_records(tmp_path)) == [record]


def test_a_failed_write_leaves_the_old_record_and_no_leftover(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record(record, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_record(record.model_copy(update={"scores": {}}), tmp_path)
    assert read_record(path) == record
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(schema_version=2), "schema 2, and this AugMARL reads up to 1"),
        (lambda document: document.update(schema_version=0), "never was one"),
        (lambda document: document.update(schema_version=True), "no schema_version"),
        (lambda document: document.pop("schema_version"), "no schema_version"),
        (lambda document: document.update(status="fine"), "'status'"),
        (lambda document: document.update(extra=1), "'extra'"),
        (lambda document: document["scores"].update(normalised=float("nan")), "scores.normalised"),
        (lambda document: document["augmenter_diagnosis"].update(a=[float("nan")]), "augmenter_diagnosis.a"),
        (lambda document: document["cell"].pop("seed"), "cell.seed"),
    ],
)
def test_a_document_of_another_form_is_refused_with_the_field(
    record: RunRecord, tmp_path: Path, change: Any, message: str
) -> None:
    path = write_record(record, tmp_path)
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=message):
        read_record(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff"])
def test_a_damaged_file_is_one_message(record: RunRecord, tmp_path: Path, content: bytes) -> None:
    path = write_record(record, tmp_path)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"seed-0\.json"):
        read_record(path)


def test_older_schemas_are_upgraded_step_by_step(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record(record, tmp_path)
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "schema_version": -1, "steps": []}))

    def from_minus_one(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "steps": [*old["steps"], -1]}

    def from_zero(old: dict[str, Any]) -> dict[str, Any]:
        assert old.pop("steps") == [-1]
        return {**old, "schema_version": 1}

    monkeypatch.setattr(records, "UPGRADES", {-1: from_minus_one, 0: from_zero})
    assert read_record(path) == record


def test_records_from_before_augmenters_told_anything_read_as_empty(record: RunRecord, tmp_path: Path) -> None:
    path = write_record(record, tmp_path)
    document = json.loads(path.read_bytes())
    del document["augmenter_diagnosis"]
    path.write_text(json.dumps(document))
    assert read_record(path).augmenter_diagnosis == {}


def test_leftovers_of_killed_runs_go_and_those_of_running_ones_stay(record: RunRecord, tmp_path: Path) -> None:
    path = write_record(record, tmp_path)
    old, young = path.with_name(".seed-0.json.abc.tmp"), path.with_name(".seed-0.json.def.tmp")
    for leftover in (old, young):
        leftover.write_text("half")
    os.utime(old, (0, 0))
    assert remove_leftovers(tmp_path) == 1
    assert sorted(path.parent.iterdir()) == [young, path]
