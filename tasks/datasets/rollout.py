"""Recording whole episodes in fixed batches: a plan of who acts, a batched environment, a dataset out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BatchedEnv, BehaviourPolicy, Step, StochasticPolicy, Task
from tasks.common.errors import DataError
from tasks.common.seeding import derive_seed
from tasks.datasets.offline import BEHAVIOURS, ROW_COLUMNS, OfflineDataset, concatenate
from tasks.datasets.perturbation import Draws, draw, uniform_actions
from tasks.datasets.spool import Spool
from tasks.spec import TaskSpec

Progress = Callable[[int, int, str], None]

COLLECTION_BATCH = {"smac": 128, "smacv2": 128, "mamujoco": 32, "sc2": 8}
"""Environments stepped together, by engine or family; fixed, because float sums depend on the size of a batch."""
DEFAULT_COLLECTION_BATCH = 256
LARGE_BATCH, LARGE_EPISODE = 32, 2**22
"""Where an episode's observations may take that many bytes, so many are recorded together: memory stays bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One source of actions.

    Attributes:
        policy: None acts uniformly at random.
        behaviour: what the privileged column says about it, one of BEHAVIOURS.
        noise_std: of the Gaussian added to continuous actions, then clipped to the bounds.
        epsilon: probability of a uniform available action instead (discrete tasks).
    """

    policy: BehaviourPolicy | StochasticPolicy | None
    behaviour: str
    noise_std: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Who acts: `assign(draws, episode_ids)` gives (B, T, N) indices into `actors`."""

    actors: tuple[Actor, ...]
    assign: Callable[[Draws, NDArray[np.int64]], NDArray[np.int64]]


def collection_batch(spec: TaskSpec) -> int:
    """How many episodes of a task are recorded together; part of a dataset's identity."""
    batch = COLLECTION_BATCH.get(spec.engine, COLLECTION_BATCH.get(spec.family, DEFAULT_COLLECTION_BATCH))
    large = 4 * spec.n_agents * spec.obs_dim * spec.episode_limit > LARGE_EPISODE
    return min(batch, LARGE_BATCH) if large else batch


def record(
    task: Task, plan: Plan, n_episodes: int, seed: int, progress: Progress, folder: Path | None = None
) -> OfflineDataset:
    """Episodes 0 .. n - 1 of a seed.

    Episode i is a function of (seed, i): fewer episodes are a prefix of more, bit for bit, because every batch is
    recorded at its full size and cut afterwards.

    Args:
        task: what is played.
        plan: who acts.
        n_episodes: n.
        seed: of environments and actions.
        progress: told of the episodes.
        folder: an empty one where batches wait, so that memory holds one at a time; the data returned are mapped
            from it. None: in memory.

    Raises:
        DataError: if the environment misbehaves.
        StorageError: if a file cannot be written.
    """
    size = collection_batch(task.spec)
    env = task.make_env(size, derive_seed("collect", "environment", seed))
    parts: list[OfflineDataset] = []
    spool = None if folder is None else Spool(folder)
    add = parts.append if spool is None else spool.add
    try:
        for first in range(0, n_episodes, size):
            ids = np.arange(first, first + size)
            batch = _record_batch(env, plan, draw(task.spec, seed, ids.tolist()), ids)
            wanted = min(size, n_episodes - first)
            add(batch if wanted == size else batch.take(np.arange(wanted)))
            progress(first + wanted, n_episodes, "episodes")
    finally:
        env.close()
    if n_episodes < 1:
        return OfflineDataset.empty(task.spec)
    return concatenate(parts) if spool is None else spool.joined()


def _record_batch(env: BatchedEnv, plan: Plan, draws: Draws, ids: NDArray[np.int64]) -> OfflineDataset:
    """One episode an environment, in the order of `ids`."""
    spec, B, T = env.spec, len(ids), env.spec.episode_limit
    assigned = plan.assign(draws, ids)  # (B, T, N)
    codes = np.array([BEHAVIOURS.index(actor.behaviour) for actor in plan.actors], dtype=np.int8)
    shown, taken = [env.reset(ids.tolist())], []
    running = np.ones(B, dtype=np.bool_)
    lengths = np.zeros(B, dtype=np.int64)
    for t in range(T):
        actions = _act(plan.actors, assigned[:, t], draws, t, shown[-1], spec)
        taken.append(actions)
        shown.append(env.step(actions))
        lengths += running
        running &= ~(shown[-1].terminals | shown[-1].truncations)
        if not running.any():
            break
    if running.any():
        raise DataError(
            f"{spec.id}: {int(running.sum())} of {B} episodes neither ended nor were truncated within "
            f"{T} steps, the episode_limit of the task. The environment must set `truncations` at its limit."
        )
    return _flatten(spec, shown, taken, lengths, codes[assigned])


def _act(
    actors: Sequence[Actor], who: NDArray[np.int64], draws: Draws, t: int, shown: Step, spec: TaskSpec
) -> ActionArray:
    """Joint actions of one step: each agent's from the actor that `who` (B, N) names for it."""
    discrete = spec.action.discrete
    actions = uniform_actions(draws.action[:, t], spec.action, shown.available_actions)
    for index in np.unique(who):
        actor = actors[int(index)]
        if actor.policy is None:
            continue
        chosen = act(actor.policy, shown, draws.action[:, t])
        if actor.noise_std and draws.noise is not None:
            noisy = chosen + np.float32(actor.noise_std) * draws.noise[:, t].astype(np.float32)
            chosen = np.clip(noisy, spec.action.low, spec.action.high)
        mine = who == index  # (B, N)
        if actor.epsilon:
            mine &= draws.explore[:, t] >= actor.epsilon
        np.copyto(actions, chosen, where=mine if discrete else mine[..., None], casting="same_kind")
    return actions


def act(policy: BehaviourPolicy | StochasticPolicy, shown: Step, uniform: NDArray[np.float64]) -> ActionArray:
    """What a policy does, drawn by uniform numbers (B, N) if it is one that is drawn from."""
    if isinstance(policy, StochasticPolicy):
        return policy.sample(shown.observations, shown.available_actions, uniform)
    return policy.act(shown.observations, shown.available_actions)


def _flatten(
    spec: TaskSpec,
    shown: Sequence[Step],
    taken: Sequence[ActionArray],
    lengths: NDArray[np.int64],
    behaviour: NDArray[np.int8],
) -> OfflineDataset:
    """Time-major steps of B episodes -> the columns, episode by episode, without what came after an end."""
    step_valid = np.arange(len(taken)) < lengths[:, None]  # (B, T)
    row_valid = np.arange(len(shown)) <= lengths[:, None]  # (B, T + 1)

    def gather(name: str, steps: Sequence[Step], valid: NDArray[np.bool_]) -> Any:
        columns = [getattr(step, name) for step in steps]
        return None if columns[-1] is None else np.stack(columns, axis=1)[valid]

    after = shown[1:]
    last_row = np.arange(len(shown)) == lengths[:, None]  # (B, T + 1)
    return OfflineDataset(
        spec=spec,
        **{name: gather(name, shown, row_valid) for name in ROW_COLUMNS},
        **{name: gather(name, after, step_valid) for name in ("rewards", "terminals", "truncations")},
        actions=np.stack(taken, axis=1)[step_valid],  # type: ignore[arg-type]  # one kind of action a task
        episode_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        won=gather("won", shown, last_row),
        behaviour=behaviour[:, : len(taken)][step_valid],
    )
