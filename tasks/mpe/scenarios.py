"""The tables of the particle scenarios: entities, sizes, gains and start regions.

Sources: OMAR's fork of the particle environments (variant `omar`) and the `mpe2` package (variant `mpe2`).
Both variants share these tables except for gains, start regions, integration order and rewards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from tasks.common.errors import UnknownNameError

Variant = Literal["omar", "mpe2"]
Family = Literal["spread", "tag", "world"]

# Constants of both variants. All masses are 1; there are no walls and no noise.
TIME_STEP = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 0.001
EPISODE_LIMIT = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityKind:
    """A group of equal entities.

    Attributes:
        size: radius.
        collides: whether contact pushes it, and others away from it.
        start: starts uniformly on [-start, start]^2, at rest.
        gain: κ, force per unit of action; 0 for what never moves.
        max_speed: None where speed is free.
    """

    name: str
    count: int
    size: float
    collides: bool
    start: float
    gain: float = 0.0
    max_speed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario in one variant. Agents come first among the entities, the prey last among the agents."""

    name: str
    family: Family
    variant: Variant
    kinds: tuple[EntityKind, ...]
    n_learners: int

    @property
    def entities(self) -> tuple[EntityKind, ...]:
        """The kind of each of the E entities."""
        return tuple(kind for kind in self.kinds for _ in range(kind.count))

    @property
    def n_agents(self) -> int:
        """Agents that move, the prey included."""
        return sum(kind.count for kind in self.kinds if kind.gain > 0)

    @property
    def has_prey(self) -> bool:
        """Whether the last agent belongs to the environment."""
        return self.n_agents > self.n_learners

    def indices(self, kind_name: str) -> tuple[int, ...]:
        """Indices of the entities of a kind."""
        return tuple(index for index, kind in enumerate(self.entities) if kind.name == kind_name)


SPREAD_SIZES = {"mpe/spread": 3, "mpe/spread-4": 4, "mpe/spread-5": 5}
NAMES = (*SPREAD_SIZES, "mpe/tag", "mpe/world")
ALIASES = {"mpe/spread-3": "mpe/spread"}


@cache
def scenario(name: str, variant: Variant) -> Scenario:
    """The table of a task name.

    Raises:
        UnknownNameError: with the nearest names.
    """
    name = ALIASES.get(name, name)
    if name in SPREAD_SIZES:
        return _spread(name, variant, SPREAD_SIZES[name])
    if name == "mpe/tag":
        return _pursuit("mpe/tag", variant)
    if name == "mpe/world":
        return _pursuit("mpe/world", variant)
    raise UnknownNameError("MPE task", name, NAMES)


def _spread(name: str, variant: Variant, n: int) -> Scenario:
    # OMAR, simple_spread.py: the square has half-width 1 up to three agents and 2 above; mpe2 keeps 1.
    start = 2.0 if variant == "omar" and n > 3 else 1.0
    kinds = (
        EntityKind(name="agent", count=n, size=0.15, collides=True, start=start, gain=5.0),
        EntityKind(name="landmark", count=n, size=0.05, collides=False, start=start),
    )
    return Scenario(name=name, family="spread", variant=variant, kinds=kinds, n_learners=n)


def _pursuit(name: str, variant: Variant) -> Scenario:
    # OMAR multiplies by the acceleration twice (environment.py and core.py), so its gains are 3^2 and 4^2.
    predator_gain, prey_gain = (9.0, 16.0) if variant == "omar" else (3.0, 4.0)
    world = name == "mpe/world"
    kinds = [
        EntityKind(name="predator", count=3, size=0.075, collides=True, start=1.0, gain=predator_gain, max_speed=1.0),
        EntityKind(
            name="prey",
            count=1,
            size=0.045 if world else 0.05,
            collides=True,
            start=1.0,
            gain=prey_gain,
            max_speed=1.3,
        ),
        EntityKind(name="obstacle", count=1 if world else 2, size=0.2, collides=True, start=0.9),
    ]
    if world:
        kinds += [
            EntityKind(name="food", count=2, size=0.03, collides=False, start=0.9),
            EntityKind(name="forest", count=2, size=0.3, collides=False, start=0.9),
        ]
    return Scenario(name=name, family="world" if world else "tag", variant=variant, kinds=tuple(kinds), n_learners=3)
