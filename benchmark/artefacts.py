"""The content-addressed store: an artefact is a folder under its key's digest, there whole or not at all.

A folder is filled under a temporary name and renamed, so a reader never meets half of one. `meta.json` holds the
parts of the key in full, checksums of all files, the method's source digest and what making it cost.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock
from numpy.typing import NDArray

from benchmark.keys import STAGES, Key, Stage, changed_parts
from tasks.common.errors import StorageError
from tasks.common.files import sha256_of, write_bytes

META = "meta.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What making an artefact took. `together`: replicates made in the same program, which share `wall_seconds`."""

    wall_seconds: float
    peak_memory_bytes: int | None = None
    together: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A stored artefact: its folder and what its `meta.json` says."""

    folder: Path
    parts: Mapping[str, Any]
    files: Mapping[str, str]
    cost: Cost
    source_digest: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The key's digest."""
        return self.folder.name

    def damaged_file(self) -> str | None:
        """The first file whose content does not match its checksum, or None. Reads everything."""
        for name, checksum in self.files.items():
            path = self.folder / name
            if not path.is_file() or sha256_of(path) != checksum:
                return name
        return None


@dataclass(slots=True)
class Draft:
    """An artefact that is being made: fill `folder`, and set what is known when the work is done."""

    folder: Path
    cost: Cost | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class ArtefactStore:
    """All artefacts of one AUGMARL_HOME. Safe to share between processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "artefacts"

    def folder(self, key: Key) -> Path:
        """Where the artefact of a key is, or would be."""
        digest = key.digest
        return self.root / key.stage / digest[:2] / digest

    def find(self, key: Key) -> Artefact | None:
        """The stored artefact of a key, or None. Reads its `meta.json` alone."""
        return self._read(self.folder(key))

    def find_digest(self, stage: Stage, digest: str) -> Artefact | None:
        """The stored artefact of a key of which only the digest is known, or None."""
        return self._read(self.root / stage / digest[:2] / digest)

    def find_intact(self, key: Key) -> Artefact | None:
        """The same after comparing all checksums; a damaged artefact is removed, so that it is made again."""
        artefact = self.find(key)
        if artefact is None or artefact.damaged_file() is None:
            return artefact
        self.remove(artefact)
        return None

    def lock(self, key: Key) -> BaseFileLock:
        """A lock between processes on making this artefact; the system releases it if its holder dies.

        Raises:
            StorageError: if the file of the lock cannot be made (a full or read-only disk).
        """
        path = self.home / "locks" / f"{key.stage}-{key.digest[:32]}.lock"
        with _storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return FileLock(path)

    @contextmanager
    def writing(self, key: Key, source_digest: str | None = None) -> Iterator[Draft]:
        """A draft whose folder becomes the artefact when the block ends well, and vanishes otherwise.

        Raises:
            StorageError: if a file cannot be written whole (a full disk); nothing is then stored.
        """
        final = self.folder(key)
        with _storing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{final.name[:16]}.", suffix=".tmp", dir=final.parent))
        try:
            draft = Draft(temporary)
            yield draft  # what the block raises is its own affair: a plugin's OSError is no full disk
            with _storing(final):
                meta = {
                    "key": key.document(),
                    "files": {path.name: sha256_of(path) for path in sorted(temporary.iterdir())},
                    "cost": asdict(draft.cost or Cost(wall_seconds=0.0)),
                    "source_digest": source_digest,
                    "notes": draft.notes,
                }
                write_bytes(temporary / META, json.dumps(meta, indent=1, sort_keys=True, allow_nan=False).encode())
                temporary.chmod(0o755)
                if self.find(key) is not None:  # somebody without our lock was faster: equal keys hold equal content
                    return
                if final.exists():  # what is left of an unreadable one
                    shutil.rmtree(final)
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def stored(self, stage: Stage) -> Iterator[Artefact]:
        """All artefacts of a stage, in digest order."""
        for folder in sorted((self.root / stage).glob("??/" + "?" * 64)):
            artefact = self._read(folder)
            if artefact is not None:
                yield artefact

    def nearest(self, key: Key) -> tuple[Artefact, list[str]] | None:
        """The stored artefact of the same stage whose parts differ least from the key's, with the differences."""
        document = key.document()
        candidates = ((artefact, changed_parts(document, artefact.parts)) for artefact in self.stored(key.stage))
        return min(candidates, key=lambda candidate: len(candidate[1]), default=None)

    def remove(self, artefact: Artefact) -> None:
        """Deletes an artefact whole: it is renamed first, so nobody meets half of it. One that is gone is no error.

        Raises:
            StorageError: if it cannot be removed (a read-only disk).
        """
        doomed = artefact.folder.with_name(f".{artefact.digest[:16]}.{os.getpid()}.tmp")
        with _storing(artefact.folder), suppress(FileNotFoundError):
            artefact.folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sizes(self) -> dict[Stage, tuple[int, int]]:
        """(artefacts, bytes) of every stage."""
        sizes: dict[Stage, tuple[int, int]] = {}
        for stage in STAGES:
            folders = [artefact.folder for artefact in self.stored(stage)]
            sizes[stage] = (len(folders), sum(f.stat().st_size for folder in folders for f in folder.iterdir()))
        return sizes

    def remove_leftovers(self) -> int:
        """Deletes temporary folders that killed processes left behind; returns how many."""
        leftovers = list(self.root.glob("*/??/.*.tmp"))
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)
        return len(leftovers)

    def _read(self, folder: Path) -> Artefact | None:
        try:
            meta = json.loads((folder / META).read_bytes())
            return Artefact(
                folder=folder,
                parts=meta["key"],
                files=meta["files"],
                cost=Cost(**meta["cost"]),
                source_digest=meta["source_digest"],
                notes=meta["notes"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent, or not readable: made again


@contextmanager
def _storing(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Could not store the artefact {final}: {error.strerror or error}. Nothing was changed. Free some "
            "space (`bench cache prune`) or set AUGMARL_HOME to another disk, then run again; it resumes."
        ) from error


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes named arrays as safetensors, whole or not at all. Raises StorageError."""
    from safetensors.numpy import save

    # `ascontiguousarray` would turn a single number into a list of one
    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    write_bytes(path, content)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads what `save_arrays` wrote."""
    from safetensors.numpy import load

    return load(path.read_bytes())
