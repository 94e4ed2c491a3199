"""Robots on the engine: views, rewards and ends, against gymnasium-robotics' own split of them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.common.errors import DataError, UsageError
from tasks.common.seeding import derive_seed
from tasks.mamujoco.env import MuJoCoEnv
from tasks.mamujoco.robots import ROBOTS
from tasks.mamujoco.task import MAMuJoCoTask
from tasks.registry import make_task

pytest.importorskip("mujoco", reason="needs the extra mamujoco")
pytest.importorskip("gymnasium", reason="needs the extra mamujoco")
from tasks.mamujoco.simulator import Simulations  # needs both


def make_env(name: str, num_envs: int, seed: int = 0, threads: int = 1) -> MuJoCoEnv:
    task = make_task(name)
    assert isinstance(task, MAMuJoCoTask)
    return MuJoCoEnv(task.spec, task.robot, Simulations(task.robot.environment, num_envs, threads), num_envs, seed)


def reference(name: str) -> Any:
    """The multi-agent environment of gymnasium-robotics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
        robot = ROBOTS[name]
        return package.mamujoco_v1.parallel_env(robot.scenario, robot.partition, agent_obsk=1)


@pytest.mark.parametrize("name", ROBOTS)
def test_steps_equal_those_of_gymnasium_robotics(name: str) -> None:
    ours, theirs, seed = make_env(name, 2, seed=3), reference(name), derive_seed("mujoco", 3, 7) & 0xFFFFFFFF
    shown = ours.reset([1, 7])
    observed, _ = theirs.reset(seed=seed)
    generator = np.random.default_rng(0)
    shape = (2, ours.spec.n_agents, ours.spec.action.size)
    for _ in range(20):
        assert shown.states is not None
        assert shown.observations[1] == pytest.approx(np.stack([observed[a] for a in theirs.possible_agents]), abs=1e-5)
        assert shown.states[1] == pytest.approx(theirs.state(), abs=1e-5)
        actions = generator.uniform(-1, 1, shape).astype(np.float32)
        shown = ours.step(actions)
        observed, rewards, ended, _, _ = theirs.step({a: actions[1, i] for i, a in enumerate(theirs.possible_agents)})
        assert shown.rewards[1] == pytest.approx([rewards[a] for a in theirs.possible_agents], abs=1e-4)
        assert bool(shown.terminals[1]) == any(ended.values())
        if any(ended.values()):
            break


def test_an_episode_is_its_number_and_the_seed_on_any_number_of_threads() -> None:
    def run(num_envs: int, ids: list[int], threads: int, seed: int = 0) -> np.ndarray:
        env = make_env("mamujoco/4ant", num_envs, seed, threads)
        shown, seen = env.reset(ids), []
        for t in range(5):
            seen.append(shown.observations)
            shown = env.step(np.full((num_envs, 4, 2), 0.1 * t, dtype=np.float32))
        env.close()
        return np.stack(seen)

    together = run(5, [4, 9, 2, 7, 1], threads=2)
    alone = run(1, [7], threads=1)
    assert (together[:, 3] == alone[:, 0]).all()
    assert (alone != run(1, [7], threads=1, seed=1)).any()
    assert (together[0, 0] != together[0, 1]).any()


def test_an_ant_that_falls_ends_and_the_limit_truncates() -> None:
    env = make_env("mamujoco/4ant", 4)
    env.spec = replace(env.spec, episode_limit=150)
    shown = env.reset(range(4))
    ended = np.zeros(4, dtype=bool)
    generator = np.random.default_rng(1)
    for _ in range(150):
        shown = env.step(generator.uniform(-1, 1, (4, 4, 2)).astype(np.float32))
        assert not (shown.terminals & shown.truncations).any()
        ended |= shown.terminals
    assert ended.any()
    assert (shown.truncations == ~shown.terminals).all()
    cheetah = make_env("mamujoco/2halfcheetah", 1)
    cheetah.spec = replace(cheetah.spec, episode_limit=2)
    cheetah.reset([0])
    flags = [cheetah.step(np.zeros((1, 2, 3), dtype=np.float32)) for _ in range(2)]
    assert [bool(step.truncations[0]) for step in flags] == [False, True]


def test_rewards_are_shared_and_arrays_have_single_precision() -> None:
    env = make_env("mamujoco/2ant", 3)
    env.reset(range(3))
    shown = env.step(np.full((3, 2, 4), 0.3, dtype=np.float32))
    assert shown.states is not None
    assert shown.observations.dtype == shown.rewards.dtype == shown.states.dtype == np.float32
    assert (shown.rewards == shown.rewards[:, :1]).all()
    assert shown.rewards.any()


def test_actions_are_clipped_and_bad_ones_refused() -> None:
    one, two = make_env("mamujoco/2halfcheetah", 1), make_env("mamujoco/2halfcheetah", 1)
    one.reset([0])
    two.reset([0])
    far = one.step(np.full((1, 2, 3), 5.0, dtype=np.float32))
    assert (far.observations == two.step(np.ones((1, 2, 3), dtype=np.float32)).observations).all()
    with pytest.raises(DataError, match=r"shape \(1, 3\), expected \(1, 2, 3\)"):
        one.step(np.zeros((1, 3), dtype=np.float32))
    with pytest.raises(DataError, match="not finite"):
        one.step(np.full((1, 2, 3), np.nan, dtype=np.float32))
    with pytest.raises(UsageError, match="2 episode numbers for 1"):
        one.reset([0, 1])


def test_the_engine_leaves_no_file_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_env("mamujoco/2halfcheetah", 1).reset([0])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
