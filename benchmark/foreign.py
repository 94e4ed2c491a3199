"""Data of other projects, brought in and taken out: OMAR's folders and OG-MARL's vaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.base import Task
from tasks.common.errors import UsageError
from tasks.datasets import omar, vault
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.vault_hub import VaultName, obtain_vault
from tasks.registry import make_task
from tasks.smac.real import real_battle
from tasks.smac.task import SMACTask, StarCraftTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Foreign data, and what their card and their user should be told.

    Attributes:
        name: of the dataset, e.g. `omar-expert`.
        regime: what their own project calls it.
        origin: where they lay, without what is private of this machine.
        notes: a sentence each.
    """

    data: OfflineDataset
    name: str
    regime: str
    origin: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """How a project's data are read and written.

    `read` takes a folder or the name of a vault, the task or None where the place says it, and the folder of vaults. It
    raises UsageError where place or task do not fit the format, and DataError where the data do not fit the task.
    """

    read: Callable[[str, str | None, Path], Brought]
    write: Callable[[OfflineDataset, Path], None]


def _read_omar(place: str, task: str | None, vaults: Path) -> Brought:
    folder, built = Path(place), _named(task, "OMAR's folders do not say")
    data, kind = omar.read(folder, built.spec), omar.data_type(folder)
    notes = []
    if (folder / f"obs_{built.spec.n_agents}.npy").exists():
        notes.append(
            "the folder has a further agent, the prey. It moved by OMAR's own policy, ours moves by another: policies "
            "learned from these data are evaluated in a slightly different task, and a replay will differ."
        )
    return Brought(data=data, name=f"omar-{kind}", regime=kind, origin=folder.name, notes=tuple(notes))


def _read_vault(place: str, task: str | None, vaults: Path) -> Brought:
    folder = Path(place)
    if folder.is_dir():
        built, origin = _named(task, "a vault's folder does not say"), f"{folder.parent.name}/{folder.name}"
    else:
        name = VaultName.parse(place)
        built, origin = make_task(task or name.task()), str(name)
        folder = obtain_vault(name, vaults)
    imported = vault.read(folder, built.spec, _win_bonus(built))
    notes = list(imported.notes)
    if missing := built.unavailable():
        notes.append(f"policies can be learned from these data, but not evaluated on this machine: {missing}.")
    regime = folder.name.lower()
    return Brought(data=imported.data, name=f"og-marl-{regime}", regime=regime, origin=origin, notes=tuple(notes))


def _win_bonus(task: Task) -> float | None:
    """The least reward of a victory, where a task has one."""
    if isinstance(task, StarCraftTask):
        return task.battle.smallest_win_bonus
    if isinstance(task, SMACTask):
        return 10.0 if task.parameters["reward"] == "smax10" else real_battle(task.name).smallest_win_bonus
    return None


FORMATS = {"omar": Format(_read_omar, omar.write), "og-marl": Format(_read_vault, vault.write)}


def _named(task: str | None, why: str) -> Task:
    if task is None:
        raise UsageError(f"Which task were the data recorded in? {why}: give --task.")
    return make_task(task)
