"""One `safetensors` file a dataset and a JSON card beside it; opened by memory-mapping, without copying a value.

The format is read and written here, because the library's numpy loader copies every tensor. Layout (little-endian):
8 bytes n, n bytes of JSON {name: {dtype, shape, data_offsets}, "__metadata__": {...}}, then the tensors end to end.
The task's spec travels in the metadata, so a file can be read without the engine or plugin that recorded it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError
from tasks.common.files import atomic_write, sha256_of, write_bytes
from tasks.datasets.card import DatasetCard, read_card
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec

FILE_FORMAT = "augmarl-dataset-1"
MAX_HEADER_BYTES = 1 << 20
BLOCK_BYTES = 1 << 24
_DTYPES = {"I64": "<i8", "F32": "<f4", "BOOL": "|b1", "I8": "|i1"}
_NAMES = {np.dtype(text): name for name, text in _DTYPES.items()}


def card_path(path: Path) -> Path:
    """Where the card of a data file is: `x.safetensors` -> `x.json`."""
    return path.with_suffix(".json")


def save(data: OfflineDataset, card: DatasetCard, path: Path) -> DatasetCard:
    """Writes data and card, each whole or not at all, and returns the card with the data's SHA-256.

    Columns are written in blocks, so a memory-mapped dataset is copied in constant memory.

    Raises:
        StorageError: if a file cannot be written.
        DataError: if the path does not end in `.safetensors`.
    """
    _require_suffix(path)
    columns = dict(sorted(data.columns().items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    digest = hashlib.sha256()
    card_path(path).unlink(missing_ok=True)  # never the card of one dataset beside the data of another
    with atomic_write(path) as file:
        header = _header(columns, data.spec)
        digest.update(header)
        file.write(header)
        for column in columns.values():
            rows = max(1, BLOCK_BYTES // max(1, column[:1].nbytes))
            for first in range(0, len(column), rows):
                block = np.ascontiguousarray(column[first : first + rows]).reshape(-1).view(np.uint8).data
                digest.update(block)
                file.write(block)
    card = card.model_copy(update={"data_sha256": digest.hexdigest()})
    write_bytes(card_path(path), (card.model_dump_json(indent=1) + "\n").encode())
    return card


def load(path: Path, spec: TaskSpec | None = None) -> OfflineDataset:
    """Opens a dataset; its columns are read-only views of the memory-mapped file.

    The checksum is not computed here, it would read the whole file: `verify` does.

    `spec` is the task as registered, with its score references; None: the spec stored in the file, without them.

    Raises:
        DataError: if the file is missing, damaged or of another task.
    """
    content = _map(path)
    entries, start = _read_header(content, path)
    stored = _spec_from(entries.pop("__metadata__", None), path)
    if spec is not None:
        _require_same_task(stored, spec, path)
    columns = _columns(entries, content[start:], path)
    try:
        data = OfflineDataset(spec=spec or stored, **columns)
    except TypeError as error:
        raise DataError(f"{path}: {error}. The file does not hold the columns of a dataset.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    starts = data.episode_starts
    if not len(starts) or starts[0] != 0 or starts[-1] != data.n_steps or (np.diff(starts) < 1).any():
        raise DataError(f"{path}: episode_starts must rise from 0 to {data.n_steps}, by one step or more each.")
    return data


def copy(source: Path, target: Path) -> None:
    """Copies a data file and its card, the card last, each whole or not at all.

    Raises:
        StorageError: if a file cannot be written.
        DataError: if the target does not end in `.safetensors`, or the source has no card.
    """
    _require_suffix(target)
    load_card(source)
    if target.exists() and target.samefile(source):
        return
    card_path(target).unlink(missing_ok=True)
    with source.open("rb") as content, atomic_write(target) as file:
        shutil.copyfileobj(content, file, BLOCK_BYTES)
    write_bytes(card_path(target), card_path(source).read_bytes())


def load_card(path: Path) -> DatasetCard:
    """The card of a data file. Raises DataError if it is missing or damaged."""
    return read_card(card_path(path))


def verify_checksum(path: Path) -> None:
    """Reads the whole file and compares its SHA-256 with the card's.

    Raises:
        DataError: if they differ.
    """
    expected, found = load_card(path).data_sha256, sha256_of(path)
    if found != expected:
        raise DataError(
            f"{path}: SHA-256 is {found[:16]}..., and its card says {expected[:16]}...: the file was changed or "
            "damaged after it was written. Delete both files and build the dataset again."
        )


# -- writing -------------------------------------------------------------------------------------------------------


def _require_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise DataError(f"{path} must end in .safetensors; its card goes to the same name with .json.")


def _header(columns: Mapping[str, NDArray[Any]], spec: TaskSpec) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": FILE_FORMAT, "spec": json.dumps(_spec_to(spec))}}
    offset = 0
    for name, column in columns.items():
        entries[name] = {
            "dtype": _NAMES[column.dtype],
            "shape": list(column.shape),
            "data_offsets": [offset, offset + column.nbytes],
        }
        offset += column.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8, the widest first: all are aligned
    return len(text).to_bytes(8, "little") + text


def _spec_to(spec: TaskSpec) -> dict[str, Any]:
    """Without score references: those are the task's own, and may be measured again."""
    return {name: value for name, value in asdict(spec).items() if name != "score_references"}


