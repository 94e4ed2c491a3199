"""OfflineDataset: two episodes of 2 and 1 steps, one agent pair, all numbers by hand."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tasks.common.errors import DataError
from tasks.datasets import values
from tasks.datasets.offline import OfflineDataset, concatenate
from tasks.spec import ActionSpec, TaskSpec

SPEC = TaskSpec(
    id="toy/pair",
    family="toy",
    engine="toy",
    engine_version="1",
    variant="discrete",
    n_agents=2,
    obs_dim=1,
    state_dim=None,
    action=ActionSpec(kind="discrete", size=3),
    episode_limit=2,
    team_reward="sum",
    agent_groups=((0, 1),),
    observation_features=("place",),
)


@pytest.fixture
def data() -> OfflineDataset:
    rows = np.array([10, 11, 12, 20, 21], dtype=np.float32)  # episode 0: rows 0-2, episode 1: rows 3-4
    return OfflineDataset(
        spec=SPEC,
        observations=np.stack([rows, rows + 100], axis=1)[..., None],
        actions=np.array([[0, 1], [1, 2], [2, 0]]),
        rewards=np.array([[1, 10], [2, 20], [4, 40]], dtype=np.float32),
        terminals=np.array([False, True, False]),
        truncations=np.array([False, False, True]),
        episode_starts=np.array([0, 2, 3]),
        available_actions=np.ones((5, 2, 3), dtype=np.bool_),
        behaviour=np.array([[0, 2], [0, 2], [2, 0]], dtype=np.int8),
    )


def test_sizes_and_where_rows_lie(data: OfflineDataset) -> None:
    assert (data.n_episodes, data.n_steps) == (2, 3)
    assert data.lengths.tolist() == [2, 1]
    assert data.row_starts.tolist() == [0, 3, 5]
    assert data.episode_of_step().tolist() == [0, 0, 1]
    assert data.row_of_step().tolist() == [0, 1, 3]


@pytest.mark.parametrize(("rule", "returns"), [("sum", [33.0, 44.0]), ("mean", [16.5, 22.0]), ("first", [3.0, 4.0])])
def test_returns_follow_the_team_rule(data: OfflineDataset, rule: str, returns: list[float]) -> None:
    assert replace(data, spec=replace(SPEC, team_reward=rule)).returns().tolist() == returns


def test_returns_to_go_stop_at_the_end_of_an_episode(data: OfflineDataset) -> None:
    # team rewards 11, 22 | 44: 11 + 0.5 · 22 = 22, then 22, and 44 alone
    assert data.returns_to_go(0.5).tolist() == [22.0, 22.0, 44.0]


def test_take_reorders_and_repeats_whole_episodes(data: OfflineDataset) -> None:
    taken = data.take([1, 0, 1])
    assert taken.observations[:, 0, 0].tolist() == [20, 21, 10, 11, 12, 20, 21]
    assert taken.rewards[:, 0].tolist() == [4, 1, 2, 4]
    assert taken.episode_starts.tolist() == [0, 1, 3, 4]
    assert taken.terminals.tolist() == [False, False, True, False]
    assert taken.available_actions is not None
    assert taken.available_actions.shape == (7, 2, 3)
    taken.validate()


@pytest.mark.parametrize(("index", "named"), [(2, "episode 2;"), (-1, "episode -1;")])
def test_take_names_the_episode_that_is_not_there(data: OfflineDataset, index: int, named: str) -> None:
    with pytest.raises(DataError, match=named):
        data.take([0, index])


def test_concatenate_drops_columns_that_one_side_lacks(data: OfflineDataset) -> None:
    joined = concatenate([data, data.without_privileged()])
    assert joined.behaviour is None
    assert joined.episode_starts.tolist() == [0, 2, 3, 5, 6]
    assert joined.observations[:, 0, 0].tolist() == [10, 11, 12, 20, 21] * 2


def test_concatenate_refuses_other_tasks_and_nothing(data: OfflineDataset) -> None:
    with pytest.raises(DataError, match=r"toy/pair and toy/other"):
        concatenate([data, replace(data, spec=replace(SPEC, id="toy/other"))])
    with pytest.raises(DataError, match="no dataset"):
        concatenate([])


def test_episodes_are_views(data: OfflineDataset) -> None:
    first, second = data.episodes()
    assert first["observations"][:, 1, 0].tolist() == [110, 111, 112]
    assert second["actions"].tolist() == [[2, 0]]
    assert first["rewards"].base is not None


def test_replace_checks_again(data: OfflineDataset) -> None:
    with pytest.raises(DataError, match=r"'rewards' has shape \(3, 1\).*expected \(3, 2\)"):
        data.replace(rewards=data.rewards[:, :1])
    with pytest.raises(DataError, match="'rewards' has shape .* and dtype float64"):
        data.replace(rewards=data.rewards.astype(np.float64))
    with pytest.raises(DataError, match="'available_actions' is missing"):
        data.replace(available_actions=None)


def _with(column: np.ndarray, index: object, value: object) -> np.ndarray:
    changed = column.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize("block", [1, 2, 2**16])
def test_validate_names_column_and_first_index(
    data: OfflineDataset, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_BLOCK", block)
    data.validate()
    assert data.available_actions is not None
    assert data.behaviour is not None
    faults: list[tuple[dict[str, np.ndarray], str]] = [
        ({"observations": _with(data.observations, (3, 1, 0), np.nan)}, r"'observations' are not finite .*\(3, 1, 0\)"),
        ({"rewards": _with(data.rewards, (1, 0), np.inf)}, r"'rewards' are not finite .*\(1, 0\)"),
        ({"actions": _with(data.actions, (2, 1), 3)}, r"'actions' are not one of 0..2 .*\(2, 1\)"),
        ({"available_actions": _with(data.available_actions, (1, 1, 2), False)}, r"not available .*\(1, 1\)"),
        ({"truncations": _with(data.truncations, 1, True)}, r"'truncations' are not False .*\(1,\)"),
        ({"truncations": _with(data.truncations, 0, True)}, r"not False before the last step .*\(0,\)"),
        ({"behaviour": _with(data.behaviour, (0, 0), 9)}, r"'behaviour' are not a known code"),
        ({"episode_starts": np.array([0, 0, 3])}, "episode_starts must rise"),
    ]
    for columns, message in faults:
        with pytest.raises(DataError, match=message):
            data.replace(**columns).validate()


def test_validate_counts_over_all_blocks(data: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_BLOCK", 1)
    faulty = _with(data.rewards, ([1, 2, 2], [1, 0, 1]), np.nan)
    with pytest.raises(DataError, match=r"3 of 6 entries of 'rewards' .*first at index \(1, 1\)"):
        data.replace(rewards=faulty).validate()


def test_validate_needs_little_memory_beside_the_data(data: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_BLOCK", 1_024)
    many, spec = data.repeat(20_000), replace(SPEC, obs_dim=64, observation_features=tuple(map(str, range(64))))
    wide = replace(many, spec=spec, observations=np.zeros((len(many.observations), 2, 64), np.float32))
    tracemalloc.start()
    wide.validate()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < wide.observations.size / 2  # a flag for each would be a byte


def test_validate_refuses_actions_outside_the_box(data: OfflineDataset) -> None:
    spec = replace(SPEC, action=ActionSpec(kind="continuous", size=1))
    box = replace(data, spec=spec, actions=np.full((3, 2, 1), 1.0, np.float32), available_actions=None)
    box.validate()
    for value in (1.01, -1.01, np.nan):
        with pytest.raises(DataError, match=r"not in \[-1.0, 1.0\].*\(2, 0, 0\)"):
            box.replace(actions=_with(box.actions, (2, 0, 0), value)).validate()
