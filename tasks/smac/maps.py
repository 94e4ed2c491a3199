"""The battles that the papers play: who fights whom, and for how long. Constructing a spec from them needs no engine.

Sources: SMAC's map table (units, limits), SMACv2's registry and example configs (rosters drawn from a race, limit 200);
12m is OffPyMARL's map.
"""

from __future__ import annotations

from dataclasses import dataclass

UNIT_TYPES = ("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk")
"""The types that SMAX has, in the order of its indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Battle:
    """One map, or one kind of roster.

    Attributes:
        allies, enemies: how many; the allies are the agents.
        limit: steps of an episode.
        units: the types of allies, then enemies; empty where every episode draws them from `race`.
    """

    allies: int
    enemies: int
    limit: int
    units: tuple[str, ...] = ()
    race: str = ""

    @property
    def drawn(self) -> bool:
        """Whether units and positions are drawn anew for every episode, as in SMACv2."""
        return not self.units

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Exchangeable agents: those of one type; all, where types are drawn."""
        if self.drawn:
            return (tuple(range(self.allies)),)
        own = self.units[: self.allies]
        return tuple(
            tuple(agent for agent, unit in enumerate(own) if unit == kind) for kind in UNIT_TYPES if kind in own
        )


def _marines(allies: int, enemies: int, limit: int) -> Battle:
    return Battle(allies=allies, enemies=enemies, limit=limit, units=("marine",) * (allies + enemies))


def _roster(race: str, allies: int, enemies: int) -> Battle:
    return Battle(allies=allies, enemies=enemies, limit=200, race=race)


_STALKERS_AND_ZEALOTS = ("stalker",) * 2 + ("zealot",) * 3
_MORE_OF_THEM = ("stalker",) * 3 + ("zealot",) * 5

BATTLES: dict[str, Battle] = {
    "smac/3m": _marines(3, 3, 60),
    "smac/8m": _marines(8, 8, 120),
    "smac/12m": _marines(12, 12, 150),
    "smac/25m": _marines(25, 25, 150),
    "smac/5m_vs_6m": _marines(5, 6, 70),
    "smac/2s3z": Battle(allies=5, enemies=5, limit=120, units=_STALKERS_AND_ZEALOTS * 2),
    "smac/3s5z_vs_3s6z": Battle(allies=8, enemies=9, limit=170, units=(*_MORE_OF_THEM, *_MORE_OF_THEM, "zealot")),
    "smac/2m_vs_1z": Battle(allies=2, enemies=1, limit=150, units=("marine", "marine", "zealot")),
    "smacv2/terran_5_vs_5": _roster("terran", 5, 5),
    "smacv2/zerg_5_vs_5": _roster("zerg", 5, 5),
    "smacv2/protoss_5_vs_5": _roster("protoss", 5, 5),
    "smacv2/terran_3_vs_3": _roster("terran", 3, 3),
    "smacv2/zerg_3_vs_3": _roster("zerg", 3, 3),
    "smacv2/protoss_3_vs_3": _roster("protoss", 3, 3),
    "smacv2/zerg_3_vs_4": _roster("zerg", 3, 4),
}

# Shares of each type in a drawn roster. Units that SMAX lacks (medivac, colossus, baneling) are left out, and the rest
# weighted anew; without them no roster can consist of support units alone, which SMACv2 excludes.
ROSTERS: dict[str, dict[str, float]] = {
    "terran": {"marine": 0.45, "marauder": 0.45},  # SMACv2's repository, examples/configs
    "protoss": {"stalker": 0.45, "zealot": 0.45},  # the same
    "zerg": {"zergling": 0.45, "hydralisk": 0.45},  # the same
    "zerg+mastars": {"zergling": 0.45, "hydralisk": 0.10},  # MASTARS, Tab. 14
}


def roster(race: str, weights: str) -> dict[str, float]:
    """The probability of each unit type of a race; `weights` is `smacv2`, or `mastars` for zerg."""
    shares = ROSTERS[race if weights == "smacv2" else f"{race}+{weights}"]
    total = sum(shares.values())
    return {unit: share / total for unit, share in shares.items()}
