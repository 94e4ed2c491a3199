from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.checkpoints import (
    FOLDER,
    MAX_SHARE,
    FitCheckpoint,
    checkpoint_of,
    prune_checkpoints,
    stored_bytes,
    stored_checkpoints,
)
from benchmark.keys import Key
from tasks.common.errors import StorageError

KEYS = [Key("fit", {"seed": seed}) for seed in (0, 1)]
ARRAYS = {"weights": np.arange(6.0, dtype=np.float32).reshape(2, 3).T, "step": np.array(7), "none": np.zeros((0, 2))}


def make(home: Path, **changes: Any) -> FitCheckpoint:
    given: dict[str, Any] = {"keys": KEYS, "source": "s" * 64, "device": "cpu", "seconds": 60.0, **changes}
    return checkpoint_of(home, given.pop("keys"), **given)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    make(tmp_path).save(ARRAYS)
    loaded = make(tmp_path).load()
    assert loaded is not None
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name], array)


def test_nothing_is_loaded_before_a_save_or_after_a_discard(tmp_path: Path) -> None:
    checkpoint = make(tmp_path)
    assert checkpoint.load() is None
    checkpoint.discard()
    checkpoint.save(ARRAYS)
    checkpoint.discard()
    assert checkpoint.load() is None
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_the_last_save_counts_and_leaves_one_file(tmp_path: Path) -> None:
    checkpoint = make(tmp_path)
    for step in (1, 2):
        checkpoint.save({"step": np.array(step)})
    loaded = checkpoint.load()
    assert loaded is not None
    assert int(loaded["step"]) == 2
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [checkpoint.path.name]


def test_fits_of_other_keys_or_another_order_have_other_files(tmp_path: Path) -> None:
    paths = {make(tmp_path, keys=keys).path for keys in (KEYS, KEYS[::-1], KEYS[:1])}
    assert len(paths) == 3


@pytest.mark.parametrize(
    ("change", "reason"), [({"source": "t" * 64}, "its source is another"), ({"device": "cuda:1"}, "its device")]
)
def test_a_file_of_other_code_or_another_kind_of_device_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, str], reason: str
) -> None:
    make(tmp_path).save(ARRAYS)
    assert make(tmp_path, **change).load() is None
    assert reason in caplog.text
    assert make(tmp_path).load() is not None


def test_the_number_of_the_device_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path, device="cuda:0").save(ARRAYS)
    assert make(tmp_path, device="cuda:1").load() is not None


def test_a_damaged_file_is_passed_over_whatever_is_wrong_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = make(tmp_path)
    checkpoint.save(ARRAYS)
    content = checkpoint.path.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    for damaged in (b"", b"\xff" * 40, content[: len(content) // 2], content[:-4], flipped, b"\x02\0\0\0\0\0\0\0[]"):
        checkpoint.path.write_bytes(damaged)
        caplog.clear()
        assert checkpoint.load() is None
        assert "starts afresh" in caplog.text
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is not None


def test_it_is_due_once_the_interval_is_over(tmp_path: Path) -> None:
    clock = Clock()
    checkpoint = FitCheckpoint(tmp_path / "c.safetensors", {}, seconds=60.0, clock=clock)
    assert not checkpoint.due()
    clock.now += 60.0
    assert checkpoint.due()
    checkpoint.save(ARRAYS)
    assert not checkpoint.due()
    clock.now += 59.0
    assert not checkpoint.due()
    clock.now += 1.0
    assert checkpoint.due()


def test_a_state_that_takes_long_to_save_is_saved_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    checkpoint = FitCheckpoint(tmp_path / "c.safetensors", {}, seconds=60.0, clock=clock)

    def slow(path: Path, content: bytes) -> None:
        clock.now += 9.0

    monkeypatch.setattr("benchmark.checkpoints.write_bytes", slow)
    checkpoint.save(ARRAYS)
    clock.now += 9.0 / MAX_SHARE - 1.0
    assert not checkpoint.due()
    clock.now += 1.0
    assert checkpoint.due()


def test_the_seconds_of_earlier_processes_are_counted(tmp_path: Path) -> None:
    spent = []
    for _ in range(2):
        clock = Clock()
        checkpoint = FitCheckpoint(tmp_path / "c.safetensors", {}, clock=clock)
        checkpoint.load()
        spent.append(checkpoint.spent)
        clock.now += 30.0
        checkpoint.save(ARRAYS)
    checkpoint = FitCheckpoint(tmp_path / "c.safetensors", {})
    checkpoint.load()
    assert [*spent, checkpoint.spent] == [0.0, 30.0, 60.0]


def test_a_full_disk_costs_a_warning_and_not_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise StorageError("No space left on device")

    monkeypatch.setattr("benchmark.checkpoints.write_bytes", full)
    with caplog.at_level(logging.WARNING):
        make(tmp_path, seconds=5.0).save(ARRAYS)
    assert "No space left" in caplog.text


def test_old_files_and_what_killed_saves_left_are_pruned(tmp_path: Path) -> None:
    old, young = make(tmp_path), make(tmp_path, keys=KEYS[:1])
    for checkpoint in (old, young):
        checkpoint.save(ARRAYS)
    os.utime(old.path, (0, 0))
    (tmp_path / FOLDER / ".abc.safetensors.x.tmp").write_bytes(b"half")
    assert prune_checkpoints(tmp_path) == 2
    assert stored_checkpoints(tmp_path) == [young.path]
    assert prune_checkpoints(tmp_path / "nowhere") == 0


def test_a_fit_that_reads_its_own_save_has_spent_no_time_before_itself(tmp_path: Path, caplog: Any) -> None:
    checkpoint = make(tmp_path)
    clock = Clock()
    checkpoint.clock, checkpoint._started = clock, clock.now
    clock.now += 30.0
    checkpoint.save(ARRAYS)
    with caplog.at_level(logging.INFO):
        assert checkpoint.load() is not None
    assert checkpoint.spent == 0.0
    assert "Going on" not in caplog.text
    again = make(tmp_path)
    assert again.load() is not None
    assert again.spent == 30.0


def test_the_folder_goes_with_the_file(tmp_path: Path) -> None:
    checkpoint = make(tmp_path)
    checkpoint.folder.mkdir(parents=True)
    (checkpoint.folder / "column.bin").write_bytes(b"12345")
    checkpoint.save(ARRAYS)
    assert stored_bytes(checkpoint.path) == checkpoint.path.stat().st_size + 5
    assert prune_checkpoints(tmp_path) == 0
    checkpoint.discard()
    assert list((tmp_path / FOLDER).iterdir()) == []
    for with_file in (True, False):  # one that was killed before its first save has none
        checkpoint.folder.mkdir()
        if with_file:
            checkpoint.save(ARRAYS)
        assert prune_checkpoints(tmp_path, older_than_seconds=-10.0) == 1 + with_file
        assert list((tmp_path / FOLDER).iterdir()) == []
