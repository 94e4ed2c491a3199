"""Battles in processes of their own, against stand-ins of the game: ends, wins, hangs and lost connections."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tasks.common.errors import AugMARLError, DataError, UsageError
from tasks.registry import make_task
from tasks.smac.game import Launch, reseed
from tasks.smac.game_env import GameEnv, Patience
from tasks.smac.task import StarCraftTask
from tests.unit.smac.fake_game import BreakingGame, EndlessGame, FakeGame, HangingGame, LosingGame, NeverStarts

Play = Callable[..., GameEnv]


@pytest.fixture
def play() -> Iterator[Play]:
    """Makes environments, and ends their processes."""
    made: list[GameEnv] = []

    def make(game: Launch, num_envs: int = 1, step: float = 60.0, seed: int = 0) -> GameEnv:
        task = make_task("smac/3m[engine=sc2]")
        assert isinstance(task, StarCraftTask)
        made.append(GameEnv(task.spec, task.battle, num_envs, seed, game, Patience(reset=60.0, step=step, tries=2)))
        return made[-1]

    yield make
    for env in made:
        env.close()


STOP = np.ones((1, 3), dtype=np.int64)


def test_a_battle_from_start_to_victory(play: Play) -> None:
    env = play(FakeGame, 2)
    shown = env.reset([4, 5])
    assert shown.observations.shape == (2, 3, 30)
    assert shown.states is not None
    assert shown.states.shape == (2, 48)
    assert (shown.observations[0] != shown.observations[1]).any()
    actions = np.ones((2, 3), dtype=np.int64)
    rewards, dead = [], []
    for _ in range(3):
        shown = env.step(actions)
        rewards.append(shown.rewards.tolist())
        assert shown.alive is not None
        dead.append((~shown.alive).tolist())
        actions = np.where(shown.available_actions[..., 0], 0, 1)  # type: ignore[index]
    assert rewards == [[[1.0] * 3] * 2] * 2 + [[[2.0] * 3] * 2]
    assert dead == [[[False] * 3] * 2] + [[[False, False, True]] * 2] * 2
    assert shown.won is not None
    assert (shown.terminals.tolist(), shown.truncations.tolist(), shown.won.tolist()) == (
        [True] * 2,
        [False] * 2,
        [True] * 2,
    )
    after = env.step(actions)  # it is over: nothing moves, nothing is paid
    assert not after.rewards.any()
    assert (after.observations == shown.observations).all()


def test_rosters_repeat_with_the_number_and_the_seed(play: Play) -> None:
    env = play(FakeGame, 2)
    first = env.reset([7, 8]).observations
    assert (env.reset([8, 7]).observations == first[::-1]).all()
    assert (play(FakeGame, 2, seed=1).reset([7, 8]).observations != first).all()


def test_time_is_up_while_both_teams_live(play: Play) -> None:
    env = play(EndlessGame)
    env.reset([0])
    for _ in range(4):
        shown = env.step(np.where(np.arange(3) == 2, 0, 1)[None] if env._shown[0].available[2, 0] else STOP)
    assert (shown.terminals[0], shown.truncations[0]) == (False, True)


def test_a_lost_battle_ends_truly(play: Play) -> None:
    env = play(LosingGame)
    env.reset([0])
    shown = env.step(STOP)
    assert shown.won is not None
    assert (shown.terminals[0], shown.truncations[0], shown.won[0]) == (True, False, False)


def test_a_hung_game_ends_its_episode_and_is_replaced(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "hung"
    monkeypatch.setenv("FAKE_GAME_MARK", str(mark))
    env = play(HangingGame, step=2.0)
    env.reset([0])
    before = env.step(STOP)
    with caplog.at_level(logging.WARNING):
        shown = env.step(STOP)
    assert "battle 0 ended early: no answer for 2 s" in caplog.text
    assert (shown.terminals[0], shown.truncations[0]) == (False, True)
    assert (shown.observations == before.observations).all()
    assert not shown.rewards.any()
    hung = int(mark.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(hung) and psutil.Process(hung).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = env.reset([0])
    assert not (again.terminals | again.truncations).any()
    assert env.step(STOP).rewards.tolist() == [[1.0] * 3]


def test_a_lost_connection_is_a_hang(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    env = play(BreakingGame)
    env.reset([0])
    with caplog.at_level(logging.WARNING):
        shown = env.step(STOP)
    assert "its process ended" in caplog.text
    assert shown.truncations[0]
    assert not (env.reset([1]).truncations).any()


def test_a_game_that_never_starts_is_an_error(play: Play) -> None:
    with pytest.raises(AugMARLError, match=r"did not start a battle in 2 tries"):
        play(NeverStarts).reset([0])


def test_bad_input_is_refused_before_the_game_sees_it(play: Play) -> None:
    env = play(FakeGame)
    with pytest.raises(UsageError, match="before the first reset"):
        env.step(STOP)
    with pytest.raises(UsageError, match="2 episode numbers for 1"):
        env.reset([0, 1])
    env.reset([0])
    for wrong in (0, 7, 9, -1):
        with pytest.raises(DataError, match=rf"action {wrong} of agent 0 in battle 0 is not available"):
            env.step(np.array([[wrong, 1, 1]]))
    with pytest.raises(DataError, match=r"shape \(3,\), expected \(1, 3\)"):
        env.step(np.ones(3, dtype=np.int64))
    with pytest.raises(UsageError, match="at least one"):
        play(FakeGame, 0)
    assert env.step(STOP).rewards.any()


class Positions:
    """A distribution that holds others, as smacv2's of start positions do."""

    def __init__(self, *inner: Positions) -> None:
        self.rng = np.random.default_rng()
        self.config = {"p": 0.5}
        self.first, self.second = (*inner, None, None)[:2]

    def generate(self) -> list[float]:
        held = [other for other in (self.first, self.second) if other is not None]
        return [float(self.rng.random()), *(value for other in held for value in other.generate())]


def test_every_distribution_within_another_draws_from_the_seed() -> None:
    teams, places = Positions(), Positions(Positions(), Positions(Positions()))
    draws = []
    for seed in (3, 3, 4):
        reseed([teams, places], seed)
        draws.append([*teams.generate(), *places.generate()])
    assert draws[0] == draws[1]
    assert len({*draws[0], *draws[2]}) == 10  # five generators, no two alike, and none as of another seed
