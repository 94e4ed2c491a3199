from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.data import batches
from methods.data.batches import EpisodeBatch, StepBatch, episode_batches, transition_batches
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset

DATA = [sample_dataset("discrete", episodes=9, seed=seed) for seed in range(2)]
ALL = [np.arange(9), np.arange(9)]


def generators(*seeds: int) -> list[np.random.Generator]:
    return [make_generator("test", seed) for seed in seeds]


def transitions(data: list[OfflineDataset], seeds: tuple[int, ...], updates: int = 5) -> Iterator[StepBatch]:
    chosen = [np.arange(d.n_episodes) for d in data]
    return transition_batches(data, chosen, generators(*seeds), batch_size=4, updates=updates, device="cpu")


def test_each_entry_is_one_step_with_its_own_mask() -> None:
    found = list(transitions(DATA, (0, 1), updates=30))
    assert len(found) == 30
    for batch in found[:3]:
        assert batch.observations.shape == (2, 4, 3, 5)
        assert batch.available is not None
        assert batch.available.gather(-1, batch.actions[..., None]).all()
    for r in range(2):  # sample_dataset acts by the largest available feature, so a wrong pairing would show
        for batch in found:
            assert batch.available is not None
            wish = batch.observations[r].masked_fill(~batch.available[r], -torch.inf).argmax(-1)
            torch.testing.assert_close(wish, batch.actions[r])


def test_a_replica_draws_the_same_whoever_trains_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_CHUNK", 8)  # two updates a gather, the last one alone
    together, alone = transitions(DATA, (0, 1)), transitions(DATA[1:], (1,))
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both.observations[1:], one.observations)


def test_only_the_chosen_episodes_are_drawn() -> None:
    chosen = [np.array([2, 5])]
    steps = transition_batches(DATA[:1], chosen, generators(0), batch_size=64, updates=20, device="cpu")
    seen = {row.numpy().tobytes() for batch in steps for row in batch.observations[0]}
    row_of_step, episode = DATA[0].row_of_step(), DATA[0].episode_of_step()
    expected = {DATA[0].observations[row_of_step[s]].tobytes() for s in np.flatnonzero(np.isin(episode, [2, 5]))}
    assert seen == expected


def episodes(batch_size: int, updates: int = 3) -> Iterator[EpisodeBatch]:
    return episode_batches(DATA, ALL, generators(0, 1), batch_size=batch_size, updates=updates, device="cpu")


def test_episodes_are_padded_and_marked() -> None:
    for batch in episodes(4):
        lengths = batch.valid.sum(dim=1)  # (R, B)
        assert batch.valid.shape[1] == int(lengths.max())
        for r in range(2):
            known = {e["observations"][0].tobytes(): e for e in DATA[r].episodes()}
            for b in range(4):
                episode = known[batch.observations[r, 0, b].numpy().tobytes()]
                length = len(episode["rewards"])
                assert int(lengths[r, b]) == length
                np.testing.assert_array_equal(batch.observations[r, :length, b], episode["observations"][:-1])
                np.testing.assert_array_equal(batch.actions[r, :length, b], episode["actions"])
                assert batch.valid[r, :, b].tolist() == [t < length for t in range(batch.valid.shape[1])]
                assert batch.last_actions is not None
                assert batch.last_actions[r, 0, b].tolist() == [5, 5, 5]  # none yet: A
                np.testing.assert_array_equal(batch.last_actions[r, 1:length, b], episode["actions"][:-1])


def test_episodes_of_a_batch_differ_while_there_are_enough() -> None:
    for batch in episodes(9):
        firsts = {batch.observations[0, 0, b].numpy().tobytes() for b in range(9)}
        assert len(firsts) == 9
    assert next(episodes(20)).observations.shape[2] == 20  # more than there are: with replacement


def test_memory_mapped_columns_are_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "observations.npy"
    np.save(path, DATA[0].observations)
    mapped = DATA[0].replace(observations=np.load(path, mmap_mode="r"))
    first, second = next(transitions([mapped], (0,))), next(transitions(DATA[:1], (0,)))
    torch.testing.assert_close(first.observations, second.observations)
