"""OG-MARL's vaults by name: where they lie on this machine, and how they get there.

A name is `GROUP/SCENARIO/UID`, e.g. `smac_v1/3m/Good`. Archives come from OG-MARL's hub through huggingface_hub, at the
revision and with the checksum of the first download, which `pins.json` keeps.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.common.errors import DataError, MissingDependencyError, StorageError, UnknownNameError, UsageError
from tasks.common.files import sha256_of, write_bytes
from tasks.smac.maps import BATTLES

REPOSITORY = "InstaDeepAI/og-marl"
GROUPS = {
    "smac_v1": "core/smac_v1",
    "smac_v2": "core/smac_v2",
    "mamujoco": "core/mamujoco",
    "gymnasium_mamujoco": "core/gymnasium_mamujoco",
    "omar": "prior_work/omar/mpe",
}
"""Folders of the hub, by group."""
_OMAR_TASKS = {"simple_spread": "mpe/spread", "simple_tag": "mpe/tag", "simple_world": "mpe/world"}


@dataclass(frozen=True, slots=True)
class VaultName:
    """One vault of OG-MARL."""

    group: str
    scenario: str
    uid: str

    @classmethod
    def parse(cls, text: str) -> VaultName:
        """Reads `GROUP/SCENARIO/UID`.

        Raises:
            UsageError: if it has another form, or the group is unknown.
        """
        parts = text.split("/")
        if len(parts) != 3 or not all(part and part not in (".", "..") for part in parts):
            raise UsageError(
                f"{text!r} names no vault. Expected GROUP/SCENARIO/UID, e.g. smac_v1/3m/Good, or a folder."
            )
        if parts[0] not in GROUPS:
            raise UnknownNameError("group of vaults", parts[0], GROUPS)
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.group}/{self.scenario}/{self.uid}"

    @property
    def archive(self) -> str:
        """The archive on the hub."""
        return f"{GROUPS[self.group]}/{self.scenario}.zip"

    def folder(self, base: Path) -> Path:
        """Where the vault lies below a folder of vaults, as OG-MARL's own tools put it."""
        return base / "og_marl" / self.group / f"{self.scenario}.vlt" / self.uid

    def task(self) -> str:
        """The task that it was recorded in.

        Raises:
            UsageError: if there is none here.
        """
        if self.group == "smac_v1":
            name = f"smac/{self.scenario}"
            return f"{name}[engine=sc2]" if name in BATTLES else name
        if self.group == "smac_v2":
            return f"smacv2/{self.scenario}[engine=sc2]"
        if self.group == "omar" and self.scenario in _OMAR_TASKS:
            return _OMAR_TASKS[self.scenario]
        if self.group != "omar":
            return f"mamujoco/{self.scenario}"
        raise UsageError(f"{self}: no task here is OMAR's {self.scenario}. Name one with --task.")


@dataclass(frozen=True, slots=True)
class Pin:
    """What an archive was when it was first downloaded."""

    revision: str
    sha256: str


Download = Callable[[str, Pin | None], tuple[Path, Pin]]
"""Gets an archive of the hub, at its pin or at the newest revision: the file, and what it should be."""


def obtain_vault(name: VaultName, base: Path, download: Download | None = None) -> Path:
    """The folder of a vault, downloaded where it is missing.

    Raises:
        StorageError: if it cannot be downloaded.
        DataError: if what arrived is not what the hub promised, or would leave its folder, or lacks the vault.
        MissingDependencyError: without huggingface_hub.
    """
    folder = name.folder(base)
    if (folder / "metadata.json").is_file():
        return folder
    pins = _pins(base)
    archive, promised = (download or from_hub)(name.archive, pins.get(name.archive))
    found = sha256_of(archive)
    if found != promised.sha256:
        raise DataError(
            f"{name}: the archive has SHA-256 {found[:12]}..., expected {promised.sha256[:12]}.... It is cut short, or "
            "was changed on the way. Download it again."
        )
    unpack(archive, folder.parents[1])
    if not (folder / "metadata.json").is_file():
        uids = sorted(path.parent.name for path in folder.parent.glob("*/metadata.json"))
        raise DataError(f"{name}: the archive holds no such vault. It holds: {', '.join(uids) or 'none'}.")
    pins[name.archive] = promised
    kept = {key: {"revision": pin.revision, "sha256": pin.sha256} for key, pin in sorted(pins.items())}
    write_bytes(base / "pins.json", (json.dumps(kept, indent=1) + "\n").encode())
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive into a folder, whole or not at all; what is there already stays.

    Raises:
        DataError: if it is damaged, or a member would land outside the folder or is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as name:
        draft = Path(name).resolve()
        try:
            with zipfile.ZipFile(archive) as opened:
                for member in opened.infolist():
                    inside = (draft / member.filename).resolve().is_relative_to(draft)
                    if not inside or stat.S_ISLNK(member.external_attr >> 16):
                        raise DataError(f"{archive.name}: member {member.filename!r} leaves the folder. It is refused.")
                opened.extractall(draft)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{archive.name} is no whole zip archive: {error}. Download it again.") from error
        for found in draft.iterdir():
            if not (folder / found.name).exists():
                shutil.move(str(found), folder / found.name)


def from_hub(archive: str, pin: Pin | None) -> tuple[Path, Pin]:
    """Downloads from OG-MARL's repository, with a progress bar; the checksum is the hub's own."""
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError as error:
        raise MissingDependencyError(
            "Downloading vaults needs huggingface_hub: pip install 'augmarl[vault]'."
        ) from error
    place: dict[str, Any] = {"repo_id": REPOSITORY, "repo_type": "dataset"}
    try:
        api = HfApi()
        revision = api.repo_info(**place).sha if pin is None else pin.revision
        (info,) = api.get_paths_info(paths=[archive], revision=revision, **place)
        path = hf_hub_download(filename=archive, revision=revision, **place)
    except Exception as error:  # the hub's client raises the errors of several libraries
        raise StorageError(
            f"{archive} could not be downloaded from {REPOSITORY}: {type(error).__name__}: {error}. Without a network, "
            "unpack the archive yourself and give the vault's folder: og-marl:FOLDER."
        ) from error
    sha256 = info.lfs.sha256 if pin is None else pin.sha256
    return Path(path), Pin(str(revision), sha256)


def _pins(base: Path) -> dict[str, Pin]:
    path = base / "pins.json"
    if not path.exists():
        return {}
    try:
        return {key: Pin(str(row["revision"]), str(row["sha256"])) for key, row in json.loads(path.read_text()).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Remove it to pin the archives anew.") from error
