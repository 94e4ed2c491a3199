"""OMAR's folders: a round trip, a folder written by hand, and everything that is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tasks.base import Task
from tasks.common.errors import DataError, UsageError
from tasks.datasets import omar, regimes
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.verify import verify_data
from tasks.registry import make_task


@pytest.fixture(scope="module")
def spread() -> Task:
    return make_task("mpe/spread")


@pytest.fixture(scope="module")
def data(spread: Task) -> OfflineDataset:
    return regimes.collect(spread, regimes.resolve(spread, "random"), 6, 0, lambda *_: None)


@pytest.fixture
def folder(data: OfflineDataset, tmp_path: Path) -> Path:
    folder = tmp_path / "simple_spread" / "random" / "seed_0_data"
    omar.write(data, folder)
    return folder


def test_layout_is_omars(folder: Path, data: OfflineDataset) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{kind}_{agent}.npy" for kind in ("obs", "acs", "rews", "next_obs", "dones") for agent in range(3)
    )
    assert np.load(folder / "obs_2.npy").shape == (150, 18)
    assert np.load(folder / "acs_0.npy").shape == (150, 2)
    assert np.load(folder / "rews_1.npy").tolist() == data.rewards[:, 1].tolist()
    assert not np.load(folder / "dones_0.npy").any()


def test_round_trip(folder: Path, data: OfflineDataset, spread: Task) -> None:
    back = omar.read(folder, spread.spec)
    assert back.columns().keys() == data.columns().keys()
    for name, column in data.columns().items():
        np.testing.assert_array_equal(back.columns()[name], column, err_msg=name)
    assert all(finding.ok for finding in verify_data(back, spread))


def test_a_folder_as_omar_writes_it(spread: Task, tmp_path: Path) -> None:
    """float64, rewards and flags as columns, the prey as agent 3, a last episode that was cut short."""
    generator = np.random.Generator(np.random.PCG64(0))
    rows = generator.normal(size=(62, 3, 18))  # 25 + 1, 25 + 1 and 9 + 1 observation rows
    final = np.array([25, 51, 61])
    first = np.setdiff1d(np.arange(62), final)
    for agent in range(3):
        np.save(tmp_path / f"obs_{agent}.npy", rows[first, agent])
        np.save(tmp_path / f"next_obs_{agent}.npy", rows[first + 1, agent])
        np.save(tmp_path / f"acs_{agent}.npy", generator.uniform(-1, 1, (59, 2)))
        np.save(tmp_path / f"rews_{agent}.npy", np.arange(59.0)[:, None] + agent)
        np.save(tmp_path / f"dones_{agent}.npy", np.zeros((59, 1)))
    np.save(tmp_path / "obs_3.npy", np.zeros((59, 14)))
    data = omar.read(tmp_path, spread.spec)
    assert data.lengths.tolist() == [25, 25, 9]
    assert data.observations == pytest.approx(rows.astype(np.float32))
    assert data.rewards[:3].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert np.flatnonzero(data.truncations).tolist() == [24, 49, 58]
    assert data.behaviour is not None
    assert (data.behaviour == -1).all()


@pytest.mark.parametrize(("kind", "code"), [("expert", 0), ("medium-replay", 3), ("unheard-of", -1)])
def test_the_folders_name_says_who_acted(
    data: OfflineDataset, spread: Task, tmp_path: Path, kind: str, code: int
) -> None:
    folder = tmp_path / kind / "seed_3_data"
    omar.write(data, folder)
    behaviour = omar.read(folder, spread.spec).behaviour
    assert behaviour is not None
    assert (behaviour == code).all()


def test_sizes_that_differ_are_both_named(folder: Path, spread: Task) -> None:
    np.save(folder / "rews_1.npy", np.zeros(149))
    with pytest.raises(DataError, match=r"rews_1\.npy has 149 rows and .*obs_0\.npy has 150"):
        omar.read(folder, spread.spec)
    np.save(folder / "obs_1.npy", np.zeros((150, 24)))
    with pytest.raises(DataError, match=r"obs_1\.npy has shape \(150, 24\); mpe/spread needs \(rows, 18\)"):
        omar.read(folder, spread.spec)


def test_rows_that_do_not_continue(folder: Path, spread: Task) -> None:
    rows = np.load(folder / "next_obs_0.npy")
    rows[30] += 0.1
    np.save(folder / "next_obs_0.npy", rows)
    with pytest.raises(DataError, match=r"1 rows have a `next_obs` that is not .*first: row 30"):
        omar.read(folder, spread.spec)


def test_a_flag_inside_an_episode(folder: Path, spread: Task) -> None:
    flags = np.zeros(150)
    flags[[24, 49]] = 1  # where OMAR's line is cut anyway
    np.save(folder / "dones_0.npy", flags)
    assert not omar.read(folder, spread.spec).terminals.any()
    flags[7] = 1
    np.save(folder / "dones_0.npy", flags)
    with pytest.raises(DataError, match=r"flag inside an episode \(first: row 7\)"):
        omar.read(folder, spread.spec)


def test_values_are_checked(folder: Path, spread: Task) -> None:
    np.save(folder / "acs_0.npy", np.full((150, 2), 3.0))
    with pytest.raises(DataError, match="'actions' are not in"):
        omar.read(folder, spread.spec)


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploited",)


def test_pickles_are_never_opened(folder: Path, spread: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    np.save(folder / "rews_0.npy", np.array([Exploit()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Pickled objects are refused"):
        omar.read(folder, spread.spec)
    (folder / "rews_0.npy").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(DataError, match="Pickled objects are refused"):
        omar.read(folder, spread.spec)
    assert not (folder / "exploited").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{'descr'", b"PK\x03\x04"])
def test_damaged_files(folder: Path, spread: Task, content: bytes) -> None:
    (folder / "acs_1.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"acs_1\.npy"):
        omar.read(folder, spread.spec)


def test_truncated_and_missing_files(folder: Path, spread: Task) -> None:
    path = folder / "obs_1.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"obs_1\.npy is no readable"):
        omar.read(folder, spread.spec)
    path.unlink()
    with pytest.raises(DataError, match=r"obs_1\.npy is missing"):
        omar.read(folder, spread.spec)


def test_links_out_of_the_folder_are_refused(folder: Path, spread: Task, tmp_path: Path) -> None:
    outside = tmp_path / "outside.npy"
    (folder / "obs_1.npy").rename(outside)
    (folder / "obs_1.npy").symlink_to(outside)
    with pytest.raises(DataError, match="points outside"):
        omar.read(folder, spread.spec)


def test_the_wrong_folder_gets_a_hint(folder: Path, spread: Task, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Did you mean one of its folders simple_spread/random/seed_0_data\?"):
        omar.read(tmp_path, spread.spec)
    with pytest.raises(UsageError, match="is no folder"):
        omar.read(tmp_path / "nothing", spread.spec)


def test_only_what_the_layout_can_hold_is_written(spread: Task, collected: OfflineDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"discrete|no episode borders"):
        omar.write(collected, tmp_path / "x")
    with pytest.raises(UsageError, match="Pick that variant"):
        omar.read(tmp_path, make_task("mpe/spread[actions=discrete]").spec)
    assert not (tmp_path / "x").exists()
