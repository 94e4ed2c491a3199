"""The particle scenarios on a map, and what each agent adds to the team's reward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.observe import features_of
from tasks.mpe.physics import Float64
from tasks.mpe.scenarios import Scenario
from tasks.scene import Entity, Scene

COVER_DISTANCE = 0.1
"""The sources' own count of occupied landmarks (simple_spread, `benchmark_data`); also where OMAR's bonus saturates."""

_AWAY = 1e6  # off the map: no contact, no bonus; its distance to anything is still exact enough to be large


def make_scene(scenario: Scenario, observations: NDArray[np.floating]) -> Scene:
    """The scene of joint observations (M, N, D) of the learning agents.

    Positions are own position plus offset, in float64: offsets of real observations agree up to float32's rounding.

    Raises:
        DataError: if the observations have another shape.
    """
    n, entities = scenario.n_learners, scenario.entities
    tables = [features_of(scenario, agent) for agent in range(n)]
    width = 2 * len(tables[0]) + len(scenario.indices("forest"))
    if observations.ndim != 3 or observations.shape[1:] != (n, width):
        raise DataError(f"{scenario.name}: observations have shape {observations.shape}, expected (M, {n}, {width}).")
    own: dict[int, Float64] = {}
    seen: dict[int, dict[int, Float64]] = {index: {} for index in range(len(entities))}
    for agent, table in enumerate(tables):
        pairs = observations[:, agent, : 2 * len(table)].astype(np.float64)
        pairs = pairs.reshape(len(observations), len(table), 2)
        columns = {(feature.plus, feature.minus): index for index, feature in enumerate(table)}
        own[agent] = pairs[:, columns[agent, None]]
        for (plus, minus), index in columns.items():
            if plus is not None and minus == agent:
                seen[plus][agent] = own[agent] + pairs[:, index]
    counts: dict[str, int] = {}
    shown = []
    for index, kind in enumerate(entities):
        number = counts[kind.name] = counts.get(kind.name, -1) + 1
        views = seen[index]
        shown.append(
            Entity(
                name=f"{kind.name}_{number}" if kind.count > 1 else kind.name,
                kind=kind.name,
                radius=kind.size,
                own=own.get(index),
                seen=np.stack(list(views.values()), axis=1) if views else np.empty((len(observations), 0, 2)),
                viewers=tuple(views),
            )
        )
    return Scene(
        entities=tuple(shown),
        half_width=max(kind.start for kind in scenario.kinds),
        cover_distance=COVER_DISTANCE if scenario.family == "spread" else None,
    )


def contributions(engine: ParticleEngine, kinematics: Float64) -> Float64:
    """What each agent adds to the team's reward in these states (B, E + A, 2): the difference reward, (B, N).

        C_i = Σ_j r_j(x) - Σ_j r_j(x without agent i)

    r is the engine's own reward. Without agent i its bonus is lost where no other agent is nearer, and so are the
    collisions that it has a part in. MADiTS (App. H.5) derives "each agent's actual contribution" from the true
    reward and prints no formula. # inferred
    """
    present = engine.rewards(kinematics).sum(axis=1)  # (B,)
    result = np.empty((len(kinematics), engine.scenario.n_learners))
    for agent in range(result.shape[1]):
        absent = kinematics.copy()
        absent[:, agent] = _AWAY
        result[:, agent] = present - engine.rewards(absent).sum(axis=1)
    return result
