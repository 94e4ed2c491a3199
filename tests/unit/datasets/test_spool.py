"""Batches that wait on disk: the same data as in memory, in the memory of one batch."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.base import Task
from tasks.common.errors import StorageError
from tasks.datasets import regimes
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.spool import Spool


def collect(task: Task, dataset: str, episodes: int, folder: Path | None) -> OfflineDataset:
    return regimes.collect(task, regimes.resolve(task, dataset), episodes, 3, lambda *_: None, folder)


@pytest.mark.parametrize("dataset", ["exp-m", "exp[fraction=0.1]", "medium-replay"])
def test_data_from_disk_are_those_from_memory(task: Task, tmp_path: Path, dataset: str) -> None:
    kept, spooled = collect(task, dataset, 300, None), collect(task, dataset, 300, tmp_path)
    assert spooled.columns().keys() == kept.columns().keys()
    for name, column in kept.columns().items():
        np.testing.assert_array_equal(spooled.columns()[name], column)
    spooled.validate()


def test_memory_does_not_grow_with_the_number_of_episodes(toy_task: Callable[..., Task], tmp_path: Path) -> None:
    """Batches of 256 episodes: two of them against eight."""
    task = toy_task(n_agents=8)

    def peak(episodes: int, folder: Path | None) -> int:
        tracemalloc.start()
        data = collect(task, "random", episodes, folder)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert data.n_episodes == episodes
        return found

    folders = [tmp_path / name for name in ("few", "many")]
    for folder in folders:
        folder.mkdir()
    few, many = peak(512, folders[0]), peak(2048, folders[1])
    assert many < 1.2 * few
    assert peak(2048, None) > 2 * few  # in memory it does


def test_a_disk_that_cannot_be_written_is_told(collected: OfflineDataset, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"Could not write .*nowhere.* Free some space .* or set AUGMARL_HOME"):
        spool.add(collected)
