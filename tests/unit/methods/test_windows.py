"""Windows on datasets whose rows are numbered, with indices worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.base import UnsupportedError
from methods.data.window_tensors import DeviceWindows
from methods.data.windows import (
    WindowIndex,
    held_out_split,
    raw_windows,
    require_finite,
    rotations,
    steps_of,
    training_entries,
)
from tasks.common.errors import DataError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec


def numbered(lengths: list[int], groups: tuple[tuple[int, ...], ...] = ((0, 1),)) -> OfflineDataset:
    """Row r of agent i holds 10 r + i, step s has action 10 s + i (scaled to [0, 1]) and reward s + 1."""
    n = sum(len(group) for group in groups)
    spec = TaskSpec(
        id="toy/numbered",
        family="toy",
        engine="toy",
        engine_version="1",
        variant="",
        n_agents=n,
        obs_dim=1,
        state_dim=None,
        action=ActionSpec(kind="continuous", size=1),
        episode_limit=9,
        team_reward="mean",
        agent_groups=groups,
        observation_features=("number",),
    )
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps, agents = int(starts[-1]), np.arange(n)
    rows = np.arange(steps + len(lengths))
    truncations = np.zeros(steps, np.bool_)
    truncations[starts[1:] - 1] = True
    return OfflineDataset(
        spec=spec,
        observations=(10 * rows[:, None] + agents)[..., None].astype(np.float32),
        actions=(10 * np.arange(steps)[:, None] + agents)[..., None].astype(np.float32) / 100,
        rewards=np.repeat(np.arange(1, steps + 1)[:, None], n, axis=1).astype(np.float32),
        terminals=np.zeros(steps, np.bool_),
        truncations=truncations,
        episode_starts=starts,
    )


def device_windows(index: WindowIndex) -> DeviceWindows:
    data = index.data
    to_go = torch.from_numpy(data.returns_to_go(1.0).astype(np.float32))
    return DeviceWindows(index, torch.from_numpy(data.observations), torch.from_numpy(data.actions), to_go)


def test_a_padded_window_starts_at_every_step_and_repeats_the_last_row() -> None:
    # rows 0 1 2 3 of an episode of 3 steps, rows 4 5 of one with 1 step
    index = WindowIndex(numbered([3, 1]), 4)
    assert index.rows(np.arange(4)).tolist() == [[0, 1, 2, 3], [1, 2, 3, 3], [2, 3, 3, 3], [4, 5, 5, 5]]
    steps, inside = index.steps(np.arange(4))
    assert steps.tolist() == [[0, 1, 2], [1, 2, 2], [2, 2, 2], [3, 3, 3]]
    assert inside.sum(axis=1).tolist() == [3, 2, 1, 1]


def test_a_window_without_padding_lies_inside_its_episode() -> None:
    index = WindowIndex(numbered([3, 1]), 3, padded=False)
    assert index.rows(np.arange(len(index))).tolist() == [[0, 1, 2], [1, 2, 3]]


def test_data_shorter_than_a_window_need_padding() -> None:
    with pytest.raises(UnsupportedError, match="no window of 5 observation rows.*longest has 3 steps.*pad_windows"):
        WindowIndex(numbered([3, 1]), 5, padded=False)
    with pytest.raises(UnsupportedError, match="no episode"):
        WindowIndex(OfflineDataset.empty(numbered([1]).spec), 5)
    assert len(WindowIndex(numbered([3, 1]), 5)) == 4


def test_rewards_beyond_the_end_are_zero() -> None:
    index = WindowIndex(numbered([3, 1]), 4)
    raw = raw_windows(index, np.array([1, 3]))
    assert raw.rewards[..., 0].tolist() == [[2, 3, 0], [4, 0, 0]]
    assert raw.observations[0, :, 0, 0].tolist() == [10, 20, 30, 30]
    # 2 + 0.5 · 3, and 4 alone
    assert index.discounted_returns(0.5)[[1, 3]].tolist() == [3.5, 4.0]


def test_the_device_gathers_the_same_windows() -> None:
    index = WindowIndex(numbered([5, 2, 1]), 4)
    windows = device_windows(index)
    chosen = np.array([[0, 3], [6, 7]])
    x = windows.observations(torch.from_numpy(chosen))
    assert x.shape == (2, 2, 4, 2, 1)
    np.testing.assert_array_equal(x.flatten(0, 1).numpy(), raw_windows(index, chosen.ravel()).observations)
    # steps 0, 3 of an episode with rewards 1..5; 1 of (6, 7); 0 of (8)
    assert windows.conditions(torch.from_numpy(chosen))[..., 0].tolist() == [[15, 9], [7, 8]]


def test_a_rotation_moves_the_agents_of_each_group() -> None:
    data = numbered([3], groups=((0, 2, 3), (1,)))
    assert rotations(data.spec).tolist() == [[0, 1, 2, 3], [2, 1, 3, 0], [3, 1, 0, 2]]
    windows = device_windows(WindowIndex(data, 2))
    x = windows.observations(torch.tensor([[1, 1]]), torch.tensor([[0, 2]]))
    assert x[0, :, 0, :, 0].tolist() == [[10, 11, 12, 13], [13, 11, 10, 12]]
    batch = windows.transitions(torch.tensor([[1]]))
    assert batch.x[0, 0, :, 0].tolist() == [10, 11, 12, 13]  # what the heads see is never rotated
    torch.testing.assert_close(batch.actions[0, 0, :, 0], torch.tensor([0.10, 0.11, 0.12, 0.13]))


def test_transitions_are_those_of_the_steps() -> None:
    windows = device_windows(WindowIndex(numbered([3, 1]), 4))
    steps = torch.tensor([[0, 1, 2, 3]])  # the last one is another episode's
    batch = windows.transitions(steps)
    assert batch.x[0, :, 0, 0].tolist() == [0, 10, 20, 40]
    assert batch.x_next[0, :, 0, 0].tolist() == [10, 20, 30, 50]
    assert batch.rewards[0].tolist() == [1, 2, 3, 4]
    assert batch.returns_to_go[0].tolist() == [6, 5, 3, 4]
    pairs = windows.pairs(steps[0])
    assert torch.equal(pairs[:, 0], batch.x[0])
    assert torch.equal(pairs[:, 1], batch.x_next[0])


def test_flags_masks_and_states_are_those_before_the_step() -> None:
    """Rows 0 1 of an episode of 1 step, rows 2 3 4 5 of one with 3 steps; steps 1, 2, 3 leave rows 2, 3, 4."""
    data, row = numbered([1, 3]), np.arange(6)
    available = np.ones((6, 2, 3), np.bool_)
    available[row, 0, row % 3], available[4, 1, 2] = False, False
    discrete = replace(
        data,
        spec=replace(data.spec, state_dim=1, action=ActionSpec(kind="discrete", size=3), has_deaths=True),
        actions=np.array([[1, 2], [0, 1], [2, 0], [2, 1]]),
        terminals=np.array([True, False, False, True]),
        truncations=np.zeros(4, np.bool_),
        available_actions=available,
        alive=np.stack([row != 2, row != 4], axis=1),
        states=row[:, None].astype(np.float32),
    )
    index = WindowIndex(discrete, 4)
    actions = torch.from_numpy(discrete.actions)
    windows = DeviceWindows(index, torch.from_numpy(data.observations), actions, torch.zeros(4))
    batch = windows.transitions(torch.tensor([[1, 3], [0, 2]]))
    assert batch.terminal.tolist() == [[False, True], [True, False]]
    assert batch.states is not None
    assert batch.states[..., 0].tolist() == [[2, 4], [0, 3]]
    assert batch.alive is not None
    assert batch.alive.tolist() == [[[False, True], [True, False]], [[True, True], [True, True]]]
    assert batch.available is not None
    assert batch.available[0].tolist() == [[[1, 1, 0], [1, 1, 1]], [[1, 0, 1], [1, 1, 0]]]
    assert batch.actions[0].tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]]]


def test_steps_of_episodes() -> None:
    assert steps_of(numbered([3, 1, 2]), np.array([0, 2])).tolist() == [0, 1, 2, 4, 5]


def test_circular_shift_adds_rotations_of_the_best_windows_of_each_start_step() -> None:
    # Start steps 0 (windows 0, 2, 4) and 1 (windows 1, 3): rewards rise, so later episodes are better.
    index = WindowIndex(numbered([2, 2, 1], groups=((0, 1, 2),)), 2)
    entries = training_entries(index, np.arange(5), share=0.34, gamma=0.99)
    assert entries.windows.tolist() == [0, 1, 2, 3, 4, 4, 2, 3, 4, 2, 3]
    assert entries.rotations.tolist() == [0] * 5 + [1] * 3 + [2] * 3


def test_circular_shift_off_or_without_like_agents_adds_nothing() -> None:
    index = WindowIndex(numbered([2, 2], groups=((0,), (1,))), 2)
    assert training_entries(index, np.arange(4), share=1.0, gamma=0.99).windows.tolist() == [0, 1, 2, 3]
    index = WindowIndex(numbered([2, 2]), 2)
    assert training_entries(index, np.arange(4), share=0.0, gamma=0.99).windows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "held"), [(2, 1), (20, 1), (21, 2), (100, 5)])
def test_a_twentieth_of_the_episodes_is_held_out(count: int, held: int) -> None:
    kept, judged = held_out_split(count, np.random.default_rng(3))
    assert len(judged) == held
    assert sorted([*kept, *judged]) == list(range(count))


def test_a_single_episode_serves_as_both() -> None:
    kept, judged = held_out_split(1, np.random.default_rng(3))
    assert kept.tolist() == judged.tolist() == [0]


def test_windows_of_episodes() -> None:
    assert WindowIndex(numbered([2, 3, 1]), 2).of_episodes(np.array([0, 2])).tolist() == [0, 1, 5]


def test_values_that_are_not_finite_are_named() -> None:
    data = numbered([3, 1])
    require_finite(data)
    rewards = data.rewards.copy()
    rewards[1:3] = np.nan
    with pytest.raises(DataError, match=r"2 of 4 rows of 'rewards' hold NaN.*first row 1.*Remove"):
        require_finite(data.replace(rewards=rewards))
