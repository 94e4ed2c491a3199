from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmark.artefacts import ArtefactStore, Cost, Draft, load_arrays, save_arrays
from benchmark.keys import Key
from tasks.common.errors import StorageError
from tasks.common.files import write_bytes

KEY = Key("policy", {"seed": 1, "config": {"low": 0.8}})


def make(store: ArtefactStore, key: Key = KEY, content: bytes = b"content", source: str | None = "s") -> None:
    with store.writing(key, source) as draft:
        write_bytes(draft.folder / "file", content)
        draft.cost = Cost(wall_seconds=1.5, together=3)
        draft.notes = {"updates": 7}


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_stored_is_found_with_all_it_knows(store: ArtefactStore) -> None:
    assert store.find(KEY) is None
    make(store)
    found = store.find_intact(KEY)
    assert found is not None
    assert (found.folder / "file").read_bytes() == b"content"
    assert found.digest == KEY.digest
    assert found.cost == Cost(wall_seconds=1.5, together=3)
    assert (found.source_digest, found.notes["updates"], found.parts["config"]) == ("s", 7, {"low": 0.8})


def test_a_block_that_fails_stores_nothing(store: ArtefactStore) -> None:
    def fail(draft: Draft) -> None:
        write_bytes(draft.folder / "file", b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.writing(KEY) as draft:
        fail(draft)
    assert store.find(KEY) is None
    assert everything_in(store.root) == []


def test_a_method_s_own_file_error_is_not_a_storage_error(store: ArtefactStore) -> None:
    with pytest.raises(FileNotFoundError), store.writing(KEY):
        Path("/nowhere/at/all").read_bytes()
    with pytest.raises(TimeoutError), store.writing(KEY):
        raise TimeoutError("over")


def test_a_full_disk_leaves_nothing_behind_and_says_so(store: ArtefactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    other = Key("policy", {"seed": 2})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        make(store, other)
    monkeypatch.undo()
    assert store.find(other) is None
    assert len(everything_in(store.root)) == 2  # file and meta.json of the first
    assert store.find_intact(KEY) is not None


def test_a_damaged_file_is_noticed_and_made_again(store: ArtefactStore) -> None:
    make(store)
    found = store.find(KEY)
    assert found is not None
    (found.folder / "file").write_bytes(b"Content")
    assert found.damaged_file() == "file"
    assert store.find_intact(KEY) is None
    assert store.find(KEY) is None
    make(store)
    assert store.find_intact(KEY) is not None


def test_an_unreadable_meta_file_counts_as_absent_and_is_replaced(store: ArtefactStore) -> None:
    make(store)
    (store.folder(KEY) / "meta.json").write_text("{")
    assert store.find(KEY) is None
    make(store, content=b"new")
    found = store.find_intact(KEY)
    assert found is not None
    assert (found.folder / "file").read_bytes() == b"new"


def test_the_nearest_artefact_is_the_one_with_fewest_changes(store: ArtefactStore) -> None:
    assert store.nearest(KEY) is None
    make(store, Key("policy", {"seed": 9, "config": {"low": 0.1}}))
    make(store, Key("policy", {"seed": 1, "config": {"low": 0.7}}))
    make(store, Key("evaluation", {"seed": 1, "config": {"low": 0.8}}))
    nearest = store.nearest(KEY)
    assert nearest is not None
    assert nearest[1] == ["config.low: 0.8 now, 0.7 stored"]


def test_a_lock_keeps_others_out(store: ArtefactStore) -> None:
    entered: list[str] = []

    def second() -> None:
        with ArtefactStore(store.home).lock(KEY):
            entered.append("second")

    with store.lock(KEY):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.2)
        assert entered == []
        entered.append("first")
    thread.join(timeout=5)
    assert entered == ["first", "second"]


def test_leftovers_of_killed_processes_are_swept_and_counted(store: ArtefactStore) -> None:
    make(store)
    leftover = store.folder(KEY).parent / ".0123.abc.tmp"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"x")
    assert store.remove_leftovers() == 1
    assert store.sizes()["policy"][0] == 1


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2], "n": np.array([3]), "one": np.array(3)}
    save_arrays(tmp_path / "a.safetensors", arrays)
    loaded = load_arrays(tmp_path / "a.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape


def test_a_home_that_cannot_be_written_is_a_storage_error_and_no_failed_cell(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(StorageError, match="AUGMARL_HOME"):
        ArtefactStore(tmp_path / "blocked").lock(KEY)


def test_removing_what_another_process_has_removed_is_no_error(store: ArtefactStore) -> None:
    make(store)
    found = store.find(KEY)
    assert found is not None
    store.remove(found)
    store.remove(found)
    assert store.find(KEY) is None
