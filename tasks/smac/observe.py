"""What SMAX shows of a battle, feature by feature, and the two layouts of its actions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.smac.maps import UNIT_TYPES, Battle

MOVES = ("north", "east", "south", "west", "stop")
"""SMAX's actions 0..4; 5 + j attacks enemy j."""
STOP = MOVES.index("stop")

_SEEN = ("health", "offset_x", "offset_y", "last_move_x", "last_move_y", "last_target", "cooldown", *UNIT_TYPES)
_OWN = ("health", "position_x", "position_y", "cooldown", *UNIT_TYPES)


def feature_names(battle: Battle) -> tuple[str, ...]:
    """The names of one agent's observation.

    First the other allies in the order of their indices, then the enemies, then itself. Offsets are in units of its
    sight range, positions in units of the map; unseen and dead units are zeros.
    """
    others = [f"ally_{i}" for i in range(battle.allies - 1)] + [f"enemy_{j}" for j in range(battle.enemies)]
    return (*(f"{other}_{name}" for other in others for name in _SEEN), *(f"own_{name}" for name in _OWN))


def state_size(battle: Battle) -> int:
    """K: `_OWN` of every unit, then every unit's team, then every unit's type."""
    return (len(_OWN) + 2) * (battle.allies + battle.enemies)


def state_scale(battle: Battle, map_size: float) -> NDArray[np.float32]:
    """(K,) factors that bring the engine's raw positions and type indices into [0, 1]."""
    units = battle.allies + battle.enemies
    of_unit = np.ones(len(_OWN), dtype=np.float32)
    of_unit[1:3] = 1.0 / map_size
    types = np.full(units, 1.0 / (len(UNIT_TYPES) - 1), dtype=np.float32)
    return np.concatenate([np.tile(of_unit, units), np.ones(units, dtype=np.float32), types])


def action_names(battle: Battle, layout: str) -> tuple[str, ...]:
    """The names of the actions in SMAX's layout or SMAC's."""
    attacks = tuple(f"attack_{j}" for j in range(battle.enemies))
    if layout == "smac":
        return ("no_op", "stop", "north", "south", "east", "west", *attacks)
    return (*MOVES, *attacks)


def attacked_enemies(names: tuple[str, ...], actions: NDArray[np.integer]) -> NDArray[np.int64]:
    """The j of `attack_j` for each action (...), -1 where it is no attack.

    Args:
        names: of the task's actions.
        actions: indices into them.
    """
    numbers = [int(name.removeprefix("attack_")) if name.startswith("attack_") else -1 for name in names]
    return np.asarray(np.array(numbers, dtype=np.int64)[actions])


class Layout:
    """Translates actions and masks between a task and SMAX.

    Args:
        names: of the task's actions.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        attacks = tuple(name for name in names if name.startswith("attack"))
        engine = {name: index for index, name in enumerate((*MOVES, *attacks))}
        self.to_engine = np.array([engine.get(name, STOP) for name in names], dtype=np.int32)
        self._names = names

    def available(self, mask: NDArray[np.bool_], alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The task's mask (B, N, A) of the engine's, in which the dead may stop and the living do anything near.

        SMAC's dead have no-op, and nothing else.
        """
        if "no_op" not in self._names:
            return mask
        result = mask[..., self.to_engine]  # a copy
        result[..., self._names.index("no_op")] = ~alive
        result[..., self._names.index("stop")] = alive
        return result
