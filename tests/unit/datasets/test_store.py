"""Files: what is written is read back; nothing damaged, foreign or hostile is read at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from benchmark.checks import sample_spec
from tasks.base import Task
from tasks.common.errors import DataError, StorageError
from tasks.datasets import store
from tasks.datasets.card import DatasetCard, card_of_imported
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import transitions

Edit = Callable[[dict[str, Any]], object]


def card_of(data: OfflineDataset) -> DatasetCard:
    return card_of_imported(data, dataset="toy", regime="toy", origin="here")


@pytest.fixture
def path(collected: OfflineDataset, tmp_path: Path) -> Path:
    path = tmp_path / "data.safetensors"
    store.save(collected, card_of(collected), path)
    return path


def edit_header(path: Path, edit: Edit) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_what_is_saved_is_loaded(collected: OfflineDataset, path: Path) -> None:
    loaded = store.load(path, collected.spec)
    assert loaded.columns().keys() == collected.columns().keys()
    for name, column in collected.columns().items():
        np.testing.assert_array_equal(loaded.columns()[name], column)
        assert loaded.columns()[name].dtype == column.dtype
    assert loaded.spec is collected.spec
    store.verify_checksum(path)


def test_the_spec_travels_with_the_file(collected: OfflineDataset, path: Path) -> None:
    assert store.load(path).spec == collected.spec


def test_loading_copies_nothing_and_nothing_can_be_written(path: Path) -> None:
    data = store.load(path)
    for name, column in data.columns().items():
        assert not column.flags.owndata, name
        assert not column.flags.writeable, name
        assert column.flags.aligned, name
    transitions(data).gather(np.array([0, 5])).observations[0] = 1  # a batch is a copy


def test_the_library_reads_our_files(collected: OfflineDataset, path: Path) -> None:
    tensors = safetensors.numpy.load_file(path)
    assert tensors.keys() == collected.columns().keys()
    for name, column in collected.columns().items():
        np.testing.assert_array_equal(tensors[name], column)


def test_saving_in_blocks_gives_the_same_file(
    collected: OfflineDataset, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = path.read_bytes()
    monkeypatch.setattr(store, "BLOCK_BYTES", 100)
    store.save(collected, card_of(collected), path)
    assert path.read_bytes() == whole
    store.verify_checksum(path)


def test_an_empty_dataset_is_a_file_too(task: Task, tmp_path: Path) -> None:
    empty, path = OfflineDataset.empty(task.spec), tmp_path / "empty.safetensors"
    store.save(empty, card_of(empty), path)
    assert store.load(path).n_episodes == 0
    assert store.load_card(path).returns is None


def test_not_contiguous_columns_are_saved(collected: OfflineDataset, tmp_path: Path) -> None:
    data = collected.replace(rewards=np.asfortranarray(collected.rewards))
    store.save(data, card_of(data), tmp_path / "x.safetensors")
    np.testing.assert_array_equal(store.load(tmp_path / "x.safetensors").rewards, collected.rewards)


def test_a_full_disk_leaves_what_was_there(
    collected: OfflineDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.common.files.os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        store.save(collected, card_of(collected), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(collected: OfflineDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must end in \.safetensors"):
        store.save(collected, card_of(collected), tmp_path / "x.npz")


def test_copy_takes_the_card_along(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "copy.safetensors"
    store.copy(path, target)
    store.verify_checksum(target)
    store.copy(target, target)
    store.verify_checksum(target)


# -- damage and attacks ----------------------------------------------------------------------------------------------


def test_one_flipped_bit_is_found_by_verify(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store.load(path)  # opening does not read it
    with pytest.raises(DataError, match=r"SHA-256 is .*, and its card says .*build the dataset again"):
        store.verify_checksum(path)


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -1, -1000])
def test_a_truncated_file_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cut off|damaged"):
        store.load(path)


def test_bytes_after_the_end_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"1234")
    with pytest.raises(DataError, match="4 bytes follow the last tensor"):
        store.load(path)


@pytest.mark.parametrize("length", [0, 1, 1 << 21, 1 << 40, (1 << 64) - 1])
def test_an_impossible_header_length(path: Path, length: int) -> None:
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(DataError, match=f"header of {length} bytes does not fit"):
        store.load(path)


@pytest.mark.parametrize("text", [b"{not json", b"\xff\xfe{}", b"[" * 5000, b'{"a": 1, "a": 2}'])
def test_a_header_that_is_no_json(path: Path, text: bytes) -> None:
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(100))
    with pytest.raises(DataError, match="not valid JSON"):
        store.load(path)


def test_a_header_that_is_no_object(path: Path) -> None:
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(DataError, match="header is a list"):
        store.load(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data_offsets": [0, 1 << 60]}, "out of the file"),
        ({"data_offsets": [-8, 0]}, "out of the file"),
        ({"data_offsets": [100, 0]}, "out of the file"),
        ({"data_offsets": [0]}, "two data_offsets"),
        ({"data_offsets": "all"}, "two data_offsets"),
        ({"data_offsets": [True, 8]}, "needs"),
        ({"shape": [1 << 40, 1 << 40]}, "needs"),
        ({"shape": [-1, 4]}, "impossible shape"),
        ({"shape": [1.5]}, "impossible shape"),
        ({"shape": [1] * 100}, "impossible shape"),
        ({"shape": [0, 1 << 47, 1 << 47], "data_offsets": [0, 0]}, "impossible shape"),
        ({"shape": [7]}, r"needs 28 bytes"),
        ({"dtype": "F16"}, "expected a dtype of"),
        ({"dtype": ["F32"]}, "expected a dtype of"),
    ],
)
def test_hostile_tensor_descriptions(path: Path, entry: dict[str, Any], message: str) -> None:
    edit_header(path, lambda header: header["rewards"].update(entry))
    with pytest.raises(DataError, match=message):
        store.load(path)


def test_overlapping_tensors_are_refused(path: Path) -> None:
    edit_header(path, lambda header: header.update(alive=header["terminals"]))
    with pytest.raises(DataError, match="starts at byte"):
        store.load(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h.pop("__metadata__"), "no AugMARL dataset"),
        (lambda h: h["__metadata__"].update(format="pt"), "no AugMARL dataset"),
        (lambda h: h["__metadata__"].update(spec="{"), "stored task is damaged"),
        (lambda h: h["__metadata__"].update(spec="[]"), "stored task is damaged"),
        (lambda h: h["__metadata__"].update(spec="[" * 100_000), "stored task is damaged"),
        (lambda h: h["__metadata__"].update(spec='{"id": 1}'), "stored task is damaged"),
        (lambda h: h.update(extra=h.pop("rewards")), "does not hold the columns"),
        (lambda h: h.update(extra=h.pop("behaviour")), "does not hold the columns"),
    ],
)
def test_a_file_of_something_else(path: Path, edit: Edit, message: str) -> None:
    edit_header(path, edit)
    with pytest.raises(DataError, match=message):
        store.load(path)


def test_offsets_inside_the_data_are_checked_on_opening(collected: OfflineDataset, path: Path) -> None:
    starts = collected.episode_starts.copy()
    starts[1] = 1 << 50
    content = path.read_bytes().replace(collected.episode_starts.tobytes(), starts.tobytes())
    path.write_bytes(content)
    with pytest.raises(DataError, match="episode_starts must rise"):
        store.load(path)


def test_a_file_without_any_episode_start_is_refused(tmp_path: Path) -> None:
    """One step and no episode, so no row: every shape agrees with -1 episodes."""
    spec = sample_spec("continuous")
    data = OfflineDataset(
        spec=spec,
        observations=np.zeros((0, 3, 5), np.float32),
        actions=np.zeros((1, 3, 2), np.float32),
        rewards=np.zeros((1, 3), np.float32),
        terminals=np.zeros(1, np.bool_),
        truncations=np.zeros(1, np.bool_),
        episode_starts=np.zeros(0, np.int64),
    )
    path, card = tmp_path / "x.safetensors", card_of(OfflineDataset.empty(spec))
    store.save(data, card, path)
    with pytest.raises(DataError, match="episode_starts must rise"):
        store.load(path)


def test_data_of_another_decision_process_are_refused(collected: OfflineDataset, path: Path) -> None:
    with pytest.raises(DataError, match="recorded with engine_version='1', and the task has engine_version='2'"):
        store.load(path, replace(collected.spec, engine_version="2"))


def test_missing_files_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.safetensors cannot be opened"):
        store.load(tmp_path / "nothing.safetensors")
    store.card_path(path).unlink()
    with pytest.raises(DataError, match=r"data\.json is missing"):
        store.load_card(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "has schema 99, and this AugMARL reads up to 1. Update AugMARL"),
        ({"schema_version": None}, "no schema_version"),
        ({"episodes": "many"}, "field 'episodes'"),
        ({"surprise": 1}, "field 'surprise'"),
    ],
)
def test_cards_that_cannot_be_read(path: Path, change: dict[str, object], message: str) -> None:
    card = store.card_path(path)
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        store.load_card(path)


def test_a_card_that_is_no_json(path: Path) -> None:
    store.card_path(path).write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        store.load_card(path)
