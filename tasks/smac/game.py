"""One battle of StarCraft II in a process of its own: the game hangs at times, and then it can be killed.

`serve` is the child's side: it launches the game through smacv2 and answers `reset` and `step`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.smac.real import NO_OP, RealBattle, capability_config

Launch = Callable[[RealBattle, int], Any]
"""Makes smacv2's environment of a battle, with a seed for the game."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one battle shows after a reset or a step."""

    observations: NDArray[np.float32]  # (N, D)
    states: NDArray[np.float32]  # (K,)
    available: NDArray[np.bool_]  # (N, A)
    reward: float = 0.0
    terminal: bool = False
    truncated: bool = False
    won: bool = False


class BrokenGameError(Exception):
    """The connection to the game failed: smacv2 then ends the episode without saying how it stands."""


def launch(battle: RealBattle, seed: int) -> Any:
    """smacv2's environment. Needs the package and the game (SC2PATH)."""
    if battle.roster:
        from smacv2.env.starcraft2.wrapper import StarCraftCapabilityEnvWrapper

        return StarCraftCapabilityEnvWrapper(
            capability_config=capability_config(battle),
            map_name=battle.map_name,
            conic_fov=False,
            obs_own_pos=True,
            use_unit_ranges=True,
            min_attack_range=2,
            seed=seed,
        )
    from smacv2.env import StarCraft2Env

    if battle.map_name == "12m":
        _register_12m(battle)
    return StarCraft2Env(map_name=battle.map_name, seed=seed)


def _register_12m(battle: RealBattle) -> None:
    """smacv2 has no 12m: its table gets an entry, and pysc2 a map of that name (the file comes with OffPyMARL)."""
    from smacv2.env.starcraft2.maps import smac_maps

    entry = {"n_agents": battle.allies, "n_enemies": battle.enemies, "limit": battle.limit, "a_race": "T"}
    more = {"b_race": "T", "unit_type_bits": 0, "map_type": "marines", "map_name": "12m"}
    smac_maps.map_param_registry.setdefault("12m", {**entry, **more})
    type("12m", (smac_maps.SMACMap,), {"filename": "12m"})


def serve(connection: Connection, make: Launch, battle: RealBattle, seed: int) -> None:
    """Answers ("reset", seed) and ("step", actions) with a `Shown`, until ("close",) or the other side goes."""
    game = make(battle, seed)
    try:
        while True:
            try:
                command, *arguments = connection.recv()
            except EOFError:
                return
            if command == "close":
                return
            connection.send((_reset if command == "reset" else _step)(game, battle, *arguments))
    finally:
        game.close()


def _reset(game: Any, battle: RealBattle, seed: int) -> Shown:
    """A new battle; rosters and positions are drawn from `seed`, what the game draws itself is not.

    smacv2 shuffles teams with Python's global generator, and looks at enemies with numpy's: it takes no other. Both
    are this process's, in which nothing but one game draws.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # see above
    if battle.roster:
        reseed(game.env_key_to_distribution_map.values(), seed)
    game.reset()  # its result is None after a retry within smacv2
    return Shown(**_views(game, battle))


def reseed(distributions: Iterable[Any], seed: int) -> None:
    """Gives smacv2's distributions generators of their own: those of positions hold others, each with its generator."""
    waiting, count = list(distributions), 0
    while waiting:
        distribution = waiting.pop(0)
        for name, value in vars(distribution).items():
            if name == "rng":
                distribution.rng = np.random.default_rng([seed, count])
            elif hasattr(value, "generate"):
                waiting.append(value)
        count += 1


def _step(game: Any, battle: RealBattle, actions: list[int]) -> Shown:
    reward, over, info = game.step(actions)
    if over and not info:
        raise BrokenGameError("StarCraft II lost its connection.")
    won = bool(info.get("battle_won", False))
    both_live = info.get("dead_allies", 0) < battle.allies and info.get("dead_enemies", 0) < battle.enemies
    truncated = bool(over) and not won and both_live
    return Shown(
        **_views(game, battle),
        reward=float(reward),
        terminal=bool(over) and not truncated,
        truncated=truncated,
        won=won,
    )


def _views(game: Any, battle: RealBattle) -> dict[str, Any]:
    # Agent by agent: the masks of all agents at once pass through smacv2's wrapper for teams of two alone.
    masks = [game.get_avail_agent_actions(agent) for agent in range(battle.allies)]
    return {
        "observations": np.stack(game.get_obs()).astype(np.float32),
        "states": np.asarray(game.get_state(), dtype=np.float32),
        "available": np.asarray(masks, dtype=np.bool_),
    }


def alive(available: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(..., N) of masks (..., N, A): the dead, and they alone, have no-op."""
    return ~available[..., NO_OP]
