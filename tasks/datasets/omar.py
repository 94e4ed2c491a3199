"""OMAR's folders of numpy files, read and written (OMAR main.py and utils/buffer.py).

    <env>/<data type>/seed_<s>_data/  obs_i, acs_i, rews_i, next_obs_i, dones_i (.npy) for every agent i

Rows are one long line of episodes of 25 steps. The environment never sets a done flag, so the line is cut every 25
rows and each episode ends in a truncation; its last `next_obs` becomes the final observation row. In tag and world
the prey is a further agent, whose files are ignored: the prey is part of the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError, UsageError
from tasks.common.files import atomic_write
from tasks.datasets.offline import BEHAVIOURS, OfflineDataset
from tasks.spec import TaskSpec

KINDS = ("obs", "acs", "rews", "next_obs", "dones")
SAME = 1e-5
"""Largest difference of `next_obs` and the following `obs`; OMAR stores both from one float64 array."""


def read(folder: Path, spec: TaskSpec) -> OfflineDataset:
    """The dataset of a `seed_<s>_data` folder. Nothing is unpickled, nothing outside the folder is opened.

    Raises:
        UsageError: if the folder has no such files, or the task's actions are discrete.
        DataError: if files are damaged or disagree with each other or with the task; the message has both sizes.
    """
    if spec.action.discrete:
        raise UsageError(f"OMAR's data have continuous actions, and {spec.id} has discrete ones. Pick that variant.")
    _require_folder(folder)
    columns = {kind: _stack(folder, kind, spec) for kind in KINDS}
    obs, next_obs, dones = columns["obs"], columns["next_obs"], columns["dones"].astype(bool)
    n_steps, limit = len(obs), spec.episode_limit
    last = np.zeros(n_steps, dtype=np.bool_)
    last[limit - 1 :: limit] = True
    last[-1] = True
    _refuse(dones.any(axis=1) & ~last, folder, "a `dones` flag inside an episode", f"at multiples of {limit} rows only")
    gap = np.zeros(n_steps, dtype=np.bool_)
    gap[:-1] = np.abs(obs[1:] - next_obs[:-1]).max(axis=(1, 2)) > SAME
    _refuse(gap & ~last, folder, "a `next_obs` that is not the next row's `obs`", f"episodes of {limit} rows")
    starts = np.append(np.arange(0, n_steps, limit), n_steps).astype(np.int64)
    observations = np.empty((n_steps + len(starts) - 1, *obs.shape[1:]), dtype=np.float32)
    final = starts[1:] + np.arange(len(starts) - 1)  # the last row of each episode
    steps = np.delete(np.arange(len(observations)), final)
    observations[steps], observations[final] = obs, next_obs[last]
    data = OfflineDataset(
        spec=spec,
        observations=observations,
        actions=columns["acs"],
        rewards=columns["rews"],
        terminals=np.zeros(n_steps, dtype=np.bool_),
        truncations=last,
        episode_starts=starts,
        states=_states(observations, spec),
        behaviour=_behaviour(folder, n_steps, spec.n_agents),
    )
    data.validate()
    return data


def write(data: OfflineDataset, folder: Path) -> None:
    """The same layout, for the learning agents; a prey's files cannot be written, its observations are not stored.

    Raises:
        UsageError: if actions are discrete, or episodes have other lengths than the task's limit: OMAR's line of
            rows could not be cut again.
        StorageError: if a file cannot be written; files are written whole, one by one.
    """
    spec = data.spec
    if spec.action.discrete:
        raise UsageError(f"OMAR's layout has continuous actions, and {spec.id} has discrete ones.")
    short = np.flatnonzero(data.lengths[:-1] != spec.episode_limit)
    if short.size or (data.lengths > spec.episode_limit).any() or data.terminals.any():
        raise UsageError(
            f"{spec.id}: OMAR's layout has no episode borders, so every episode must have {spec.episode_limit} steps "
            f"and no true end (episode {int(short[0]) if short.size else 0} differs)."
        )
    rows = data.row_of_step()
    for agent in range(spec.n_agents):
        _save(folder, f"obs_{agent}", data.observations[rows, agent])
        _save(folder, f"acs_{agent}", data.actions[:, agent])
        _save(folder, f"rews_{agent}", data.rewards[:, agent])
        _save(folder, f"next_obs_{agent}", data.observations[rows + 1, agent])
        _save(folder, f"dones_{agent}", data.terminals)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Expected a `seed_<s>_data` folder of OMAR's .npy files.")
    if not (folder / "obs_0.npy").exists():
        found = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("**/obs_0.npy"))[:5]
        hint = f"Did you mean one of its folders {', '.join(found)}?" if found else "None is below it either."
        raise UsageError(f"{folder} holds no obs_0.npy. {hint}")


def _stack(folder: Path, kind: str, spec: TaskSpec) -> NDArray[Any]:
    """One kind of file of all learning agents: (S, N, ...) float32."""
    width = {"obs": (spec.obs_dim,), "next_obs": (spec.obs_dim,), "acs": (spec.action.size,)}.get(kind, ())
    arrays: list[NDArray[Any]] = []
    for agent in range(spec.n_agents):
        path = folder / f"{kind}_{agent}.npy"
        array = _open(path, folder)
        if array.shape[1:] == (1,) and not width:  # rewards and flags also occur as columns
            array = array[:, 0]
        if array.ndim != 1 + len(width) or array.shape[1:] != width:
            raise DataError(f"{path} has shape {array.shape}; {spec.id} needs (rows, {', '.join(map(str, width))}).")
        expected = len(arrays[0]) if arrays else len(_open(folder / "obs_0.npy", folder))
        if len(array) != expected:
            raise DataError(
                f"{path} has {len(array)} rows and {folder / 'obs_0.npy'} has {expected}. All files of a folder "
                "must have the same number."
            )
        if not len(array):
            raise DataError(f"{path} has no rows.")
        arrays.append(array)
    return np.stack(arrays, axis=1).astype(np.float32, copy=False)


def _open(path: Path, folder: Path) -> NDArray[Any]:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path} points outside {folder}, to {path.resolve()}. Copy the file into the folder.")
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # refuses objects, archives and pickles
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(
            f"{path} is no readable .npy file of numbers ({error}). Pickled objects are refused."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim == 0:
        raise DataError(f"{path} holds {getattr(array, 'dtype', type(array))}, expected an array of numbers.")
    return array


def _refuse(bad: NDArray[np.bool_], folder: Path, what: str, expected: str) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{folder}: {int(bad.sum())} rows have {what} (first: row {first}); expected {expected}. "
            "Is this folder of another task?"
        )


def _states(observations: NDArray[np.float32], spec: TaskSpec) -> NDArray[np.float32] | None:
    """OMAR stores no MPE state; there it is all observations of the learning agents in a row."""
    if spec.state_dim is None:
        return None
    if spec.state_dim != spec.n_agents * spec.obs_dim:
        raise UsageError(
            f"{spec.id} has a state of {spec.state_dim} numbers that its {spec.n_agents} x {spec.obs_dim} observations "
            "do not give. Only MPE folders can be imported."
        )
    return observations.reshape(len(observations), spec.state_dim)


def _behaviour(folder: Path, n_steps: int, n_agents: int) -> NDArray[np.int8]:
    """Who acted, from the folder's own name; unknown where that says nothing."""
    kind = {"medium-replay": "learner"}.get(data_type(folder), data_type(folder))
    code = BEHAVIOURS.index(kind) if kind in BEHAVIOURS else -1
    return np.full((n_steps, n_agents), code, dtype=np.int8)


def data_type(folder: Path) -> str:
    """`expert` of `.../simple_spread/expert/seed_0_data`; the folder's own name where that is not the layout."""
    folder = folder.resolve()
    return folder.parent.name if folder.name.startswith("seed_") else folder.name


def _save(folder: Path, name: str, array: NDArray[Any]) -> None:
    with atomic_write(folder / f"{name}.npy") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
