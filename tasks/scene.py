"""What joint observations show on a map: where every entity is, by its own account and as the others see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One thing on the map, in M joint observations.

    Attributes:
        name: e.g. `agent_0`, `landmark_2`, `prey`. kind: the name without its number.
        radius: in units of the map.
        own: (M, 2) where a learning agent says that it is; None for everything else.
        seen: (M, V, 2) where the others see it: their own position plus the offset that they observe.
        viewers: V indices of the learning agents that see it.
    """

    name: str
    kind: str
    radius: float
    own: Positions | None
    seen: Positions
    viewers: tuple[int, ...]

    @property
    def position(self) -> Positions:
        """(M, 2) its own account where there is one, else the mean of what the others see."""
        if self.own is not None:
            return self.own
        mean: Positions = self.seen.mean(axis=1)
        return mean

    def disagreement(self) -> Positions:
        """(M, V) distances between `position` and where each viewer sees it; 0 where the views agree."""
        difference = self.seen - self.position[:, None]
        return np.asarray(np.sqrt((difference * difference).sum(axis=-1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All entities of M joint observations.

    Attributes:
        half_width: episodes start inside the square [-half_width, half_width]^2.
        cover_distance: below it a landmark counts as covered by an agent; None where there is none to cover.
    """

    entities: tuple[Entity, ...]
    half_width: float
    cover_distance: float | None = None

    def of_kind(self, kind: str) -> tuple[Entity, ...]:
        """The entities of a kind, in order of their numbers."""
        return tuple(entity for entity in self.entities if entity.kind == kind)

    @property
    def agents(self) -> tuple[Entity, ...]:
        """The learning agents, in the order of the observations."""
        return tuple(entity for entity in self.entities if entity.own is not None)

    def distances_to(self, kind: str) -> Positions:
        """(M, N, L) distances of the N agents to the L entities of a kind, each as that agent sees it itself.

        An agent that does not see an entity has NaN there.
        """
        agents, targets = self.agents, self.of_kind(kind)
        result = np.full((len(agents[0].position), len(agents), len(targets)), np.nan)
        for column, target in enumerate(targets):
            for index, viewer in enumerate(target.viewers):
                difference = target.seen[:, index] - agents[viewer].position
                result[:, viewer, column] = np.sqrt((difference * difference).sum(axis=-1))
        return result
