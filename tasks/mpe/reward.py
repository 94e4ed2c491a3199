"""Rewards of the particle scenarios, for all agents (the prey last), from the state after the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce

import numpy as np

from tasks.mpe.physics import Float64, make_pairs, separations
from tasks.mpe.scenarios import Scenario


class Reward(ABC):
    """Rewards (B, A) of kinematics (B, E + A, 2)."""

    @abstractmethod
    def learners(self, kinematics: Float64) -> Float64:
        """Rewards (B, N) of the learning agents."""

    @abstractmethod
    def prey(self, kinematics: Float64) -> Float64:
        """Reward (B,) of the prey; only its own training needs it."""


def make_reward(scenario: Scenario) -> Reward:
    """The reward of a scenario in its variant."""
    return SpreadReward(scenario) if scenario.family == "spread" else PursuitReward(scenario)


class SpreadReward(Reward):
    """Cover every landmark, stay apart.

    omar   r_i = Σ_l min(1 / d_l, 10) - 5 c_i                d_l  distance of the nearest agent to landmark l
    mpe2   r_i = -½ Σ_l d_l - ½ c_i    (local_ratio ½)       c_i  other agents whose centres are closer than 0.3
    """

    def __init__(self, scenario: Scenario) -> None:
        n = self._n = scenario.n_agents
        meetings = [(a, b) for a in range(n) for b in range(a + 1, n)]
        covers = [(agent, landmark) for agent in range(n) for landmark in scenario.indices("landmark")]
        self._pairs, self._n_meetings = make_pairs(scenario, meetings + covers), len(meetings)
        self._touching = self._pairs.touching[: self._n_meetings]
        self._counts = np.array([[float(agent in pair) for agent in range(n)] for pair in meetings])  # (P, N)
        self._omar = scenario.variant == "omar"

    def learners(self, kinematics: Float64) -> Float64:
        distance = separations(kinematics, self._pairs).distance
        collisions = (distance[:, : self._n_meetings] < self._touching) @ self._counts  # (B, N)
        cover = distance[:, self._n_meetings :]
        n = self._n
        nearest = reduce(np.minimum, [cover[:, agent * n : (agent + 1) * n] for agent in range(n)])  # (B, L)
        if self._omar:
            bonus = (1.0 / np.maximum(nearest, 0.1)).sum(axis=1)  # min(1/d, 10) without dividing by 0
            return np.asarray(bonus[:, None] - 5.0 * collisions)
        return np.asarray(-0.5 * nearest.sum(axis=1)[:, None] - 0.5 * collisions)

    def prey(self, kinematics: Float64) -> Float64:
        raise NotImplementedError("spread has no prey")


class PursuitReward(Reward):
    """Tag and world: predators want to touch the prey. With τ touches and d_j the distance of predator j to the prey:

        tag    omar  r_pred = 10 τ - 0.1 Σ_j d_j     r_prey = -10 τ + 0.1 Σ_j d_j - b
               mpe2  r_pred = 10 τ                   r_prey = -10 τ - b
        world  omar  r_pred =  5 τ - 0.1 Σ_j d_j     r_prey =  -5 τ + 0.1 Σ_j d_j - 2 b + 2 φ + 0.05 d_food
               mpe2  r_j    =  5 τ - 0.1 d_j         r_prey =  -5 τ - 2 b + 2 φ - 0.05 d_food

    b = bound(|x|) + bound(|y|) of the prey, φ its food items in touch, d_food the distance to the nearest one.
    The sign of OMAR's 0.05 d_food is OMAR's (simple_world.py); it only shapes the prey's training.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._prey = prey = scenario.n_learners
        self._chase = make_pairs(scenario, [(predator, prey) for predator in range(prey)])
        self._food = make_pairs(scenario, [(prey, food) for food in scenario.indices("food")])
        self._world, self._omar = scenario.family == "world", scenario.variant == "omar"
        self._touch_reward = 5.0 if self._world else 10.0

    def learners(self, kinematics: Float64) -> Float64:
        distance = separations(kinematics, self._chase).distance  # (B, N)
        touches = (distance < self._chase.touching).sum(axis=1)
        reward = np.repeat((self._touch_reward * touches)[:, None], self._prey, axis=1)
        if self._omar:
            return np.asarray(reward - 0.1 * distance.sum(axis=1, keepdims=True))
        return np.asarray(reward - 0.1 * distance if self._world else reward)

    def prey(self, kinematics: Float64) -> Float64:
        distance = separations(kinematics, self._chase).distance
        reward = -self._touch_reward * (distance < self._chase.touching).sum(axis=1)
        if self._omar:
            reward = reward + 0.1 * distance.sum(axis=1)
        outside = bound(np.abs(kinematics[:, self._prey])).sum(axis=1)
        if not self._world:
            return np.asarray(reward - outside)
        food = separations(kinematics, self._food).distance
        eaten = 2.0 * (food < self._food.touching).sum(axis=1)
        shaping = (0.05 if self._omar else -0.05) * food.min(axis=1)
        return np.asarray(reward - 2.0 * outside + eaten + shaping)


def bound(x: Float64) -> Float64:
    """The penalty for leaving the screen: 0 below 0.9, then 10 (x - 0.9), from 1 on min(exp(2x - 2), 10)."""
    outside = np.exp(np.minimum(2.0 * x - 2.0, np.log(10.0)))
    return np.where(x < 0.9, 0.0, np.where(x < 1.0, 10.0 * (x - 0.9), outside))
