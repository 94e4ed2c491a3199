"""The batched environment of the game: one process a battle, watched, and started anew when it hangs."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil

from tasks.base import ActionArray, BatchedEnv, Step
from tasks.common.errors import AugMARLError, DataError, UsageError
from tasks.common.seeding import derive_seed
from tasks.smac.game import Launch, Shown, alive, launch, serve
from tasks.smac.real import RealBattle
from tasks.spec import TaskSpec

log = logging.getLogger(__name__)
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until a silent game counts as hung, and how often a battle is tried to start."""

    reset: float = 180.0
    step: float = 60.0
    tries: int = 3


class HungError(Exception):
    """A game that does not answer, or whose process is gone."""


class GameEnv(BatchedEnv):
    """`num_envs` battles of StarCraft II.

    A battle that hangs ends there: its episode is truncated at the last observation, and its process is replaced at the
    next reset. Episode numbers decide rosters and positions; what the game itself draws does not repeat.

    Args:
        spec: the task.
        battle: who fights.
        num_envs: B, as many processes.
        seed: of all episodes.
        make: launches a game; another one in tests.
        patience: how long is waited.
    """

    def __init__(
        self,
        spec: TaskSpec,
        battle: RealBattle,
        num_envs: int,
        seed: int,
        make: Launch = launch,
        patience: Patience | None = None,
    ) -> None:
        if num_envs < 1:
            raise UsageError(f"{spec.id}: num_envs is {num_envs}. Ask for at least one environment.")
        self.spec, self.num_envs, self._seed = spec, num_envs, seed
        self._patience = Patience() if patience is None else patience
        self._games = [_Process(make, battle, derive_seed("game", seed, b) % 2**31) for b in range(num_envs)]
        self._shown: list[Shown] = []

    def reset(self, episode_ids: Sequence[int]) -> Step:
        """Starts one battle an environment.

        Raises:
            AugMARLError: if one does not start, however often it is tried.
        """
        if len(episode_ids) != self.num_envs:
            raise UsageError(f"{self.spec.id}: {len(episode_ids)} episode numbers for {self.num_envs} environments.")
        seeds = [derive_seed("battle", self._seed, episode) for episode in episode_ids]
        for game, own in zip(self._games, seeds, strict=True):
            game.ask("reset", own)
        self._shown = [self._started(game, own) for game, own in zip(self._games, seeds, strict=True)]
        return self._step()

    def step(self, actions: ActionArray) -> Step:
        """Advances every battle that goes on; those that are over stand still.

        Raises:
            DataError: if the actions have another shape, or one is not available: the game would stop at it.
        """
        self._check(actions)
        running = [b for b, shown in enumerate(self._shown) if not (shown.terminal or shown.truncated)]
        for b in running:
            self._games[b].ask("step", actions[b].tolist())
        self._shown = [replace(shown, reward=0.0) for shown in self._shown]
        for b in running:
            try:
                self._shown[b] = self._games[b].answer(self._patience.step)
            except HungError as error:
                log.warning("%s: battle %d ended early: %s", self.spec.id, b, error)
                self._shown[b] = replace(self._shown[b], truncated=True)
        return self._step()

    def close(self) -> None:
        """Ends all games."""
        for game in self._games:
            game.close()

    def _started(self, game: _Process, seed: int) -> Shown:
        for attempt in range(1, self._patience.tries + 1):
            try:
                return game.answer(self._patience.reset)
            except HungError as error:
                log.warning(
                    "%s: a battle did not start (%d of %d): %s", self.spec.id, attempt, self._patience.tries, error
                )
                if attempt < self._patience.tries:
                    game.ask("reset", seed)
        raise AugMARLError(
            f"{self.spec.id}: StarCraft II did not start a battle in {self._patience.tries} tries of "
            f"{self._patience.reset:.0f} s. Start the game by hand once; `bench doctor` says where it is looked for."
        )

    def _check(self, actions: ActionArray) -> None:
        if not self._shown:
            raise UsageError(f"{self.spec.id}: step before the first reset. Call reset with the episodes' numbers.")
        expected = (self.num_envs, self.spec.n_agents)
        if actions.shape != expected:
            raise DataError(f"{self.spec.id}: actions have shape {actions.shape}, expected {expected}.")
        for b, shown in enumerate(self._shown):
            for agent, action in enumerate(actions[b].tolist()):
                legal = 0 <= action < self.spec.action.size and shown.available[agent, action]
                if not (legal or shown.terminal or shown.truncated):
                    raise DataError(f"{self.spec.id}: action {action} of agent {agent} in battle {b} is not available.")

    def _step(self) -> Step:
        shown = self._shown
        available = np.stack([one.available for one in shown])
        rewards = np.array([one.reward for one in shown], dtype=np.float32)
        return Step(
            observations=np.stack([one.observations for one in shown]),
            rewards=np.repeat(rewards[:, None], self.spec.n_agents, axis=1),
            terminals=np.array([one.terminal for one in shown]),
            truncations=np.array([one.truncated for one in shown]),
            states=np.stack([one.states for one in shown]),
            available_actions=available,
            alive=alive(available),
            won=np.array([one.won for one in shown]),
        )


class _Process:
    """A game and its process, started when it is first asked."""

    def __init__(self, make: Launch, battle: RealBattle, seed: int) -> None:
        self._arguments = (make, battle, seed)
        self._process: Any = None
        self._connection: Any = None

    def ask(self, *message: Any) -> None:
        """Sends a command; `answer` waits for what it says."""
        if self._process is None or not self._process.is_alive():
            self._start()
        with contextlib.suppress(OSError):  # a process that is just gone is found out by `answer`
            self._connection.send(message)

    def answer(self, seconds: float) -> Shown:
        """What the game shows.

        Raises:
            HungError: if it says nothing for so long, or ended; it is then no more.
        """
        deadline = time.monotonic() + seconds
        try:
            if self._connection.poll(max(0.0, deadline - time.monotonic())):
                shown: Shown = self._connection.recv()
                return shown
            reason = f"no answer for {seconds:.0f} s"
        except (EOFError, OSError):
            reason = "its process ended"
        self.kill()
        raise HungError(reason)

    def close(self) -> None:
        """Ends the game as it likes to be ended, or else kills it."""
        if self._process is not None and self._process.is_alive():
            with contextlib.suppress(OSError):
                self._connection.send(("close",))
            self._process.join(timeout=10)
        self.kill()

    def kill(self) -> None:
        """Ends the process with all that it started: the game is its child."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._process.kill()
        self._process.join(timeout=10)
        self._connection.close()
        self._process = self._connection = None

    def _start(self) -> None:
        self.kill()
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
