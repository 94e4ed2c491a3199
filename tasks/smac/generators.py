"""Where units start and what they are, drawn for every episode as SMACv2 draws them.

SMAX's own generators draw types across races, make every enemy beyond the number of allies a marine, and put units
outside the map, where they die. These have their interface: `generate(key)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from tasks.smac.maps import UNIT_TYPES

MARGIN = 1.0
"""No unit starts nearer to the border than this."""
_SPREAD = 2.0  # half the side of the square in which a group stands
_SURROUNDED = 0.5  # share of episodes in which one team stands around the other (SMACv2, p)


@dataclass(frozen=True, slots=True)
class RaceUnits:
    """Unit types of both teams: allies independently from `shares`, enemies the same ones, further enemies afresh."""

    allies: int
    enemies: int
    shares: Mapping[str, float]

    def generate(self, key: Any) -> Any:
        """(N + E,) uint8 indices of types."""
        types = jnp.array([UNIT_TYPES.index(unit) for unit in self.shares], dtype=jnp.uint8)
        drawn = jax.random.choice(key, types, (max(self.allies, self.enemies),), p=jnp.array([*self.shares.values()]))
        return jnp.concatenate([drawn[: self.allies], drawn[: self.enemies]])


@dataclass(frozen=True, slots=True)
class StartPositions:
    """Both teams mirrored at the vertical centre line, or one in the centre and the other around it on the diagonals.

    Attributes:
        size: of the square map.
        allies_inside: whether the team in the centre is always the allies, as in SMACv2; else either, as in SMAX.
    """

    allies: int
    enemies: int
    size: float
    allies_inside: bool

    def generate(self, key: Any) -> Any:
        """(N + E, 2) positions on the map, `MARGIN` or more from its border."""
        which, around, mirrored = jax.random.split(key, 3)
        surrounded = jax.random.bernoulli(which, _SURROUNDED)
        positions = jnp.where(surrounded, self._surrounded(around), self._mirrored(mirrored))
        return inside(positions, self.size)

    def _surrounded(self, key: Any) -> Any:
        who, allied, hostile = jax.random.split(key, 3)
        centre, around = self._centre_and_around(allied, self.allies, self.enemies)
        as_smacv2 = jnp.concatenate([centre, around])
        if self.allies_inside:
            return as_smacv2
        centre, around = self._centre_and_around(hostile, self.enemies, self.allies)
        return jnp.where(jax.random.bernoulli(who), as_smacv2, jnp.concatenate([around, centre]))

    def _centre_and_around(self, key: Any, inner: int, outer: int) -> tuple[Any, Any]:
        """A group in the middle, and up to four groups somewhere between it and the corners."""
        inner_key, way_key, group_key, outer_key = jax.random.split(key, 4)
        middle = jnp.full(2, self.size / 2)
        corners = self.size * jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        way = jax.random.uniform(way_key, (4, 1))
        groups = corners + way * (middle - corners)  # (4, 2)
        chosen = groups[jax.random.randint(group_key, (outer,), 0, 4)]  # (outer, 2)
        return middle + _around(inner_key, inner), chosen + _around(outer_key, outer)

    def _mirrored(self, key: Any) -> Any:
        """Allies anywhere in the left half, enemies at their mirror images, further enemies anywhere in theirs."""
        drawn = jax.random.uniform(key, (max(self.allies, self.enemies), 2))
        left = drawn * jnp.array([self.size / 2, self.size])
        right = jnp.stack([self.size - left[:, 0], left[:, 1]], axis=1)
        return jnp.concatenate([left[: self.allies], right[: self.enemies]])


def inside(positions: Any, size: float) -> Any:
    """Positions (..., 2) moved onto the map, `MARGIN` from its border."""
    return jnp.clip(positions, MARGIN, size - MARGIN)


def _around(key: Any, count: int) -> Any:
    return jax.random.uniform(key, (count, 2), minval=-_SPREAD, maxval=_SPREAD)
