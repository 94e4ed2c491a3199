"""Vaults by name: where they go, their checksums and pins, and archives that are not what they should be."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from tasks.common.errors import DataError, StorageError, UnknownNameError, UsageError
from tasks.common.files import sha256_of
from tasks.datasets.vault_hub import Pin, VaultName, from_hub, obtain_vault, unpack

NAME = VaultName("smac_v1", "3m", "Good")


def archive(path: Path, *members: str) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for member in members or ("3m.vlt/Good/metadata.json", "3m.vlt/Good/d/0"):
            opened.writestr(member, "{}")
    return path


class Hub:
    """A hub with one archive, which keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, list[tuple[str, Pin | None]]()

    def __call__(self, name: str, pin: Pin | None) -> tuple[Path, Pin]:
        self.asked.append((name, pin))
        return self.path, pin or Pin("c0ffee", sha256_of(self.path))


def test_names_places_and_tasks() -> None:
    assert VaultName.parse("smac_v1/3m/Good") == NAME
    assert NAME.archive == "core/smac_v1/3m.zip"
    assert NAME.folder(Path("base")) == Path("base/og_marl/smac_v1/3m.vlt/Good")
    tasks = {
        "smac_v1/3m/Good": "smac/3m[engine=sc2]",
        "smac_v2/zerg_5_vs_5/Replay": "smacv2/zerg_5_vs_5[engine=sc2]",
        "mamujoco/2ant/Good": "mamujoco/2ant",
        "omar/simple_tag/Expert": "mpe/tag",
    }
    assert {name: VaultName.parse(name).task() for name in tasks} == tasks
    with pytest.raises(UsageError, match="names no vault. Expected GROUP/SCENARIO/UID"):
        VaultName.parse("smac_v1/3m")
    with pytest.raises(UsageError, match="names no vault"):
        VaultName.parse("smac_v1/../Good")
    with pytest.raises(UnknownNameError, match="smac_v1"):
        VaultName.parse("smac_v3/3m/Good")
    with pytest.raises(UsageError, match="--task"):
        VaultName("omar", "half", "Expert").task()


def test_a_vault_is_downloaded_once_and_pinned(tmp_path: Path) -> None:
    hub = Hub(archive(tmp_path / "3m.zip", "3m.vlt/Good/metadata.json", "3m.vlt/Poor/metadata.json"))
    base = tmp_path / "vaults"
    assert obtain_vault(NAME, base, hub) == base / "og_marl/smac_v1/3m.vlt/Good"
    obtain_vault(NAME, base, hub)
    obtain_vault(VaultName("smac_v1", "3m", "Poor"), base, hub)
    assert hub.asked == [("core/smac_v1/3m.zip", None)]
    pin = {"revision": "c0ffee", "sha256": sha256_of(hub.path)}
    assert json.loads((base / "pins.json").read_text()) == {"core/smac_v1/3m.zip": pin}


def test_a_second_download_must_be_the_first_one_again(tmp_path: Path) -> None:
    hub, base = Hub(archive(tmp_path / "3m.zip")), tmp_path / "vaults"
    folder = obtain_vault(NAME, base, hub)
    (folder / "metadata.json").unlink()
    archive(hub.path, "3m.vlt/Good/metadata.json", "3m.vlt/Good/more")
    with pytest.raises(DataError, match="cut short, or was changed"):
        obtain_vault(NAME, base, hub)
    assert hub.asked[-1][1] is not None


def test_a_download_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    hub = Hub(archive(tmp_path / "3m.zip"))
    whole = Pin("c0ffee", sha256_of(hub.path))
    hub.path.write_bytes(hub.path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cut short"):
        obtain_vault(NAME, tmp_path / "vaults", lambda name, pin: (hub.path, whole))
    with pytest.raises(DataError, match="no whole zip archive"):
        obtain_vault(NAME, tmp_path / "vaults", hub)
    assert list((tmp_path / "vaults").rglob("*.json")) == []


@pytest.mark.parametrize("member", ["../outside", "/tmp/outside", "3m.vlt/../../outside"])
def test_members_that_leave_the_folder_are_refused_and_nothing_is_unpacked(member: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "evil.zip", "3m.vlt/Good/metadata.json", member)
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(path, tmp_path / "vaults" / "deep")
    assert list((tmp_path / "vaults").rglob("*")) == [tmp_path / "vaults" / "deep"]
    assert not (tmp_path / "outside").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as opened:
        link = zipfile.ZipInfo("3m.vlt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc")
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(path, tmp_path / "vaults")


def test_an_archive_without_the_vault_says_what_it_has(tmp_path: Path) -> None:
    hub = Hub(archive(tmp_path / "3m.zip", "3m.vlt/Medium/metadata.json"))
    with pytest.raises(DataError, match="no such vault. It holds: Medium"):
        obtain_vault(NAME, tmp_path / "vaults", hub)


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra vault")

    def nowhere(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hub.HfApi, "repo_info", nowhere)
    with pytest.raises(StorageError, match="no route to host. Without a network, unpack the archive yourself"):
        from_hub("core/smac_v1/3m.zip", None)


def test_damaged_pins_are_told(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text('{"core/smac_v1/3m.zip": 3}')
    with pytest.raises(DataError, match="Remove it to pin the archives anew"):
        obtain_vault(NAME, tmp_path, Hub(tmp_path / "none"))
