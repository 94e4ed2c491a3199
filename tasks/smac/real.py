"""The same battles in StarCraft II itself: what smacv2 calls them, and the sizes that follow from who fights.

Sources: SMAC's and SMACv2's environment code and example configs. Constructing a spec from these tables needs no game.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.smac.maps import BATTLES

NO_OP = 0
ACTIONS = ("no_op", "stop", "north", "south", "east", "west")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealBattle:
    """One map, or one kind of roster, in the game.

    Attributes:
        map_name: smacv2's.
        allies, enemies, limit: as in `Battle`.
        groups: exchangeable agents.
        type_bits: unit types that observations tell apart; 0 where a team has one.
        ally_shields, enemy_shields: whether that team is protoss.
        roster: shares of unit types that are drawn anew every episode, or nothing. Its teams also see their positions.
        never_alone: types that no team consists of.
    """

    map_name: str
    allies: int
    enemies: int
    limit: int
    groups: tuple[tuple[int, ...], ...]
    type_bits: int = 0
    ally_shields: bool = False
    enemy_shields: bool = False
    roster: Mapping[str, float] = field(default_factory=dict)
    never_alone: tuple[str, ...] = ()

    @property
    def actions(self) -> tuple[str, ...]:
        """Names; attacks are heals for a medivac."""
        return (*ACTIONS, *(f"attack_{j}" for j in range(self.enemies)))

    def features(self) -> tuple[str, ...]:
        """The names of one agent's observation, in smacv2's order."""
        types = tuple(f"type_{bit}" for bit in range(self.type_bits))
        of_enemy = ("can_attack", "distance", "offset_x", "offset_y", "health", *_shield(self.enemy_shields), *types)
        of_ally = ("visible", "distance", "offset_x", "offset_y", "health", *_shield(self.ally_shields), *types)
        position = ("position_x", "position_y") if self.roster else ()
        own = ("health", *_shield(self.ally_shields), *position, *types)
        return (
            *(f"can_move_{way}" for way in ACTIONS[2:]),
            *(f"enemy_{j}_{name}" for j in range(self.enemies) for name in of_enemy),
            *(f"ally_{i}_{name}" for i in range(self.allies - 1) for name in of_ally),
            *(f"own_{name}" for name in own),
        )

    @property
    def state_dim(self) -> int:
        """K: health, cooldown, position and type of allies, the same but cooldown of enemies, last actions."""
        ally = 4 + self.ally_shields + self.type_bits
        enemy = 3 + self.enemy_shields + self.type_bits
        return self.allies * (ally + len(self.actions)) + self.enemies * enemy

    @property
    def smallest_win_bonus(self) -> float:
        """The least that victory adds to the return, 20 being that of a won battle: a full team of its hardiest units.

        Tells won episodes from lost ones where a recording does not say; inferred.
        """
        return 20.0 * 200.0 / (200.0 + self.enemies * (10.0 + self._hardiest()))

    def _hardiest(self) -> float:
        """Health and shield of the hardiest enemy, in the game's points."""
        names = self.roster or dict.fromkeys(_UNITS_OF_MAPS[self.map_name])
        return max(_HEALTH[name] for name in names)


def _shield(has: bool) -> tuple[str, ...]:
    return ("shield",) if has else ()


_HEALTH = {
    "marine": 45.0,
    "marauder": 125.0,
    "medivac": 150.0,
    "stalker": 160.0,
    "zealot": 150.0,
    "colossus": 350.0,
    "zergling": 35.0,
    "baneling": 30.0,
    "hydralisk": 80.0,
}
"""Health and shield together."""

_UNITS_OF_MAPS = {
    **{name.removeprefix("smac/"): battle.units[battle.allies :] for name, battle in BATTLES.items() if battle.units},
    "2c_vs_64zg": ("zergling",),
}

_ROSTERS: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
    "terran": ({"marine": 0.45, "marauder": 0.45, "medivac": 0.10}, ("medivac",)),
    "zerg": ({"zergling": 0.45, "baneling": 0.10, "hydralisk": 0.45}, ("baneling",)),
    "protoss": ({"stalker": 0.45, "zealot": 0.45, "colossus": 0.10}, ("colossus",)),
    "zerg+mastars": ({"zergling": 0.45, "baneling": 0.45, "hydralisk": 0.10}, ("baneling",)),  # MASTARS, Tab. 14
}


def _map(name: str, *, type_bits: int = 0, ally_shields: bool = False, enemy_shields: bool = False) -> RealBattle:
    battle = BATTLES[f"smac/{name}"]
    return RealBattle(
        map_name=name,
        allies=battle.allies,
        enemies=battle.enemies,
        limit=battle.limit,
        groups=battle.groups(),
        type_bits=type_bits,
        ally_shields=ally_shields,
        enemy_shields=enemy_shields,
    )


_MAPS = {
    **{f"smac/{name}": _map(name) for name in ("3m", "8m", "12m", "25m", "5m_vs_6m")},
    "smac/2s3z": _map("2s3z", type_bits=2, ally_shields=True, enemy_shields=True),
    "smac/3s5z_vs_3s6z": _map("3s5z_vs_3s6z", type_bits=2, ally_shields=True, enemy_shields=True),
    "smac/2m_vs_1z": _map("2m_vs_1z", enemy_shields=True),
    "smac/2c_vs_64zg": RealBattle(
        map_name="2c_vs_64zg", allies=2, enemies=64, limit=400, groups=((0, 1),), ally_shields=True
    ),
}
REAL_NAMES = (*_MAPS, *(name for name in BATTLES if name.startswith("smacv2/")))
"""Every task of the game; those that SMAX has too, and 2c_vs_64zg."""


def real_battle(name: str, weights: str = "smacv2") -> RealBattle:
    """The battle of a task; `weights` as in `tasks.smac.maps.roster`."""
    if name in _MAPS:
        return _MAPS[name]
    battle = BATTLES[name]
    shares, never_alone = _ROSTERS[battle.race if weights == "smacv2" else f"{battle.race}+{weights}"]
    return RealBattle(
        map_name=f"10gen_{battle.race}",
        allies=battle.allies,
        enemies=battle.enemies,
        limit=battle.limit,
        groups=battle.groups(),
        type_bits=len(shares),
        ally_shields=battle.race == "protoss",
        enemy_shields=battle.race == "protoss",
        roster=shares,
        never_alone=never_alone,
    )


def capability_config(battle: RealBattle) -> dict[str, object]:
    """What smacv2's wrapper is told of a roster: who is drawn, and where teams start (its example configs)."""
    return {
        "n_units": battle.allies,
        "n_enemies": battle.enemies,
        "team_gen": {
            "dist_type": "weighted_teams",
            "unit_types": list(battle.roster),
            "weights": list(battle.roster.values()),
            "exception_unit_types": list(battle.never_alone),
            "observe": True,
        },
        "start_positions": {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32},
    }
