"""One step of the particle physics, as pure functions on a batch.

The whole state is one array of kinematics (B, E + A, 2), float64: rows 0..E-1 are the positions of all entities,
rows E..E+A-1 the velocities of the agents. Whatever is a difference of two rows (offsets, distances,
observations) is one product with a matrix of 0 and ±1. Such a product rounds once, whatever the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.common.products import product
from tasks.mpe.scenarios import CONTACT_FORCE, CONTACT_MARGIN, DAMPING, TIME_STEP, Scenario, Variant

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Beyond this gap a contact force is below 100 · k · exp(-50) ≈ 2e-23: lost in float64 beside any other force.
CONTACT_RANGE = 50 * CONTACT_MARGIN
_TINY = 1e-12  # two entities at one point push each other nowhere (mpe2 gives NaN there)


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs (a, b) of entities whose separation p_a - p_b is needed together.

    Attributes:
        first, second: (P,) entity indices.
        touching: (P,) the sum of the two sizes.
        matrix: (2 (E + A), 2 P), kinematics -> all x differences, then all y differences.
    """

    first: Int64
    second: Int64
    touching: Float64
    matrix: Float64


@dataclass(frozen=True, slots=True)
class Separations:
    """x and y differences and the distance of P pairs, each (B, P)."""

    dx: Float64
    dy: Float64
    distance: Float64


def make_pairs(scenario: Scenario, pairs: Sequence[tuple[int, int]]) -> Pairs:
    """Compiles a list of entity pairs."""
    entities = scenario.entities
    rows, count = len(entities) + scenario.n_agents, len(pairs)
    matrix = np.zeros((rows, 2, 2, count))
    for column, (a, b) in enumerate(pairs):
        for axis in range(2):
            matrix[a, axis, axis, column] += 1.0
            matrix[b, axis, axis, column] -= 1.0
    return Pairs(
        first=np.array([a for a, _ in pairs], dtype=np.int64),
        second=np.array([b for _, b in pairs], dtype=np.int64),
        touching=np.array([entities[a].size + entities[b].size for a, b in pairs]),
        matrix=np.ascontiguousarray(matrix.reshape(2 * rows, 2 * count)),
    )


def contact_pairs(scenario: Scenario) -> Pairs:
    """Unordered pairs of colliding entities of which at least one, the first, moves."""
    entities, n_agents = scenario.entities, scenario.n_agents
    pairs = [
        (a, b)
        for a in range(n_agents)
        for b in range(a + 1, len(entities))
        if entities[a].collides and entities[b].collides
    ]
    return make_pairs(scenario, pairs)


def separations(kinematics: Float64, pairs: Pairs) -> Separations:
    """Differences and distances of the pairs, from kinematics (B, E + A, 2)."""
    batch, count = len(kinematics), len(pairs.first)
    delta = product(kinematics.reshape(batch, -1), pairs.matrix)  # (B, 2 P)
    dx, dy = delta[:, :count], delta[:, count:]
    return Separations(dx, dy, np.sqrt(dx * dx + dy * dy))


def contact_forces(gaps: Separations, pairs: Pairs, n_agents: int) -> Float64:
    """Forces (B, A, 2) of the soft contacts.

        pen = k ln(1 + exp(-(d - d_min) / k)),    f = 100 pen (p_a - p_b) / d

    f acts on a and, reversed, on b. The sum over contacts runs in the order of the pairs, so a row does not
    depend on the other rows of the batch.
    """
    batch = len(gaps.distance)
    overlap = pairs.touching - gaps.distance  # (B, P)
    row, pair = np.nonzero(overlap > -CONTACT_RANGE)
    if not len(row):
        return np.zeros((batch, n_agents, 2))
    penetration = CONTACT_MARGIN * np.logaddexp(0.0, overlap[row, pair] / CONTACT_MARGIN)
    strength = CONTACT_FORCE * penetration / np.maximum(gaps.distance[row, pair], _TINY)
    fx, fy = strength * gaps.dx[row, pair], strength * gaps.dy[row, pair]
    second = pairs.second[pair]
    moves = second < n_agents
    on_first = row * n_agents + pairs.first[pair]
    on_second = (row * n_agents + second)[moves]
    target = np.concatenate([on_first, on_second])
    size = batch * n_agents
    force_x = np.bincount(target, np.concatenate([fx, -fx[moves]]), minlength=size)
    force_y = np.bincount(target, np.concatenate([fy, -fy[moves]]), minlength=size)
    forces: Float64 = np.stack([force_x, force_y], axis=-1).astype(np.float64, copy=False)
    return forces.reshape(batch, n_agents, 2)


def integrate(kinematics: Float64, force: Float64, max_speed: Float64 | None, variant: Variant) -> Float64:
    """The kinematics after one time step.

        v' = 0.75 v + 0.1 F, rescaled to the maximum speed where it exceeds it
        p' = p + 0.1 v'   (omar: semi-implicit)     p' = p + 0.1 v   (mpe2: explicit)

    Shapes: kinematics (B, E + A, 2), force (B, A, 2), max_speed (A,) or None where no agent has one.
    """
    n_agents = force.shape[1]
    n_entities = kinematics.shape[1] - n_agents
    old = kinematics[:, n_entities:]
    velocity = old * (1.0 - DAMPING) + force * TIME_STEP
    if max_speed is not None:
        vx, vy = velocity[..., 0], velocity[..., 1]
        speed = np.sqrt(vx * vx + vy * vy)  # (B, A)
        velocity *= (max_speed / np.maximum(speed, max_speed))[..., None]
    after = kinematics.copy()
    after[:, :n_agents] += (velocity if variant == "omar" else old) * TIME_STEP
    after[:, n_entities:] = velocity
    return after