# -- reading: nothing in the file is trusted -------------------------------------------------------------------------


def _map(path: Path) -> NDArray[np.uint8]:
    try:
        if path.stat().st_size < 8:
            raise DataError(f"{path} has {path.stat().st_size} bytes; a dataset file has more. It was cut off.")
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error


def _read_header(content: NDArray[np.uint8], path: Path) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(content[:8].tobytes(), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise DataError(f"{path}: a header of {length} bytes does not fit a file of {len(content)}. It is damaged.")
    try:
        entries = json.loads(content[8 : 8 + length].tobytes().decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the header is not valid JSON ({error}). The file is damaged.") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path}: the header is a {type(entries).__name__}, expected an object of tensors.")
    return entries, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _columns(entries: Mapping[str, Any], data: NDArray[np.uint8], path: Path) -> dict[str, NDArray[Any]]:
    columns, spans = {}, []
    for name, entry in entries.items():
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if dtype in _DTYPES:
                pass
            case _:
                raise DataError(
                    f"{path}: tensor {name!r} is described by {str(entry)[:100]}; expected a dtype of "
                    f"{', '.join(_DTYPES)}, a shape and two data_offsets."
                )
        if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape) or len(shape) > 8:
            raise DataError(f"{path}: tensor {name!r} has the impossible shape {str(shape)[:100]}.")
        if not 0 <= begin <= end <= len(data):
            raise DataError(
                f"{path}: tensor {name!r} lies at bytes {begin} to {end} of {len(data)}: out of the file. "
                "It was cut off or damaged; build the dataset again."
            )
        kind = np.dtype(_DTYPES[dtype])
        size = kind.itemsize
        for axis in shape:
            size *= axis  # Python integers: no overflow
        if size != end - begin:
            raise DataError(f"{path}: tensor {name!r} of shape {shape} needs {size} bytes and has {end - begin}.")
        try:
            columns[name] = data[begin:end].view(kind).reshape(shape)
        except ValueError as error:  # empty, with other axes too large for numpy
            raise DataError(f"{path}: tensor {name!r} has the impossible shape {str(shape)[:100]}.") from error
        spans.append((begin, end, name))
    previous = 0
    for begin, end, name in sorted(spans):
        if begin != previous:
            raise DataError(f"{path}: tensor {name!r} starts at byte {begin}, where {previous} was expected.")
        previous = end
    if previous != len(data):
        raise DataError(f"{path}: {len(data) - previous} bytes follow the last tensor. The file is damaged.")
    return columns


def _spec_from(document: Any, path: Path) -> TaskSpec:
    if not isinstance(document, dict) or document.get("format") != FILE_FORMAT:
        raise DataError(f"{path} is no AugMARL dataset: its metadata lack format={FILE_FORMAT!r}.")
    try:
        fields = json.loads(document["spec"])
        action = fields.pop("action")
        return TaskSpec(
            **{
                **fields,
                "action": ActionSpec(**{**action, "names": tuple(action["names"])}),
                "agent_groups": tuple(map(tuple, fields["agent_groups"])),
                "observation_features": tuple(fields["observation_features"]),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: the stored task is damaged ({type(error).__name__}: {error}).") from error


def _require_same_task(stored: TaskSpec, spec: TaskSpec, path: Path) -> None:
    for name in ("id", "engine", "engine_version", "variant", "n_agents", "obs_dim", "state_dim", "action"):
        ours, theirs = getattr(spec, name), getattr(stored, name)
        if ours != theirs:
            raise DataError(
                f"{path} was recorded with {name}={theirs!r}, and the task has {name}={ours!r}: "
                "another decision process. Build the dataset for this task."
            )
