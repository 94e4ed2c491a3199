"""The online loop: environments on one side, a learner on the other, as a generator of rounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.behaviour.replay import EpisodeReplay
from methods.online.matd3 import ReplayBatch
from tasks.base import BatchedEnv, FloatArray
from tasks.spec import ActionSpec

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How experience is gathered and used, found by measurement (docs/tasks.md)."""

    num_envs: int = 64  # inferred
    updates_per_step: int = 4  # inferred: per step of the 64 environments
    warm_up_steps: int = 20_000  # inferred: uniform actions
    replay_steps: int = 1_000_000  # inferred
    reward_scale: float = 0.05  # inferred: 0.05 spread, 0.1 tag and world
    batch_size: int = 256  # inferred; OMAR uses 1024


class Arena(Protocol):
    """What the loop acts in: episodes of one length, all agents seeing equally many numbers."""

    n_agents: int
    obs_dim: int
    action: ActionSpec
    episode_limit: int

    def reset(self, episode_ids: range) -> FloatArray:
        """Observations (B, N, D)."""

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Observations (B, N, D) and rewards (B, N) for actions (B, N, A), one-hot where discrete."""


class TaskArena:
    """A task's environment as an arena."""

    def __init__(self, env: BatchedEnv) -> None:
        spec = env.spec
        self.n_agents, self.obs_dim, self.action = spec.n_agents, spec.obs_dim, spec.action
        self.episode_limit, self._env = spec.episode_limit, env

    def reset(self, episode_ids: range) -> FloatArray:
        """Observations (B, N, D)."""
        return self._env.reset(episode_ids).observations

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Observations and rewards after the joint action."""
        shown = self._env.step(actions.argmax(axis=-1) if self.action.discrete else actions)
        return shown.observations, shown.rewards


class HasActors(Protocol):
    """A learner whose actors are perceptrons: weights and biases in turn, stacked by agent."""

    @property
    def actors(self) -> list[Tensor]:
        """Those of now."""


class OnlineLearner(HasActors, Protocol):
    """MATD3 or Imitation."""

    def act(self, observations: Tensor) -> Tensor:
        """Exploring actions (B, N, A) for observations (B, N, D), one-hot where discrete."""

    def update(self, batch: ReplayBatch) -> None:
        """One step of learning."""


@dataclass(frozen=True, slots=True)
class Round:
    """The start of a round of `num_envs` episodes.

    Attributes:
        env_steps: taken before this round.
        uniform: whether this round explores uniformly.
        actors: a copy of the actors' weights that begin this round.
        epsilon: share of random actions of a policy that explores so.
        noise: deviation of its continuous actions, if it is not that of MATD3.
    """

    index: int
    env_steps: int
    uniform: bool
    actors: Weights
    epsilon: float = 0.0
    noise: float = 0.0


def training_rounds(
    arena: Arena, config: LoopConfig, learner: OnlineLearner, generator: torch.Generator
) -> Iterator[Round]:
    """Yields the start of each round and trains through it once asked for the next. Never ends by itself."""
    length, size = arena.episode_limit, arena.action.size
    capacity = config.replay_steps // length
    replay = EpisodeReplay(capacity, length, arena.n_agents, arena.obs_dim, size)
    steps_of_round = config.num_envs * length
    index = 0
    while True:
        uniform = index * steps_of_round < config.warm_up_steps
        yield Round(index, index * steps_of_round, uniform, actor_weights(learner))
        seen = [arena.reset(range(index * config.num_envs, (index + 1) * config.num_envs))]
        acted, paid = [], []
        for _ in range(length):
            shown = torch.from_numpy(seen[-1])
            action = _uniform(arena, config.num_envs, generator) if uniform else learner.act(shown)
            observation, reward = arena.step(action.numpy())
            seen.append(observation)
            acted.append(action)
            paid.append(torch.from_numpy(reward) * config.reward_scale)
            if not uniform:
                for _ in range(config.updates_per_step):
                    learner.update(replay.sample(config.batch_size, generator))
        replay.add(torch.from_numpy(np.stack(seen, axis=1)), torch.stack(acted, dim=1), torch.stack(paid, dim=1))
        index += 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: the networks are so small that threads only wait, and one thread repeats to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def actor_weights(learner: HasActors) -> Weights:
    """The actors as the arrays of a policy file: w_k (N, in, out), b_k (N, out)."""
    weights: Weights = {}
    for layer in range(len(learner.actors) // 2):
        weights[f"w{layer}"] = learner.actors[2 * layer].detach().numpy().copy()
        weights[f"b{layer}"] = learner.actors[2 * layer + 1].detach().numpy()[:, 0].copy()
    return weights


def _uniform(arena: Arena, batch: int, generator: torch.Generator) -> torch.Tensor:
    shape, action = (batch, arena.n_agents), arena.action
    if action.discrete:
        choice = torch.randint(action.size, shape, generator=generator)
        return torch.nn.functional.one_hot(choice, action.size).float()
    unit = torch.rand((*shape, action.size), generator=generator)
    return action.low + (action.high - action.low) * unit
