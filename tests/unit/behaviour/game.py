"""A game of numbers: what is seen names the episode and the step, and a table pays for the joint action."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.base import ActionArray, BatchedEnv, Step
from tasks.spec import ActionSpec, TaskSpec

SPEC = TaskSpec(
    id="toy/game",
    family="toy",
    engine="toy",
    engine_version="1",
    variant="",
    n_agents=2,
    obs_dim=1,
    state_dim=1,
    action=ActionSpec(kind="discrete", size=3),
    episode_limit=4,
    team_reward="first",
    agent_groups=((0, 1),),
    observation_features=("number",),
    has_win=True,
)
PAYOFF = np.array([[8.0, 3.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 9.0]])  # the best joint action that is allowed: (0, 0)


class Game(BatchedEnv):
    """Episode e lasts 1 + e mod 4 steps, shows 10 e + t, and pays the payoff; action 2 is never available.

    Episodes of four steps are truncated, shorter ones end truly.
    """

    spec = SPEC

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.given: list[ActionArray] = []

    def reset(self, episode_ids: Sequence[int]) -> Step:
        self.ids, self.t = np.asarray(episode_ids), 0
        return self.show(np.zeros(self.num_envs))

    def step(self, actions: ActionArray) -> Step:
        self.given.append(actions.copy())
        self.t += 1
        return self.show(PAYOFF[actions[:, 0], actions[:, 1]])

    def show(self, rewards: np.ndarray) -> Step:
        number = (10.0 * self.ids + self.t).astype(np.float32)
        over = self.t >= 1 + self.ids % 4
        available = np.ones((self.num_envs, 2, 3), dtype=np.bool_)
        available[..., 2] = False
        return Step(
            observations=np.repeat(number[:, None, None], 2, axis=1),
            rewards=np.repeat(rewards[:, None], 2, axis=1).astype(np.float32),
            terminals=over & (self.ids % 4 < 3),
            truncations=over & (self.ids % 4 == 3),
            states=number[:, None],
            available_actions=available,
            won=over,
        )
