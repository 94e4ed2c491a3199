"""What a task is, without its engine: agents, sizes, actions, horizon and score references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError

ActionKind = Literal["continuous", "discrete"]
TeamReward = Literal["sum", "mean", "first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """The actions of one agent: a box [low, high]^size, or `size` choices.

    Attributes:
        size: A, dimensions of a continuous action or number of discrete ones.
        names: of the discrete actions or of the dimensions, for labels and plots.
    """

    kind: ActionKind
    size: int
    low: float = -1.0
    high: float = 1.0
    names: tuple[str, ...] = ()

    @property
    def discrete(self) -> bool:
        """Whether an action is one of `size` choices."""
        return self.kind == "discrete"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReferences:
    """Measured returns that 0 and 100 of the normalised score stand for, in units of the team reward.

    Frozen data with provenance: adding a method never changes another method's score.
    """

    random_return: float
    expert_return: float
    episodes: int
    seed: int
    provenance: str

    def normalise(self, returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """100 (S - random) / (expert - random), element-wise (design 6; INS Eq. A6)."""
        return 100.0 * (returns - self.random_return) / (self.expert_return - self.random_return)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task's identity and sizes. Two specs with different ids are different decision processes.

    Attributes:
        id: canonical name with the parameters that differ from the default, e.g. `mpe/spread[variant=mpe2]`.
        engine, engine_version: what computes the transitions; part of what was measured.
        variant: every choice that changes the decision process, e.g. `omar+continuous+prey=pretrained`.
        n_agents, obs_dim: N and D. state_dim: K, or None where the task has no global state.
        episode_limit: steps after which an episode is truncated.
        team_reward: how per-agent rewards fold into the team's return.
        agent_groups: indices of exchangeable agents, e.g. ((0, 1, 2),).
        observation_features: D names, e.g. `own_velocity_x`, for labelling and drawing.
        has_win, has_deaths: whether `won` and `alive` are recorded.
    """

    id: str
    family: str
    engine: str
    engine_version: str
    variant: str
    n_agents: int
    obs_dim: int
    state_dim: int | None
    action: ActionSpec
    episode_limit: int
    team_reward: TeamReward
    agent_groups: tuple[tuple[int, ...], ...]
    observation_features: tuple[str, ...]
    has_win: bool = False
    has_deaths: bool = False
    score_references: ScoreReferences | None = None

    def __post_init__(self) -> None:
        if len(self.observation_features) != self.obs_dim:
            raise DataError(f"{self.id}: {len(self.observation_features)} feature names for {self.obs_dim} features.")
        if sorted(agent for group in self.agent_groups for agent in group) != list(range(self.n_agents)):
            raise DataError(f"{self.id}: groups {self.agent_groups} do not partition {self.n_agents} agents.")

    def fold_rewards(self, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Per-agent rewards (..., N) -> team reward (...), by the task's rule."""
        if self.team_reward == "first":
            return rewards[..., 0]
        folded = rewards.sum(axis=-1) if self.team_reward == "sum" else rewards.mean(axis=-1)
        return np.asarray(folded, dtype=np.float32)
