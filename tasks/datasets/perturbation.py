"""Who acts when: temporal and spatial perturbation of behaviour policies (MADiTS, Sec. 5.1 and App. H.4).

Everything random about an episode, beside its environment, is drawn up front from the episode's own stream. So
episode i depends on (seed, i) alone, whatever batch it is collected in, and the rules below are plain functions
of uniform numbers, vectorised over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BoolArray
from tasks.common.seeding import make_generator
from tasks.spec import ActionSpec, TaskSpec

Uniform = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The random numbers of B episodes of at most T steps, uniform on [0, 1) unless said otherwise.

    Attributes:
        start: (B, T), whether a temporal perturbation starts.
        agents: (B, N), whose ranks choose agents without replacement.
        count: (B,), how many agents.
        explore: (B, T, N), whether an epsilon-greedy policy explores.
        action: (B, T, N, A) continuous or (B, T, N) discrete, the random actions.
        noise: (B, T, N, A) standard normal, for continuous actions, else None.
    """

    start: Uniform
    agents: Uniform
    count: Uniform
    explore: Uniform
    action: Uniform
    noise: Uniform | None


def draw(spec: TaskSpec, seed: int, episode_ids: Sequence[int]) -> Draws:
    """All random numbers of these episodes, each from its own stream."""
    T, N, A = spec.episode_limit, spec.n_agents, spec.action.size
    per_step = (T, N) if spec.action.discrete else (T, N, A)
    shapes = ((T,), (N,), (), (T, N), per_step)
    splits = np.cumsum([int(np.prod(shape)) for shape in shapes])
    uniform = np.empty((len(episode_ids), splits[-1]))
    noise = None if spec.action.discrete else np.empty((len(episode_ids), T, N, A))
    for b, episode in enumerate(episode_ids):
        generator = make_generator("collect", "behaviour", seed, int(episode))
        generator.random(out=uniform[b])
        if noise is not None:
            generator.standard_normal(out=noise[b])
    parts = np.split(uniform, splits[:-1], axis=1)
    start, agents, count, explore, action = (
        part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)
    )
    return Draws(start=start, agents=agents, count=count, explore=explore, action=action, noise=noise)


def temporally_random(start: Uniform, p_imb: float, t_imb: int) -> NDArray[np.bool_]:
    """(B, T): the steps at which the whole team acts at random.

    At each step that is not already perturbed, a perturbation of `t_imb` steps starts with probability `p_imb`;
    the end of the episode cuts it off (MADiTS, Sec. 5.1). `start`: (B, T).
    """
    random = np.zeros(start.shape, dtype=np.bool_)
    remaining = np.zeros(len(start), dtype=np.int64)
    for t in range(start.shape[1]):
        remaining[(remaining == 0) & (start[:, t] < p_imb)] = t_imb
        random[:, t] = remaining > 0
        remaining = np.maximum(remaining - 1, 0)
    return random


def one_random_agent(agents: Uniform) -> NDArray[np.bool_]:
    """(B, N): one agent an episode, uniformly (level `-m`). `agents`: (B, N)."""
    return _smallest(agents, np.ones(len(agents), dtype=np.int64))


def some_random_agents(agents: Uniform, count: Uniform) -> NDArray[np.bool_]:
    """(B, N): k agents an episode without replacement, k uniform on 1..N-1 (level `-s`).

    For N = 2 this is `one_random_agent`, agent by agent. `agents`: (B, N), `count`: (B,).
    """
    k = 1 + (count * (agents.shape[1] - 1)).astype(np.int64)
    return _smallest(agents, k)


def uniform_actions(action: Uniform, spec: ActionSpec, available: BoolArray | None) -> ActionArray:
    """Uniform over the box, or uniform over the available actions of each agent.

    Args:
        action: uniform numbers, (B, N, A) for a box, (B, N) for choices.
        spec: the box, or the number of choices.
        available: (B, N, A) for choices, else None.
    """
    if not spec.discrete:
        return (spec.low + action * (spec.high - spec.low)).astype(np.float32)
    if available is None:
        return (action * spec.size).astype(np.int64)
    choice = (action * available.sum(axis=-1)).astype(np.int64)  # (B, N), counted among the available ones
    chosen: NDArray[np.int64] = (available.cumsum(axis=-1) > choice[..., None]).argmax(axis=-1)
    return chosen


def _smallest(values: Uniform, k: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks the k[b] smallest of each row b."""
    ranks = values.argsort(axis=1).argsort(axis=1)
    marked: NDArray[np.bool_] = ranks < k[:, None]
    return marked
