"""OG-MARL's vaults, read and written: flashbax's format, through tensorstore alone.

    <scenario>.vlt/<uid>/   metadata.json, and one OCDBT database of zarr arrays, an array a leaf

A leaf is (1, 10^13, ...), of which the first `vault_index` steps are filled. Time is one long line of episodes; one
ends where all agents' terminals or all their truncations are set. What an agent sees after its last action is not
stored; its last observation stands in for it, which matters only behind a truncation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError, MissingDependencyError, UsageError
from tasks.common.files import write_bytes
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_CAPACITY = 10**13  # flashbax's length of the time axis
_ILLEGAL_SHARE = 0.01  # of recorded actions that the recorded masks forbid: beyond it, these are not the masks
_VERSION = 1.2  # flashbax 0.1.3


@dataclass(frozen=True, slots=True)
class Imported:
    """A dataset, and what had to be assumed of it, a sentence each."""

    data: OfflineDataset
    notes: tuple[str, ...]


def read(folder: Path, spec: TaskSpec, win_bonus: float | None = None) -> Imported:
    """The dataset of a vault's uid folder. Nothing is unpickled, nothing outside the folder is opened.

    Args:
        folder: with `metadata.json`.
        spec: the task that it was recorded in.
        win_bonus: the least reward of a victory, by which won episodes are told, where a win is defined.

    Raises:
        UsageError: if this is no such folder.
        DataError: if a field is missing, has another type or size than the task's, or values are not finite.
        MissingDependencyError: without tensorstore.
    """
    leaves = _Leaves(folder, spec)
    observations = leaves.floats("observations", (spec.n_agents, spec.obs_dim))
    rewards = leaves.floats("rewards", (spec.n_agents,))
    terminals: NDArray[np.bool_] = np.asarray(leaves.flags("terminals").all(axis=1))
    truncations: NDArray[np.bool_] = np.asarray(leaves.flags("truncations").all(axis=1)) & ~terminals
    notes = []
    if not (terminals[-1] or truncations[-1]):
        truncations[-1] = True
        notes.append("The last episode has no end and is cut where the vault ends.")
    ends = terminals | truncations
    rows = np.repeat(np.arange(len(ends)), 1 + ends)  # the last observation of an episode twice
    columns: dict[str, Any] = {"observations": observations[rows], "actions": leaves.actions()}
    if spec.action.discrete:
        legal = leaves.flags("infos.legals", (spec.n_agents, spec.action.size))
        notes += _allow_what_was_done(legal, columns["actions"], folder)
        columns["available_actions"] = legal[rows]
        if spec.has_deaths:
            columns["alive"] = _alive(columns, spec)
    if spec.state_dim is not None:
        columns["states"] = leaves.floats("infos.state", (spec.state_dim,))[rows]
    if spec.has_win:
        columns["won"] = _won(spec, rewards, terminals, ends, win_bonus)
        notes.append("Vaults do not say who won: an episode counts as won where its last reward holds a victory's.")
    data = OfflineDataset(
        spec=spec,
        **columns,
        rewards=rewards,
        terminals=terminals,
        truncations=truncations,
        episode_starts=np.concatenate([[0], np.flatnonzero(ends) + 1]).astype(np.int64),
    )
    data.validate()
    return Imported(data, tuple(notes))


def write(data: OfflineDataset, folder: Path) -> None:
    """The episodes as a vault, without the last observation of each, for which vaults have no place.

    Raises:
        UsageError: if the folder holds a vault already, or there is nothing to write.
        MissingDependencyError: without tensorstore.
    """
    if (folder / "metadata.json").exists():
        raise UsageError(f"{folder} holds a vault already. Choose another folder, or remove it.")
    if not data.n_steps:
        raise UsageError(f"{data.spec.id}: a vault of no steps cannot be written.")
    n, rows = data.spec.n_agents, data.row_of_step()
    leaves: dict[str, NDArray[Any]] = {
        "observations": data.observations[rows],
        "actions": data.actions,
        "rewards": data.rewards,
        "terminals": np.repeat(data.terminals[:, None], n, axis=1),
        "truncations": np.repeat(data.truncations[:, None], n, axis=1),
    }
    if data.available_actions is not None:
        leaves["infos.legals"] = data.available_actions[rows].astype(np.float32)
    if data.states is not None:
        leaves["infos.state"] = data.states[rows]
    for name, values in leaves.items():
        _create(folder, f"{name}.", values[None], (1, _CAPACITY, *values.shape[1:]))
    _create(folder, "vault_index", np.array([data.n_steps], dtype=np.int32), (1,))
    metadata = {
        "version": _VERSION,
        "structure_shape": _nested({name: str((1, *values.shape)) for name, values in leaves.items()}),
        "structure_dtype": _nested({name: str(values.dtype) for name, values in leaves.items()}),
    }
    write_bytes(folder / "metadata.json", json.dumps(metadata).encode())


# -- reading -------------------------------------------------------------------------------------------------------


class _Leaves:
    """The arrays of a vault, checked against a task."""

    def __init__(self, folder: Path, spec: TaskSpec) -> None:
        self._folder, self._spec = folder, spec
        self._names = set(_flat(_metadata(folder)["structure_shape"]))
        index = np.asarray(_open(folder, "vault_index").read().result()).reshape(-1)
        self._count = int(index[0]) if index.size == 1 else 0
        if self._count < 1:
            raise DataError(f"{folder}: the vault says that it holds {index.tolist()} steps, expected one or more.")

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Numbers (S, *shape) in single precision."""
        values = self._read(name, shape)
        if values.dtype not in (np.float32, np.float64):
            raise DataError(
                f"{self._folder}: {name} has dtype {values.dtype}, expected float32. What half precision has lost "
                "cannot be had back: record or download the data again."
            )
        return values.astype(np.float32, copy=False)

    def flags(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
        """Zeros and ones (S, *shape); of every agent by default."""
        values = self._read(name, (self._spec.n_agents,) if shape is None else shape)
        if values.dtype != np.bool_ and not np.isin(values, (0, 1)).all():
            raise DataError(f"{self._folder}: {name} has values other than 0 and 1.")
        return values.astype(np.bool_)

    def actions(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """(S, N) choices or (S, N, A) numbers."""
        spec = self._spec
        if not spec.action.discrete:
            return self.floats("actions", (spec.n_agents, spec.action.size))
        values = self._read("actions", (spec.n_agents,))
        if values.dtype.kind not in "iu":
            raise DataError(f"{self._folder}: actions have dtype {values.dtype}, expected whole numbers.")
        return values.astype(np.int64)

    def _read(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if name not in self._names:
            raise DataError(f"{self._folder}: the vault has no {name}. It has: {', '.join(sorted(self._names))}.")
        leaf = _open(self._folder, f"{name}.")
        found = tuple(leaf.shape[2:])
        if found != shape:
            raise DataError(
                f"{self._folder}: {name} has {found} numbers a step, and {self._spec.id} needs {shape}. Is it another "
                "task, or another engine?"
            )
        if leaf.shape[0] != 1 or leaf.shape[1] < self._count:
            raise DataError(f"{self._folder}: {name} has shape {tuple(leaf.shape)}, too short for {self._count} steps.")
        values: NDArray[Any] = np.asarray(leaf[:, : self._count].read().result())[0]
        return values


def _metadata(folder: Path) -> Mapping[str, Any]:
    if not (folder / "metadata.json").is_file():
        uids = sorted(path.parent.name for path in folder.glob("*/metadata.json"))
        hint = f"Did you mean one of its folders {', '.join(uids)}?" if uids else "None is directly below it either."
        raise UsageError(f"{folder} is no vault: it has no metadata.json. {hint}")
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        major, shapes = int(float(metadata["version"])), metadata["structure_shape"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'metadata.json'} cannot be read: {type(error).__name__}: {error}.") from error
    if major != 1 or not isinstance(shapes, dict):
        raise DataError(f"{folder}: a vault of version {metadata['version']}; versions 1.x are understood.")
    return dict(metadata)


def _allow_what_was_done(legal: NDArray[np.bool_], actions: NDArray[np.int64], folder: Path) -> list[str]:
    """Adds the recorded actions to the masks, in place; a few are missing in recordings, and many mean stale masks."""
    if (actions < 0).any() or (actions >= legal.shape[-1]).any():
        raise DataError(
            f"{folder}: actions reach from {actions.min()} to {actions.max()}, expected 0 to {legal.shape[-1] - 1}."
        )
    illegal = ~np.take_along_axis(legal, actions[..., None], axis=-1)[..., 0]
    share = float(illegal.mean())
    if share > _ILLEGAL_SHARE:
        raise DataError(
            f"{folder}: {100 * share:.1f}% of the actions are not legal by infos.legals, more than "
            f"{100 * _ILLEGAL_SHARE:g}%. The masks belong to other steps."
        )
    np.put_along_axis(legal, actions[..., None], True, axis=-1)
    return [f"{int(illegal.sum())} actions were not legal by the recorded masks, and are now."] if share else []


def _alive(columns: Mapping[str, Any], spec: TaskSpec) -> NDArray[np.bool_]:
    """The dead, and they alone, have no-op; without one they see nothing."""
    if "no_op" in spec.action.names:
        return np.asarray(~columns["available_actions"][..., spec.action.names.index("no_op")])
    return np.asarray(columns["observations"].any(axis=-1))


def _won(
    spec: TaskSpec,
    rewards: NDArray[np.float32],
    terminals: NDArray[np.bool_],
    ends: NDArray[np.bool_],
    bonus: float | None,
) -> NDArray[np.bool_]:
    if bonus is None:
        raise UsageError(f"{spec.id}: it is not known what a victory pays there, so a vault cannot be imported.")
    return np.asarray((spec.fold_rewards(rewards) >= bonus - 1e-3) & terminals)[ends]


# -- arrays in the database ----------------------------------------------------------------------------------------


def _tensorstore() -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise MissingDependencyError("Vaults need tensorstore: pip install 'augmarl[vault]'.") from error
    return tensorstore


def _spec_of(folder: Path, key: str) -> dict[str, Any]:
    base = f"file://{folder.resolve()}"
    return {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": key}}


def _open(folder: Path, key: str) -> Any:
    ts = _tensorstore()
    try:
        return ts.open(_spec_of(folder, key), read=True).result()
    except ValueError as error:
        raise DataError(f"{folder}: {key.rstrip('.')} cannot be read from the vault: {error}.") from error


def _create(folder: Path, key: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    ts = _tensorstore()
    spec = {**_spec_of(folder, key), "metadata": {"compressor": {"id": "gzip", "level": 5}}}
    dtype = ts.dtype(values.dtype)
    leaf = ts.open(spec, create=True, dtype=dtype, shape=shape).result()
    target = leaf if len(shape) == 1 else leaf[:, : values.shape[1]]
    target.write(values).result()


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`infos.legals` of {"infos": {"legals": ...}}."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _nested(flat: Mapping[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        inner = result
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return result
