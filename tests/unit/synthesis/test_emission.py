"""Generated rows become valid episodes: every rule on rows made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.checks import check_generated
from methods.synthesis.emission import GeneratedRows, emit_episodes, emit_segments, idle_action, per_agent_rewards
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec

SPEC = TaskSpec(
    id="hand/made",
    family="hand",
    engine="none",
    engine_version="1",
    variant="made",
    n_agents=2,
    obs_dim=2,
    state_dim=None,
    action=ActionSpec(kind="continuous", size=1),
    episode_limit=3,
    team_reward="sum",
    agent_groups=((0, 1),),
    observation_features=("a", "b"),
)
DISCRETE = replace(SPEC, action=ActionSpec(kind="discrete", size=3, names=("left", "no_op", "right")))
BATTLE = replace(DISCRETE, has_deaths=True, has_win=True, state_dim=1)


def real_data(spec: TaskSpec) -> OfflineDataset:
    """One episode of one step whose observations span [-2, 2] and [0, 10], and the state [0, 1]."""
    rows = np.array([[[-2, 0], [2, 10]], [[0, 5], [1, 5]]], dtype=np.float32)
    columns: dict[str, NDArray[Any]] = {}
    if spec.action.discrete:
        columns["available_actions"] = np.ones((2, 2, 3), dtype=np.bool_)
    if spec.has_deaths:
        columns |= {"alive": np.ones((2, 2), dtype=np.bool_), "won": np.ones(1, dtype=np.bool_)}
        columns["states"] = np.array([[0.0], [1.0]], dtype=np.float32)
    return OfflineDataset(
        spec=spec,
        observations=rows,
        actions=np.zeros((1, 2), dtype=np.int64) if spec.action.discrete else np.zeros((1, 2, 1), dtype=np.float32),
        rewards=np.zeros((1, 2), dtype=np.float32),
        terminals=np.ones(1, dtype=np.bool_),
        truncations=np.zeros(1, dtype=np.bool_),
        episode_starts=np.array([0, 1]),
        **columns,
    )


class HandMade:
    """Normalised = raw / 10 - 1. Feature 0 below -1.5 means dead; availability and state are given."""

    def __init__(self, spec: TaskSpec, heads: tuple[str, ...] = (), available: Tensor | None = None) -> None:
        self.spec, self.heads, self.available, self.features = spec, heads, available, spec.obs_dim

    def has(self, head: str) -> bool:
        return head in self.heads

    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor:
        return torch.from_numpy(observations / 10 - 1).float()

    def decode(self, x: Tensor) -> NDArray[np.float32]:
        return ((x + 1) * 10).numpy()

    def decode_actions(self, actions: Tensor) -> NDArray[Any]:
        return actions.argmax(dim=-1).numpy() if self.spec.action.discrete else actions.numpy()

    def availability(self, x: Tensor) -> Tensor:
        assert self.available is not None
        return self.available.expand(*x.shape[:-1], 3)

    def alive(self, x: Tensor) -> Tensor:
        return (x[..., 0] + 1) * 10 > -1.5

    def state(self, x: Tensor) -> Tensor:
        return (x.mean(dim=(-1, -2)) + 1)[..., None] * 10  # mean of all raw features


def rows(observations: Any, actions: Any, rewards: Any, lengths: Any = None, terminal: Any = None) -> GeneratedRows:
    rewards = torch.tensor(rewards, dtype=torch.float32)
    count = np.full(len(rewards), rewards.shape[1]) if lengths is None else np.array(lengths)
    ends = np.zeros(len(rewards), dtype=np.bool_) if terminal is None else np.array(terminal)
    x = HandMade(SPEC).encode(np.array(observations, dtype=np.float32))
    encoded = torch.tensor(actions, dtype=torch.float32)
    return GeneratedRows(observations=x, actions=encoded, rewards=rewards, lengths=count, terminal=ends)


def emitted(spec: TaskSpec, generated: GeneratedRows, **head: Any) -> OfflineDataset:
    data = real_data(spec)
    return check_generated(emit_episodes(HandMade(spec, **head), generated, data), data, spec, "hand")


STILL = [[0.0, 5.0], [0.0, 5.0]]


def test_values_are_clipped_to_what_was_recorded() -> None:
    far = [[[[-9.0, -1.0], [9.0, 11.0]], STILL]]
    data = emitted(SPEC, rows(far, [[[[7.0], [-0.5]]]], [[1.0]]))
    np.testing.assert_allclose(data.observations[0], [[-2, 0], [2, 10]], atol=1e-6)
    assert data.actions[0].tolist() == [[1.0], [-0.5]]


def test_the_team_gets_the_reward_that_was_generated() -> None:
    team = np.array([3.0, -1.5], dtype=np.float32)
    for rule, shares in (("sum", [[1.5, 1.5], [-0.75, -0.75]]), ("mean", [[3, 3], [-1.5, -1.5]])):
        spec = replace(SPEC, team_reward=rule)
        assert per_agent_rewards(team, spec).tolist() == shares
        np.testing.assert_array_equal(spec.fold_rewards(per_agent_rewards(team, spec)), team)
    first = replace(SPEC, team_reward="first")
    np.testing.assert_array_equal(first.fold_rewards(per_agent_rewards(team, first)), team)


def test_episodes_end_in_a_cut_unless_they_truly_end() -> None:
    x = np.tile(np.array(STILL, dtype=np.float32), (3, 5, 1, 1))
    generated = rows(x, np.zeros((3, 4, 2, 1)), np.arange(12).reshape(3, 4), [2, 1, 4], [True, False, True])
    data = emitted(SPEC, generated)
    assert data.lengths.tolist() == [2, 1, 3]  # the task's limit is 3
    assert data.terminals.tolist() == [False, True, False, False, False, False]
    assert data.truncations.tolist() == [False, False, True, False, False, True]  # the end at 4 was cut off
    assert data.team_rewards().tolist() == [0, 1, 4, 8, 9, 10]


def test_segments_are_cuts() -> None:
    generated = rows([[STILL, STILL, STILL]], np.zeros((1, 2, 2, 1)), [[1.0, 2.0]])
    model, data = HandMade(SPEC), real_data(SPEC)
    segments = emit_segments(model, generated.observations, generated.actions, generated.rewards, data)
    assert segments.truncations.tolist() == [False, True]
    assert not segments.terminals.any()


def test_the_chosen_action_is_available_and_something_always_is() -> None:
    choices = [[[[0, 0, 1], [1, 0, 0]]]]  # right, left
    nothing = torch.tensor([False, False, False])
    data = emitted(DISCRETE, rows([[STILL, STILL]], choices, [[0.0]]), heads=("availability",), available=nothing)
    assert data.available_actions is not None
    assert data.actions.tolist() == [[2, 0]]
    assert data.available_actions[0].tolist() == [[False, False, True], [True, False, False]]
    assert data.available_actions[1].tolist() == [[False, True, False]] * 2  # the final row: no-op


def test_without_a_head_everything_is_available() -> None:
    data = emitted(DISCRETE, rows([[STILL, STILL]], [[[[0, 0, 1], [1, 0, 0]]]], [[0.0]]))
    assert data.available_actions is not None
    assert data.available_actions.all()


def test_the_dead_stay_dead_and_do_nothing() -> None:
    dead = [[-1.8, 7.0], [0.0, 5.0]]
    generated = rows([[STILL, dead, STILL]], [[[[0, 0, 1], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]]]], [[0.0, 0.0]])
    data = emitted(BATTLE, generated, heads=("alive", "availability", "state"), available=torch.ones(3).bool())
    assert data.alive is not None
    assert data.available_actions is not None
    assert data.states is not None
    assert data.alive.tolist() == [[True, True], [False, True], [False, True]]  # though the head revives it
    assert data.observations[1:, 0].tolist() == [[0, 0], [0, 0]]
    assert data.actions.tolist() == [[2, 2], [1, 2]]
    assert data.available_actions[1:, 0].tolist() == [[False, True, False]] * 2
    assert data.available_actions[:, 1].all()
    assert data.states[:, 0].tolist() == pytest.approx([1.0, 1.0, 1.0])  # (0 + 5 + 0 + 5) / 4 is beyond the range
    assert data.won is not None
    assert not data.won.any()


def test_states_see_the_dead_as_zeros() -> None:
    low = [[0.0, 0.0], [0.0, 2.0]]
    dead = [[-1.8, 7.0], [0.0, 2.0]]
    generated = rows([[low, dead]], [[[[0, 0, 1], [0, 0, 1]]]], [[0.0]])
    data = emitted(BATTLE, generated, heads=("alive", "state"))
    assert data.states is not None
    assert data.states[:, 0].tolist() == pytest.approx([0.5, 0.5])  # not (-1.8 + 7 + 0 + 2) / 4


def test_the_idle_action_is_found_by_name() -> None:
    assert idle_action(DISCRETE) == 1
    names = ("north", "stop", "attack")
    assert idle_action(replace(SPEC, action=ActionSpec(kind="discrete", size=3, names=names))) == 1
    assert idle_action(replace(SPEC, action=ActionSpec(kind="discrete", size=3))) == 0


def test_flat_columns_and_no_episodes() -> None:
    flat = GeneratedRows.from_flat(
        observations=np.arange(20, dtype=np.float32).reshape(5, 2, 2) / 20,
        actions=np.arange(6, dtype=np.float32).reshape(3, 2, 1) / 6,
        rewards=np.array([1, 2, 3], dtype=np.float32),
        lengths=np.array([1, 2]),
        terminal=np.array([False, True]),
    )
    assert flat.rewards.tolist() == [[1, 0], [2, 3]]
    assert flat.observations[1, :, 0, 0].tolist() == pytest.approx([0.4, 0.6, 0.8])
    assert flat.observations[0, 2].abs().sum() == 0
    joined = GeneratedRows.join([flat[1:], flat[:1]])
    assert joined.lengths.tolist() == [2, 1]
    empty = emit_episodes(HandMade(SPEC), flat[:0], real_data(SPEC))
    assert empty.n_episodes == 0
