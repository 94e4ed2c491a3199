"""The prey of tag and world: part of the environment, so its actions must not depend on the batch or the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.common.products import product
from tasks.mpe.physics import Float64
from tasks.mpe.scenarios import Scenario

# Products of matrices round differently for different batch sizes and libraries (about 1e-15 in float64). On a
# grid of 2^-20 the actions agree nevertheless.
_ACTION_GRID = 2.0**20


class Prey(Protocol):
    """Acts from the prey's own observation of the state before the step."""

    def act(self, observations: Float64) -> Float64:
        """Actions (B, 2) in [-1, 1] for observations (B, D')."""


class PretrainedPrey:
    """A frozen network with two hidden layers and tanh output, trained together with the predators.

    Args:
        weights: w_k (1, in, out) and b_k (1, out).
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._layers = [
            (weights[f"w{k}"][0].astype(np.float64), weights[f"b{k}"][0].astype(np.float64)) for k in range(3)
        ]

    def act(self, observations: Float64) -> Float64:
        (w0, b0), (w1, b1), (w2, b2) = self._layers
        hidden = np.maximum(product(observations, w0) + b0, 0.0)
        hidden = np.maximum(product(hidden, w1) + b1, 0.0)
        return np.asarray(np.rint(np.tanh(product(hidden, w2) + b2) * _ACTION_GRID) / _ACTION_GRID)


class ScriptedPrey:
    """Flees the nearest predator within 0.6, else returns to the centre, and turns away from the border.

        f = -r_j* / d_j*  where d_j* < 0.6, else -0.5 x;   f -= 6 sign(x) max(|x| - 0.8, 0) per axis
        action = 0.15 f / max(|f|, 1)

    r_j are the offsets of the predators, d_j their lengths, j* the nearest, x the prey's own position.
    The factor 0.15 sets the difficulty: the prey's gain is 16, so small actions still reach full speed.
    """

    strength = 0.15

    def __init__(self, scenario: Scenario) -> None:
        self._first = 4 + 2 * (len(scenario.entities) - scenario.n_agents)  # after velocity, position and landmarks
        self._count = scenario.n_learners

    def act(self, observations: Float64) -> Float64:
        position = observations[:, 2:4]
        stop = self._first + 2 * self._count
        offsets = observations[:, self._first : stop].reshape(-1, self._count, 2)
        distance = np.sqrt(np.square(offsets).sum(axis=-1))  # (B, N)
        row, nearest = np.arange(len(position)), distance.argmin(axis=1)
        gap = distance[row, nearest][:, None]  # (B, 1)
        away = -offsets[row, nearest] / np.maximum(gap, 1e-12)
        f = np.where(gap < 0.6, away, -0.5 * position)
        f -= 6.0 * np.sign(position) * np.maximum(np.abs(position) - 0.8, 0.0)
        length = np.sqrt(np.square(f).sum(axis=1, keepdims=True))
        return np.asarray(self.strength * f / np.maximum(length, 1.0))
