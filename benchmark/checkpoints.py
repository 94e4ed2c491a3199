"""Checkpoints of long fits and generations: one file each under AUGMARL_HOME, there whole or not at all, never trusted.

A file is found by the keys of the fits that are trained together, and is good only for the code that wrote it: a fit
that goes on under other code would be neither of the two. What is damaged or of another fit is passed over with a
note in the log, and the fit starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.keys import Key
from methods.run import Arrays
from tasks.common.errors import StorageError
from tasks.common.files import write_bytes

FOLDER = "checkpoints"
FORMAT = "augmarl-checkpoint-1"
DEFAULT_SECONDS = 60.0
MAX_SHARE = 0.05
"""Of the time that saving may take: a state of gigabytes is saved less often than the interval says."""
OLD_SECONDS = 7 * 24 * 3600.0
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class FitCheckpoint:
    """The place of one fit, or of several that are trained together; a `methods.run.Checkpoint`.

    Attributes:
        path: of the file.
        identity: what a file must say of itself to be loaded: keys, source, kind of device.
        seconds: between two saves; 0: at every opportunity, whatever it costs.
        clock: seconds that only grow.
        spent: seconds of the fit before this process, known after the first `load`.
    """

    path: Path
    identity: Mapping[str, str]
    seconds: float = DEFAULT_SECONDS
    clock: Callable[[], float] = time.monotonic
    spent: float = field(default=0.0, init=False)
    _started: float = field(init=False)
    _since: float = field(init=False)
    _wait: float = field(init=False)
    _ours: bool = field(default=False, init=False)  # whether this process has saved, so that the file holds its seconds

    def __post_init__(self) -> None:
        self._started = self._since = self.clock()
        self._wait = self.seconds

    def due(self) -> bool:
        """Whether the interval is over since the last save, or since the start."""
        return self.clock() - self._since >= self._wait

    def save(self, arrays: Arrays) -> None:
        """Stores the arrays, whole or not at all. Where that fails the fit goes on, with a warning in the log."""
        from safetensors.numpy import save

        started = self.clock()
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        spent = f"{self.spent + started - self._started:.3f}"
        try:
            metadata = {**self.identity, "format": FORMAT, "spent": spent, "sha256": _digest(plain)}
            write_bytes(self.path, save(plain, metadata))
        except StorageError as error:
            _LOG.warning("No checkpoint was kept: %s", error)
        else:
            self._ours = True
        self._since = self.clock()
        self._wait = max(self.seconds, (self._since - started) / MAX_SHARE) if self.seconds else 0.0

    def load(self) -> dict[str, NDArray[Any]] | None:
        """The arrays of the last save, or None where there is none or it cannot be used."""
        if not self.path.exists():
            return None
        try:
            arrays, reason = self._read()
        except Exception as error:  # a damaged file can fail in any way
            arrays, reason = {}, f"it is damaged ({type(error).__name__}: {error})"
        if reason is not None:
            _LOG.warning("The checkpoint %s is not used: %s. The fit starts afresh.", self.path.name, reason)
            return None
        if not self._ours:
            _LOG.info("Going on from the checkpoint %s", self.path.name)
        return arrays

    @property
    def folder(self) -> Path:
        """For what is too large to be stored again and again; it need not exist, and goes with the file."""
        return self.path.with_suffix("")

    def discard(self) -> None:
        """Deletes the file and the folder; what is not there is no error."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> tuple[dict[str, NDArray[Any]], str | None]:
        """The arrays, and why they must not be used, or None."""
        from safetensors.numpy import load

        content = self.path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        for name, expected in {"format": FORMAT, **self.identity}.items():
            if metadata.get(name) != expected:
                return {}, f"its {name} is another"
        arrays = load(content)
        if _digest(arrays) != metadata.get("sha256"):
            return {}, "its checksum is wrong"
        if not self._ours:
            self.spent = float(metadata["spent"])
        return arrays, None


def checkpoint_of(home: Path, keys: Sequence[Key], *, source: str, device: str, seconds: float) -> FitCheckpoint:
    """The checkpoint of fits that are trained together, in the order of their keys.

    Args:
        home: AUGMARL_HOME.
        keys: of the fits, one a member.
        source: digest of the method's code.
        device: a torch device string; its number does not matter, its kind does.
        seconds: between two saves.
    """
    fits = hashlib.sha256(" ".join(key.digest for key in keys).encode()).hexdigest()
    identity = {"fits": fits, "source": source, "device": device.partition(":")[0]}
    return FitCheckpoint(home / FOLDER / f"{fits}.safetensors", identity, seconds)


def stored_checkpoints(home: Path) -> list[Path]:
    """The files of all fits and generations that were stopped, or go on right now."""
    return sorted((home / FOLDER).glob("*.safetensors"))


def stored_bytes(path: Path) -> int:
    """Of one of these files, with the folder beside it."""
    return sum(file.stat().st_size for file in (path, *path.with_suffix("").glob("*")))


def prune_checkpoints(home: Path, older_than_seconds: float = OLD_SECONDS) -> int:
    """Deletes checkpoints that nobody came back to, and what killed saves left; returns how many files and folders."""
    oldest, removed = time.time() - older_than_seconds, 0
    leftovers, gone = set((home / FOLDER).glob(".*.tmp")), set[Path]()
    for path in (*stored_checkpoints(home), *leftovers):
        if path in leftovers or path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            gone.add(path)
            removed += 1
    for folder in (path for path in (home / FOLDER).glob("*") if path.is_dir()):
        file = folder.with_suffix(".safetensors")  # without it nobody goes on
        if not file.exists() and (folder.stat().st_mtime < oldest or file in gone):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of names, types, shapes and values."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()
