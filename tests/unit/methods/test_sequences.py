"""Batches of sequences: each entry is what the dataset holds, each sequence ends in its own final row."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences, window_sequences

SHAPES = ["discrete", "states-and-deaths"]


def generators(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_episode_ends_in_its_own_final_row_and_the_rest_is_masked(shape: str) -> None:
    data = [sample_dataset(shape, episodes=9, seed=seed) for seed in range(2)]
    assert len(set(data[0].lengths.tolist())) > 1
    (batch,) = episode_sequences(data, generators(0, 1), batch_size=5, updates=1, device="cpu")
    for r, d in enumerate(data):
        drawn = np.random.default_rng(r).choice(np.arange(9), size=5, replace=False)
        for b, e in enumerate(drawn):
            length, row, step = int(d.lengths[e]), int(d.row_starts[e]), int(d.episode_starts[e])
            assert batch.valid[r, :, b].tolist() == [t < length for t in range(batch.valid.shape[1])]
            rows, steps = slice(row, row + length + 1), slice(step, step + length)
            np.testing.assert_array_equal(batch.observations[r, : length + 1, b], d.observations[rows])
            assert batch.available is not None
            assert d.available_actions is not None
            np.testing.assert_array_equal(batch.available[r, : length + 1, b], d.available_actions[rows])
            np.testing.assert_array_equal(batch.actions[r, :length, b], d.actions[steps])
            np.testing.assert_array_equal(batch.rewards[r, :length, b], d.rewards[steps])
            np.testing.assert_array_equal(batch.terminals[r, :length, b], d.terminals[steps])
            assert batch.last_actions is not None
            assert (batch.last_actions[r, 0, b] == 5).all()  # none yet
            np.testing.assert_array_equal(batch.last_actions[r, 1 : length + 1, b], d.actions[steps])
            if shape == "states-and-deaths":
                assert batch.states is not None
                assert d.states is not None
                np.testing.assert_array_equal(batch.states[r, : length + 1, b], d.states[rows])
            else:
                assert batch.states is None
            beyond = batch.observations[r, length:, b]
            assert (beyond == beyond[0]).all()  # padding repeats the final row


@pytest.mark.parametrize("shape", SHAPES)
def test_a_transition_is_a_sequence_of_one_step(shape: str) -> None:
    data = [sample_dataset(shape, episodes=9, seed=seed) for seed in range(2)]
    found = list(transition_sequences(data, generators(0, 1), batch_size=4, updates=3, device="cpu"))
    assert len(found) == 3
    for r, d in enumerate(data):
        drawn = np.random.default_rng(r).integers(d.n_steps, size=12).reshape(3, 4)
        for batch, steps in zip(found, drawn, strict=True):
            rows = d.row_of_step()[steps]
            assert batch.valid.all()
            assert batch.valid.shape == (2, 1, 4)
            np.testing.assert_array_equal(batch.observations[r], d.observations[[rows, rows + 1]])
            assert batch.available is not None
            assert d.available_actions is not None
            np.testing.assert_array_equal(batch.available[r], d.available_actions[[rows, rows + 1]])
            np.testing.assert_array_equal(batch.actions[r, 0], d.actions[steps])
            np.testing.assert_array_equal(batch.rewards[r, 0], d.rewards[steps])
            np.testing.assert_array_equal(batch.terminals[r, 0], d.terminals[steps])
            if d.states is not None:
                assert batch.states is not None
                np.testing.assert_array_equal(batch.states[r], d.states[[rows, rows + 1]])


def test_a_window_starts_anywhere_and_ends_with_its_episode() -> None:
    d = sample_dataset("states-and-deaths", episodes=9, seed=0)
    (batch,) = window_sequences([d], generators(0), steps=3, batch_size=50, updates=1, device="cpu")
    assert batch.valid.shape[1] == 3
    episode_of = np.repeat(np.arange(d.n_episodes), d.lengths)
    for b, first in enumerate(np.random.default_rng(0).integers(d.n_steps, size=50)):
        end = min(first + 3, d.episode_starts[episode_of[first] + 1])
        length, row = int(end - first), int(d.row_of_step()[first])
        assert batch.valid[0, :, b].tolist() == [t < length for t in range(3)]
        np.testing.assert_array_equal(batch.observations[0, : length + 1, b], d.observations[row : row + length + 1])
        np.testing.assert_array_equal(batch.actions[0, :length, b], d.actions[first:end])
        np.testing.assert_array_equal(batch.terminals[0, :length, b], d.terminals[first:end])
        assert batch.last_actions is not None
        assert (batch.last_actions[0, 0, b] == 5).all()  # whoever sees the window has no memory of what was before
    assert int(batch.valid.sum()) < 150  # some were cut


@pytest.mark.parametrize("draw", [episode_sequences, transition_sequences, partial(window_sequences, steps=4)])
def test_a_replica_draws_the_same_whoever_trains_beside_it(draw: Any) -> None:
    data = [sample_dataset("discrete", episodes=9, seed=seed) for seed in range(2)]
    together = draw(data, generators(0, 1), batch_size=4, updates=3, device="cpu")
    alone = draw(data[1:], generators(1), batch_size=4, updates=3, device="cpu")
    both: SequenceBatch
    one: SequenceBatch
    for both, one in zip(together, alone, strict=True):
        steps = one.valid.shape[1]
        torch.testing.assert_close(both.observations[1:, : steps + 1], one.observations)
        torch.testing.assert_close(both.actions[1:, :steps], one.actions)


def test_more_episodes_than_there_are_come_repeated() -> None:
    data = [sample_dataset("discrete", episodes=2, seed=0)]
    (batch,) = episode_sequences(data, generators(0), batch_size=6, updates=1, device="cpu")
    assert batch.observations.shape[2] == 6
