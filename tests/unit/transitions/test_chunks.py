"""Columns in memory and in files, what outlives a killed process, and generation that goes on behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from benchmark.memory import peak_memory_bytes, reset_peak_memory
from methods.augmenters.ins import INS
from methods.augmenters.synther import SynthER
from methods.augmenters.vae import VAE
from methods.base import Budget, Run
from methods.transitions.augmenter import TransitionAugmenter
from methods.transitions.chunks import ChunkedTable, Keeper
from tasks.common.errors import MethodError, StorageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.checkpoints import KilledError, Memory

DATA = sample_dataset("discrete").without_privileged()
LAYOUT = {"pairs": ((20, 3), np.float32), "flags": ((10,), np.bool_)}  # of 10 transitions
PAIRS, FLAGS = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(10) % 3 == 0


def fill(table: ChunkedTable, first: int, last: int) -> None:
    table.add(last - first, {"pairs": PAIRS[2 * first : 2 * last], "flags": FLAGS[first:last]})


def kept_in(folder: Path, checkpoint: Memory) -> Run:
    return Run(seeds=(1,), checkpoint=checkpoint, folder=folder)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_rows_come_back_wherever_they_lie(limit: int) -> None:
    table = ChunkedTable("t", LAYOUT, 10, limit=limit)
    fill(table, 0, 4)
    fill(table, 4, 10)
    np.testing.assert_array_equal(table.rows("pairs", 3, 6), PAIRS[6:12])
    np.testing.assert_array_equal(table.column("pairs"), PAIRS)
    np.testing.assert_array_equal(table.column("flags"), FLAGS)
    assert isinstance(table.column("pairs"), np.memmap) == (limit == 0)
    with pytest.raises(MethodError, match="1 transitions were added to 10 of 10"):
        fill(table, 9, 10)


def test_kept_chunks_are_found_again_and_half_written_ones_are_written_anew(tmp_path: Path) -> None:
    checkpoint = Memory()
    table = ChunkedTable("t", LAYOUT, 10, Keeper(kept_in(tmp_path, checkpoint)))
    fill(table, 0, 4)
    with (tmp_path / "t.pairs.bin").open("ab") as file:
        file.write(b"killed in the middle of a row")
    keeper = Keeper(kept_in(tmp_path, checkpoint))
    assert keeper.columns("t") == ["pairs", "flags"]
    again = ChunkedTable("t", LAYOUT, 10, keeper)
    assert again.done == 4
    fill(again, 4, 10)
    np.testing.assert_array_equal(again.column("pairs"), PAIRS)


def test_files_that_have_lost_rows_are_not_trusted(tmp_path: Path) -> None:
    checkpoint = Memory()
    fill(ChunkedTable("t", LAYOUT, 10, Keeper(kept_in(tmp_path, checkpoint))), 0, 4)
    (tmp_path / "t.flags.bin").write_bytes(b"\0\0\0")
    assert ChunkedTable("t", LAYOUT, 10, Keeper(kept_in(tmp_path, checkpoint))).done == 0


def test_without_a_checkpoint_or_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    for run in (Run(seeds=(0,)), Run(seeds=(0,), folder=tmp_path), Run(seeds=(0,), checkpoint=Memory())):
        fill(ChunkedTable("t", LAYOUT, 10, Keeper(run)), 0, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    table = ChunkedTable("t", LAYOUT, 10, Keeper(kept_in(tmp_path, Memory())))
    monkeypatch.setattr("methods.transitions.chunks.os.fsync", full)
    with pytest.raises(StorageError, match=r"t\.pairs\.bin: No space left on device.*it resumes"):
        fill(table, 0, 4)
    assert table.done == 0


# -- generation --------------------------------------------------------------------------------------------------------

METHODS = [(SynthER, {}), (INS, {}), (INS, {"select": "none"}), (VAE, {})]


def generated(augmenter: TransitionAugmenter[Any], run: Run) -> OfflineDataset:
    return augmenter.generate(DATA, replace(run, seeds=(1,), budget=Budget(amount=100)))  # chunks of 32


def same(first: OfflineDataset, second: OfflineDataset) -> bool:
    mine, other = first.columns(), second.columns()
    return mine.keys() == other.keys() and all(np.array_equal(mine[name], other[name]) for name in mine)


def drawn_chunks(augmenter: TransitionAugmenter[Any]) -> Callable[[], int]:
    """How many chunks it has drawn from its network since."""
    draw, calls = augmenter.draw, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return draw(*args)

    augmenter.draw = counted  # type: ignore[method-assign]  # for this object alone
    return lambda: calls[0]


@pytest.mark.parametrize(("method", "params"), METHODS)
def test_a_generation_killed_after_any_chunk_ends_in_the_same_data(
    method: type[TransitionAugmenter[Any]], params: dict[str, Any], tmp_path: Path
) -> None:
    augmenter = method.tiny(params)
    augmenter.fit(DATA, Run(seeds=(0,)))
    count = drawn_chunks(augmenter)
    plain = generated(augmenter, Run(seeds=(1,)))
    whole = Memory()
    assert same(plain, generated(augmenter, kept_in(tmp_path / "whole", whole)))
    chunks = count() // 2
    assert whole.saves >= chunks == 4
    for kill_at in range(1, whole.saves + 1):
        checkpoint, before = Memory(kill_at), count()
        with pytest.raises(KilledError):
            generated(augmenter, kept_in(tmp_path / str(kill_at), checkpoint))
        assert same(plain, generated(augmenter, kept_in(tmp_path / str(kill_at), checkpoint)))
        assert count() - before == chunks  # none is drawn twice


def test_one_that_is_stopped_within_a_chunk_goes_on_behind_the_last_whole_one(tmp_path: Path) -> None:
    augmenter = SynthER.tiny()
    augmenter.fit(DATA, Run(seeds=(0,)))
    plain, told = generated(augmenter, Run(seeds=(1,))), []

    def stop(done: int, total: int, message: str) -> None:
        told.append((done, total, message))
        if done > 50:
            raise KilledError

    checkpoint = Memory()
    run = kept_in(tmp_path, checkpoint)
    with pytest.raises(KilledError):
        generated(augmenter, replace(run, progress=stop))
    assert told[-1] == (64, 100, "synther: transitions")
    told.clear()
    assert same(plain, generated(augmenter, replace(run, progress=lambda *now: told.append(now))))
    assert told[0][0] > 32
    assert told[-1] == (100, 100, "synther: transitions")


@pytest.mark.slow
def test_memory_is_that_of_a_chunk(tmp_path: Path) -> None:
    augmenter = VAE.tiny({"rows_at_once": 8_192})
    augmenter.fit(DATA, Run(seeds=(0,)))
    peaks = []
    for amount in (100_000, 400_000):
        run = replace(kept_in(tmp_path / str(amount), Memory()), budget=Budget(amount=amount))
        reset_peak_memory()
        assert augmenter.generate(DATA, run).n_steps == amount
        peaks.append(peak_memory_bytes())
    columns = 400_000 * 2 * DATA.spec.n_agents * DATA.spec.obs_dim * 4
    assert peaks[1] - peaks[0] < columns / 2
