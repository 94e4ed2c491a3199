"""Policies in the environment: R policies act in the same B episodes, all of them in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.checks import check_policy_actions
from methods.base import LearnedPolicy
from tasks.base import BatchedEnv, Step, Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """What R policies did in B episodes: undiscounted team returns (R, B) and, where defined, wins (R, B).

    A policy that acted with NaN or infinity is `diverged` (R,): its returns mean nothing.
    """

    returns: NDArray[np.float64]
    won: NDArray[np.bool_] | None
    diverged: NDArray[np.bool_]


def evaluate(
    policy: LearnedPolicy,
    task: Task,
    episodes: int,
    seed: int,
    learner_name: str,
) -> Outcome:
    """Runs every policy in episodes 0 .. B - 1 of a seed: the same ones for all (common random numbers).

    Raises:
        MethodError: if actions have the wrong shape or dtype, are out of range or not available.
    """
    size = max(1, min(episodes, task.most_envs // policy.replicas))
    parts: list[Outcome] = []
    for first in range(0, episodes, size):
        ids = range(first, min(first + size, episodes))
        env = task.make_env(policy.replicas * len(ids), seed)
        try:
            parts.append(_play(policy, env, ids, learner_name))
        finally:
            env.close()
    won = [part.won for part in parts if part.won is not None]
    return Outcome(
        returns=np.concatenate([part.returns for part in parts], axis=1),
        won=np.concatenate(won, axis=1) if won else None,
        diverged=np.any([part.diverged for part in parts], axis=0),
    )


def _play(policy: LearnedPolicy, env: BatchedEnv, ids: Sequence[int], learner_name: str) -> Outcome:
    """One episode an id and policy, to the end of the longest."""
    spec, R, B = env.spec, policy.replicas, len(ids)
    step = env.reset([*ids] * R)  # environment r · B + b: policy r, episode b
    returns = np.zeros(R * B)
    running = np.ones(R * B, dtype=np.bool_)
    won = np.zeros(R * B, dtype=np.bool_) if spec.has_win else None
    diverged = np.zeros(R, dtype=np.bool_)
    memory = None
    for _ in range(spec.episode_limit):
        observations = step.observations.reshape(R, B, *step.observations.shape[1:])  # (R, B, N, D)
        available = _split(step, R, B)  # (R, B, N, A)
        actions, memory = policy.act(observations, available, memory)
        diverged |= check_policy_actions(
            actions, spec, replicas=R, batch=B, available_actions=available, learner_name=learner_name
        )
        if diverged.any():  # their rows go on with something legal, so that the engine meets no NaN
            legal = actions.dtype.type(0) if available is None else available.argmax(axis=-1)
            actions = np.where(diverged.reshape(R, *[1] * (actions.ndim - 1)), legal, actions)
        step = env.step(actions.reshape(R * B, *actions.shape[2:]))
        returns += running * spec.fold_rewards(step.rewards)
        ended = running & (step.terminals | step.truncations)
        if won is not None and step.won is not None:
            won[ended] = step.won[ended]
        running &= ~ended
        if not running.any():
            break
    return Outcome(returns.reshape(R, B), None if won is None else won.reshape(R, B), diverged)


def _split(step: Step, replicas: int, episodes: int) -> NDArray[np.bool_] | None:
    mask = step.available_actions
    return None if mask is None else mask.reshape(replicas, episodes, *mask.shape[1:])
