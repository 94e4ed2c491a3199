"""SMAX (JaxMARL), batched: battles that start, advance and are shown by two compiled programs.

JAX computes the environment and nothing else. A program works on `CHUNK` battles whatever the batch, so that it is
compiled once a map, and a battle is the same to the last bit in whatever batch it stands.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tasks.smac.generators import RaceUnits, StartPositions, inside
from tasks.smac.maps import UNIT_TYPES, Battle, roster
from tasks.smac.observe import state_scale

CHUNK = 32
_ZEALOT = UNIT_TYPES.index("zealot")
_WIN_POINTS, _KILL_POINTS, _MAX_RETURN = 200.0, 10.0, 20.0  # SMAC's reward: 20 is the return of a won battle


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a task chooses of the engine.

    Attributes:
        reward: `smac`, damage, kills and victory in SMAC's points; or `smax10`, ten times SMAX's own.
        positions: of SMACv2 battles, `smacv2` or `smax`; see `StartPositions`.
        weights: of SMACv2 rosters, `smacv2` or `mastars`.
        zealot_damage: a hit; None: SMAX's.
    """

    reward: str = "smac"
    positions: str = "smacv2"
    weights: str = "smacv2"
    zealot_damage: float | None = None


class Shown(NamedTuple):
    """What agents and learners see of a battle, with a leading axis of `CHUNK`."""

    observations: Any  # (N, D)
    states: Any  # (K,)
    available: Any  # (N, A) in SMAX's layout
    alive: Any  # (N,)
    over: Any  # () whether one team has no unit left
    won: Any  # () whether it is the enemies alone
    reward: Any  # () of the step


class Battles:
    """The compiled programs of one battle.

    Args:
        battle: who fights.
        rules: choices of the task.

    Attributes:
        engine: JaxMARL's environment of one battle.
    """

    def __init__(self, battle: Battle, rules: Rules) -> None:
        self._battle, self._rules = battle, rules
        self.engine = _environment(battle, rules)
        self._both = self.engine._env  # with both teams
        self._scale = jnp.asarray(state_scale(battle, self._both.map_width))
        self._start = jax.jit(jax.vmap(self._start_one, in_axes=(None, 0)))
        self._advance = jax.jit(jax.vmap(self._advance_one))

    def start(self, seed: int, episodes: NDArray[np.uint32]) -> tuple[Any, Shown]:
        """The battles of `CHUNK` episode numbers; what `advance` goes on from, and what is shown."""
        words = np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
        return self._start(words, episodes)  # type: ignore[no-any-return]  # a program

    def advance(self, battles: Any, actions: NDArray[np.int32]) -> tuple[Any, Shown]:
        """One step: actions (CHUNK, N) in SMAX's layout."""
        return self._advance(battles, actions)  # type: ignore[no-any-return]  # a program

    # -- one battle ----------------------------------------------------------------------------------------------

    def _start_one(self, seed: Any, episode: Any) -> tuple[Any, Shown]:
        own = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), episode)
        reset_key, step_key = jax.random.split(own)
        _, state = self.engine.reset(reset_key)
        if self._battle.drawn:  # units that stood on one another were pushed apart
            units = inside(state.state.unit_positions, self._both.map_width)
            state = state.replace(state=state.state.replace(unit_positions=units))
        observations = self._both.get_obs(state.state)
        return (step_key, _typed(state)), self._show(observations, state.state, jnp.zeros(()))

    def _advance_one(self, battle: tuple[Any, Any], actions: Any) -> tuple[Any, Shown]:
        key, state = battle
        before = state.state
        named = {agent: actions[i] for i, agent in enumerate(self.engine.agents)}
        observations, state, _, _, _ = self.engine.step_env(jax.random.fold_in(key, before.step), state, named)
        return (key, _typed(state)), self._show(observations, state.state, self._reward(before, state.state))

    def _show(self, observations: Any, units: Any, reward: Any) -> Shown:
        ours = self._battle.allies
        available = self._both.get_avail_actions(units)
        alive, hostile = units.unit_alive[:ours], units.unit_alive[ours:]
        return Shown(
            observations=jnp.stack([observations[agent] for agent in self.engine.agents]),
            states=self._both.get_world_state(units) * self._scale,
            available=jnp.stack([available[agent] for agent in self.engine.agents]).astype(bool),
            alive=alive,
            over=~alive.any() | ~hostile.any(),
            won=alive.any() & ~hostile.any(),
            reward=reward,
        )

    def _reward(self, before: Any, after: Any) -> Any:
        enemies = slice(self._battle.allies, None)
        full = self._both.unit_type_health[before.unit_types[enemies]]
        damage = before.unit_health[enemies] - after.unit_health[enemies]
        won = after.unit_alive[: self._battle.allies].any() & ~after.unit_alive[enemies].any()
        if self._rules.reward == "smax10":
            return _MAX_RETURN / 2 * ((damage / full).mean() + won)
        kills = (before.unit_alive[enemies] & ~after.unit_alive[enemies]).sum()
        points = damage.sum() + _KILL_POINTS * kills + _WIN_POINTS * won
        most = full.sum() + _KILL_POINTS * self._battle.enemies + _WIN_POINTS
        return _MAX_RETURN * points / most


def _typed(state: Any) -> Any:
    """The state with fixed types of numbers: of a fresh battle and of an older one alike, or both would be compiled."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=leaf.dtype), state)


@cache
def battles(battle: Battle, rules: Rules) -> Battles:
    """The programs of a battle, compiled once a process."""
    return Battles(battle, rules)


def _environment(battle: Battle, rules: Rules) -> Any:
    """JaxMARL's environment with a scripted enemy, its generators replaced where it draws."""
    engine, scripted = _modules()
    units = [UNIT_TYPES.index(unit) for unit in battle.units] or [0] * (battle.allies + battle.enemies)
    scenario = engine.Scenario(
        jnp.array(units, dtype=jnp.uint8), battle.allies, battle.enemies, battle.drawn, battle.drawn
    )
    chosen = {}
    if rules.zealot_damage is not None:
        stock = engine.SMAX(scenario=scenario).unit_type_attacks
        chosen["unit_type_attacks"] = stock.at[_ZEALOT].set(rules.zealot_damage)
    # The limit of an episode is counted outside: the engine's own is one step too long.
    env = scripted.HeuristicEnemySMAX(scenario=scenario, max_steps=battle.limit, **chosen)
    if battle.drawn:
        size = float(env.map_width)
        shares = roster(battle.race, rules.weights)
        env._env.unit_type_generator = RaceUnits(battle.allies, battle.enemies, shares)
        env._env.position_generator = StartPositions(battle.allies, battle.enemies, size, rules.positions == "smacv2")
    return env


@contextlib.contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """Of the descriptor itself: what JaxMARL prints when it is imported gets past `contextlib.redirect_stdout`."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@cache
def _modules() -> tuple[Any, Any]:
    """JaxMARL's modules of the engine and of its scripted enemies.

    Their import prints, and warns of what only their authors can change.
    """
    if "JAX_PLATFORMS" not in os.environ:  # an accelerator is the learners'; small battles gain nothing there
        jax.config.update("jax_platforms", "cpu")
    with _nothing_on_stdout(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jaxmarl.environments.smax import heuristic_enemy_smax_env, smax_env

    return smax_env, heuristic_enemy_smax_env
