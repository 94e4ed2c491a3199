"""Stand-ins for smacv2's environment, with its methods, for processes that must be able to import them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from tasks.smac.real import RealBattle


class FakeGame:
    """3m: agent 2 dies in the second step; the battle is won in the third, and with `draws` never."""

    draws = False

    def __init__(self, battle: RealBattle, seed: int) -> None:
        self.battle, self.seed, self.steps = battle, seed, 0
        self.closed = False

    def reset(self) -> None:
        self.steps, self.number = 0, float(np.random.random())  # noqa: NPY002  # as smacv2 draws

    def get_obs(self) -> list[np.ndarray]:
        size = len(self.battle.features())
        return [np.full(size, self.number + self.steps + 0.1 * agent) for agent in range(3)]

    def get_state(self) -> np.ndarray:
        return np.full(self.battle.state_dim, self.number)

    def get_avail_agent_actions(self, agent: int) -> list[int]:
        living, dead = [0, 1, 1, 1, 1, 1, 1, 0, 0], [1] + [0] * 8
        return dead if agent == 2 and self.steps >= 2 else living

    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, Any]]:
        self.steps += 1
        if self.draws:
            return 0.5, self.steps == 4, {"battle_won": False, "dead_allies": 1, "dead_enemies": 2}
        over = self.steps == 3
        return 1.0 + over, over, {"battle_won": over, "dead_allies": 1, "dead_enemies": 3 if over else 1}

    def close(self) -> None:
        self.closed = True


class EndlessGame(FakeGame):
    draws = True


class LosingGame(FakeGame):
    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, Any]]:
        return 0.0, True, {"battle_won": False, "dead_allies": 3, "dead_enemies": 1}


class HangingGame(FakeGame):
    """Hangs in the second step of its first battle; a file remembers that it did."""

    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, Any]]:
        mark = Path(os.environ["FAKE_GAME_MARK"])
        if self.steps == 1 and not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(600)
        return super().step(actions)


class BreakingGame(FakeGame):
    """Loses its connection: smacv2 then returns an end without any information."""

    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, Any]]:
        return 0.0, True, {}


class NeverStarts(FakeGame):
    def reset(self) -> None:
        os._exit(3)
