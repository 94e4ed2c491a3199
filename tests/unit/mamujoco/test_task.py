"""The tables of the robots: sizes, views, names, and what a machine without the engine is told."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.common.errors import DataError, MissingDependencyError, UnknownNameError, UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.mamujoco.robots import ROBOTS
from tasks.registry import TASKS, make_task


@pytest.mark.parametrize(
    ("name", "agents", "obs", "actions", "state"),
    [
        ("mamujoco/4ant", 4, 42, 2, 105),
        ("mamujoco/2ant", 2, 63, 4, 105),
        ("mamujoco/2halfcheetah", 2, 12, 3, 17),
    ],
)
def test_sizes(name: str, agents: int, obs: int, actions: int, state: int) -> None:
    spec = make_task(name).spec
    assert (spec.n_agents, spec.obs_dim, spec.action.size, spec.state_dim) == (agents, obs, actions, state)
    assert (spec.action.kind, spec.action.low, spec.action.high, spec.episode_limit) == ("continuous", -1.0, 1.0, 1000)
    assert (spec.team_reward, spec.has_win, spec.has_deaths) == ("first", False, False)
    robot = ROBOTS[name]
    driven = [actuator for own in robot.actuators for actuator in own]
    assert sorted(driven) == list(range(agents * actions))
    assert len(set(robot.names)) == obs
    assert all(len(set(own)) == obs for own in robot.observed)


def test_every_robot_is_registered() -> None:
    assert {name for name in TASKS.names() if name.startswith("mamujoco/")} == set(ROBOTS)


def test_views_of_an_ant_by_hand() -> None:
    robot = ROBOTS["mamujoco/4ant"]
    assert robot.observed[1][:3] == (8, 22, 51)  # ankle 2, its velocity, the first contact of its leg
    assert robot.observed[1][20:22] == (7, 21)  # hip 2 and its velocity
    assert robot.observed[1][28:31] == (5, 9, 11)  # the other hips
    assert robot.observed[1][31:] == (0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 18)
    assert robot.names[0] == "leg_0_ankle_position"
    assert robot.names[28] == "other_hip_0_position"
    assert robot.actuators == ((2, 3), (4, 5), (6, 7), (0, 1))


def test_only_like_agents_are_exchangeable() -> None:
    assert make_task("mamujoco/4ant").spec.agent_groups == ((0, 1, 2, 3),)
    assert make_task("mamujoco/2ant").spec.agent_groups == ((0, 1),)
    assert make_task("mamujoco/2halfcheetah").spec.agent_groups == ((0,), (1,))


def test_what_a_task_cannot_be() -> None:
    with pytest.raises(UsageError, match="has no parameter 'legs'"):
        make_task("mamujoco/4ant[legs=6]")
    with pytest.raises(UnknownNameError, match="mamujoco/4ant"):
        make_task("mamujoco/5ant")
    with pytest.raises(UsageError, match="at least one"):
        make_task("mamujoco/4ant").make_env(0, seed=0)


def test_without_the_engine_a_task_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.mamujoco.task.find_spec", lambda name: None if name == "mujoco" else object())
    task = make_task("mamujoco/4ant")
    assert task.unavailable() == "mujoco not installed; pip install 'augmarl[mamujoco]'"
    with pytest.raises(MissingDependencyError, match="mamujoco/4ant: mujoco not installed"):
        task.make_env(1, seed=0)


def test_data_of_another_observation_are_refused_with_both_sizes() -> None:
    spec = make_task("mamujoco/4ant").spec
    with pytest.raises(DataError, match=r"27.*42|42.*27"):
        OfflineDataset(
            spec=spec,
            observations=np.zeros((2, 4, 27), dtype=np.float32),
            actions=np.zeros((1, 4, 2), dtype=np.float32),
            rewards=np.zeros((1, 4), dtype=np.float32),
            terminals=np.zeros(1, dtype=np.bool_),
            truncations=np.ones(1, dtype=np.bool_),
            episode_starts=np.array([0, 1]),
            states=np.zeros((2, 105), dtype=np.float32),
        )
