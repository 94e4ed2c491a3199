"""The online loop of MAPPO: whole episodes of the current policy, then some epochs on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmark.behaviour.loop import Round, actor_weights
from methods.online.mappo import MAPPO, Episodes
from tasks.base import ActionArray, BatchedEnv, BoolArray, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPolicyConfig:
    """How experience is gathered."""

    num_envs: int = 128  # inferred
    reward_scale: float = 0.1  # inferred: returns of a few units


def on_policy_rounds(env: BatchedEnv, config: OnPolicyConfig, learner: MAPPO) -> Iterator[Round]:
    """Yields the start of each round of `num_envs` episodes, and trains through it once asked for the next."""
    index = env_steps = 0
    while True:
        yield Round(index, env_steps, uniform=False, actors=actor_weights(learner), noise=learner.head.noise)
        episodes = _play(env, config, learner, range(index * config.num_envs, (index + 1) * config.num_envs))
        env_steps += int(episodes.running.sum())
        learner.update(episodes, env_steps)
        index += 1


def _play(env: BatchedEnv, config: OnPolicyConfig, learner: MAPPO, ids: range) -> Episodes:
    """One episode an environment."""
    shown, actions, runs = [env.reset(ids)], [], [np.ones(len(ids), dtype=np.bool_)]
    while runs[-1].any():
        masks = shown[-1].available_actions
        available = None if masks is None else torch.from_numpy(masks)
        actions.append(learner.act(torch.from_numpy(shown[-1].observations), available).numpy())
        shown.append(env.step(actions[-1]))
        runs.append(runs[-1] & ~(shown[-1].terminals | shown[-1].truncations))
    return _stacked(shown, actions, runs[:-1], env, config.reward_scale)


def _stacked(
    shown: list[Step], actions: list[ActionArray], runs: list[BoolArray], env: BatchedEnv, scale: float
) -> Episodes:
    before, after = shown[:-1], shown[1:]
    living = [
        np.ones(a.shape[:2], np.bool_) if step.alive is None else step.alive
        for step, a in zip(before, actions, strict=True)
    ]
    masks = [step.available_actions for step in before if step.available_actions is not None]
    return Episodes(
        observations=_tensor([step.observations for step in before]),
        states=_tensor([_state(step) for step in shown]),
        available=_tensor(masks) if masks else None,
        alive=_tensor(living),
        actions=_tensor(actions),
        rewards=_tensor([np.float32(scale) * env.spec.fold_rewards(step.rewards) for step in after]),
        terminals=_tensor([step.terminals for step in after]),
        running=_tensor(runs),
    )


def _tensor(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _state(step: Step) -> np.ndarray:
    assert step.states is not None
    return step.states
