"""Battles on SMAX with a policy in the loop, against a loop over one environment of JaxMARL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from benchmark.timing.measurements import Measurement, Side, compared
from tasks.common.errors import MissingDependencyError
from tasks.common.seeding import make_generator
from tasks.policies import MLPPolicy
from tasks.registry import make_task
from tasks.smac.task import SMACTask

TASK = "smac/3m"
NUM_ENVS, HIDDEN = 256, 128
TARGET_RATE, TARGET_RATIO = 20_000.0, 10.0
STEPS, SINGLE_STEPS = 60, 300


def measure(device: str) -> Iterator[Measurement]:
    """Environment steps a second, a network choosing every action; `device` plays no part.

    Raises:
        MissingDependencyError: without JaxMARL.
    """
    task = make_task(TASK)
    assert isinstance(task, SMACTask)
    if missing := task.unavailable():
        raise MissingDependencyError(f"`bench timing` of battles: {missing}.")
    policy = _policy(task)
    env = task.make_env(NUM_ENVS, seed=0)

    def batched() -> None:
        shown = env.reset(range(NUM_ENVS))
        for _ in range(STEPS):
            shown = env.step(policy.act(shown.observations, shown.available_actions))

    def single() -> None:
        _loop_over_one(task, policy)

    detail = f"{NUM_ENVS} battles, network of {HIDDEN} in the loop, reset included, battles that are over too"
    yield from compared(
        f"smax/{TASK}",
        Side("batched", batched, STEPS * NUM_ENVS, detail, TARGET_RATE),
        Side("JaxMARL loop", single, SINGLE_STEPS, "one environment, compiled step"),
        unit="steps",
        target=TARGET_RATIO,
    )


def _policy(task: SMACTask) -> MLPPolicy:
    """An untrained network that all agents share."""
    spec, generator = task.spec, make_generator("timing", "battles")
    sizes = (spec.obs_dim + spec.n_agents, HIDDEN, HIDDEN, spec.action.size)
    weights = {}
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{layer}"] = (generator.standard_normal((1, rows, columns)) / np.sqrt(rows)).astype(np.float32)
        weights[f"b{layer}"] = np.zeros((1, columns), dtype=np.float32)
    return MLPPolicy(weights, "argmax")


def _loop_over_one(task: SMACTask, policy: MLPPolicy) -> None:
    """JaxMARL's own compiled reset, step and masks, one battle after the other."""
    import jax

    from tasks.smac import smax

    engine = smax.battles(task.battle, smax.Rules()).engine
    key = jax.random.key(0)
    _, state = engine.reset(key)
    for t in range(SINGLE_STEPS):
        masks, observations = engine.get_avail_actions(state), engine.get_obs(state)
        seen = np.stack([np.asarray(observations[agent]) for agent in engine.agents])
        available = np.stack([np.asarray(masks[agent]) for agent in engine.agents]).astype(bool)
        actions = policy.act(seen[None], available[None])[0]
        key = jax.random.fold_in(key, t)
        named = {agent: int(actions[i]) for i, agent in enumerate(engine.agents)}
        _, state, _, done, _ = engine.step_env(key, state, named)
        if done["__all__"]:
            _, state = engine.reset(key)
