"""What agents see, as a table of named features, and the way back from observations to the state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.common.errors import DataError
from tasks.common.products import product
from tasks.mpe.physics import Float64, make_pairs, separations
from tasks.mpe.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Feature:
    """Two numbers (x, y): row `plus` of the kinematics minus row `minus`; None stands for zero."""

    name: str
    plus: int | None
    minus: int | None = None


def features_of(scenario: Scenario, agent: int) -> tuple[Feature, ...]:
    """The features of one agent in the order of the sources, before the forest flags."""
    entities, n_agents = scenario.entities, scenario.n_agents
    velocities = len(entities)
    features = [Feature("own_velocity", velocities + agent), Feature("own_position", agent)]
    seen: dict[str, int] = {}

    def numbered(index: int) -> str:
        kind = entities[index].name
        if kind == "prey":
            return kind
        label = f"other_{kind}" if index < n_agents and kind == entities[agent].name else kind
        seen[label] = seen.get(label, -1) + 1
        return f"{label}_{seen[label]}"

    others = [other for other in range(n_agents) if other != agent]
    for entity in (*range(n_agents, len(entities)), *others):
        features.append(Feature(f"{numbered(entity)}_offset", entity, agent))
    if scenario.family == "spread":  # every agent is silent: zeros
        features += [Feature(f"other_agent_{index}_message", None) for index in range(len(others))]
    elif agent < scenario.n_learners:
        features.append(Feature("prey_velocity", velocities + scenario.n_learners))
    return tuple(features)


def feature_names(scenario: Scenario, agent: int) -> tuple[str, ...]:
    """One name a number, e.g. `landmark_0_offset_x`."""
    names = tuple(f"{feature.name}_{axis}" for feature in features_of(scenario, agent) for axis in "xy")
    return names + tuple(f"in_forest_{index}" for index in range(len(scenario.indices("forest"))))


class Observer:
    """Observations of n agents with equal feature tables."""

    def __init__(self, scenario: Scenario, agents: tuple[int, ...]) -> None:
        tables = [features_of(scenario, agent) for agent in agents]
        rows = len(scenario.entities) + scenario.n_agents
        self._agents, self._tables, self._rows = agents, tables, rows
        self._n_offsets = 2 * len(tables[0])
        forests = scenario.indices("forest")
        self.size = self._n_offsets + len(forests)
        matrix = np.zeros((rows, 2, len(agents), self._n_offsets))
        for column, table in enumerate(tables):
            for index, feature in enumerate(table):
                for axis in range(2):
                    if feature.plus is not None:
                        matrix[feature.plus, axis, column, 2 * index + axis] += 1.0
                    if feature.minus is not None:
                        matrix[feature.minus, axis, column, 2 * index + axis] -= 1.0
        self._matrix = np.ascontiguousarray(matrix.reshape(2 * rows, -1))
        self._forests = make_pairs(scenario, [(agent, forest) for agent in agents for forest in forests])
        self._has_forests = bool(forests)

    def observe(self, kinematics: Float64) -> Float64:
        """Observations (B, n, D) of kinematics (B, E + A, 2); in a forest is +1, outside -1."""
        batch, n = len(kinematics), len(self._agents)
        seen = product(kinematics.reshape(batch, -1), self._matrix).reshape(batch, n, self._n_offsets)
        if not self._has_forests:
            return seen
        inside = separations(kinematics, self._forests).distance < self._forests.touching  # (B, n · forests)
        flags = np.where(inside, 1.0, -1.0).reshape(batch, n, -1)
        return np.concatenate([seen, flags], axis=-1)

    def locate(self, observations: Float64) -> Float64:
        """The inverse of `observe`: kinematics (B, E + A, 2) that show these observations (B, n, D).

        Exact at the start of an episode, where every coordinate is a multiple of 2^-20; later on exact up to the
        rounding of float32 observations.
        """
        batch = len(observations)
        pairs = observations[..., : self._n_offsets].reshape(batch, len(self._agents), -1, 2)
        kinematics = np.full((batch, self._rows, 2), np.nan)
        for column, table in enumerate(self._tables):
            for index, feature in enumerate(table):
                if feature.plus is not None and feature.minus is None:
                    kinematics[:, feature.plus] = pairs[:, column, index]
        known = ~np.isnan(kinematics[:1]).any(axis=(0, 2))
        for column, table in enumerate(self._tables):
            for index, feature in enumerate(table):
                if feature.plus is not None and feature.minus is not None and not known[feature.plus]:
                    kinematics[:, feature.plus] = pairs[:, column, index] + kinematics[:, feature.minus]
                    known[feature.plus] = True
        if not known.all() and batch:
            raise DataError(f"Observations do not show rows {np.flatnonzero(~known).tolist()} of the state.")
        return kinematics
