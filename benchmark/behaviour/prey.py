"""Trains the prey of tag and world, briefly and together with the predators, then freezes it.

A long joint training gives a prey that nobody touches, so the first prey that is neither too
weak nor too strong is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmark.behaviour.evaluation import EVALUATION_SEED
from benchmark.behaviour.loop import LoopConfig, Weights, one_thread, training_rounds
from benchmark.behaviour.train import Progress, library_versions
from methods.online.matd3 import MATD3, MATD3Config
from tasks.base import FloatArray
from tasks.common.errors import AugMARLError, UsageError
from tasks.common.seeding import derive_seed, make_generator
from tasks.common.selector import Selector
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.prey import PretrainedPrey, Prey
from tasks.mpe.scenarios import EPISODE_LIMIT
from tasks.mpe.task import ENGINE, ENGINE_VERSION, MPETask, make_task
from tasks.policies import save_policy
from tasks.spec import ActionSpec

# Returns of one predator against an acceptable prey: about what the papers' own prey allows (docs/tasks.md).
RANDOM_RANGE = (-9.0, -1.0)
CHASE_RANGE = {"tag": (110.0, 170.0), "world": (55.0, 95.0)}
# inferred for mpe2, whose gains are smaller and whose rewards have no distance term in tag
MPE2_RANDOM_RANGE = (-5.0, 10.0)
MPE2_CHASE_RANGE = {"tag": (40.0, 170.0), "world": (15.0, 95.0)}
MIN_STEPS = 60_000  # about 10 s of updates: before, a prey is within the ranges by chance
MAX_STEPS = 400_000


class JointArena:
    """Predators and prey learn together. The prey's observation is padded with zeros to the predators' size."""

    def __init__(self, engine: ParticleEngine, num_envs: int, seed: int) -> None:
        self._engine, self._num_envs, self._seed = engine, num_envs, seed
        self.n_agents, self.episode_limit = engine.n_agents, EPISODE_LIMIT
        self._kinematics = engine.start(seed, range(num_envs))
        self.obs_dim = engine.observe(self._kinematics).shape[-1]
        self.action = ActionSpec(kind="continuous", size=2)

    def reset(self, episode_ids: range) -> FloatArray:
        """Observations (B, N + 1, D)."""
        self._kinematics = self._engine.start(self._seed, episode_ids)
        return self._observe()

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Observations (B, N + 1, D) and rewards (B, N + 1), the prey last."""
        self._kinematics = self._engine.step(self._kinematics, actions.astype(np.float64))
        prey = self._engine.prey_reward(self._kinematics)[:, None]
        rewards = np.concatenate([self._engine.rewards(self._kinematics), prey], axis=1)
        return self._observe(), rewards.astype(np.float32)

    def _observe(self) -> FloatArray:
        prey = self._engine.observe_prey(self._kinematics)
        padded = np.pad(prey, ((0, 0), (0, self.obs_dim - prey.shape[1])))
        return np.concatenate([self._engine.observe(self._kinematics), padded[:, None]], axis=1).astype(np.float32)


def train_prey(
    task_selector: str,
    seed: int,
    *,
    out: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, float]:
    """Trains and writes the prey of a task: the first one within the acceptance ranges.

    Returns:
        The mean return of one predator against it: "random" and "greedy chase", over 2,000 episodes.

    Raises:
        UsageError: if the task has no prey.
        AugMARLError: if no acceptable prey appeared in 400,000 steps; another seed may do.
    """
    task = make_task(Selector.parse(task_selector))
    if not task.scenario.has_prey:
        raise UsageError(f"{task.spec.id} has no prey. mpe/tag and mpe/world have one.")
    # Half the updates of a predator's run: a faster learner jumps over the acceptance ranges.
    engine, config = ParticleEngine(task.scenario), LoopConfig(reward_scale=0.1, updates_per_step=2)
    stage = derive_seed("prey", task.name, task.parameters.variant, seed)
    arena = JointArena(engine, config.num_envs, derive_seed("train", stage))
    started = time.perf_counter()
    with one_thread():
        generator = torch.Generator().manual_seed(stage)
        initial = make_generator("weights", stage)
        learner = MATD3(MATD3Config(), arena.n_agents, arena.obs_dim, arena.action, generator, initial)
        for start in training_rounds(arena, config, learner, generator):
            if start.env_steps > MAX_STEPS:
                break
            if start.env_steps < MIN_STEPS:
                continue
            weights = _prey_weights(start.actors, engine)
            measured = measure_prey(engine, PretrainedPrey(weights), 500, derive_seed("ladder", stage))
            wall = time.perf_counter() - started
            if progress is not None:
                progress(Progress(start.env_steps, MAX_STEPS, wall, measured["greedy chase"]))
            if _acceptable(task, measured):
                final = measure_prey(engine, PretrainedPrey(weights), 2000, EVALUATION_SEED)
                save_policy(task.checkpoint("prey", out), weights, _card(task, seed, start.env_steps, wall, final))
                return final
    raise AugMARLError(f"No acceptable prey for {task.spec.id} in {MAX_STEPS} steps. Try another --seed.")


def measure_prey(engine: ParticleEngine, prey: Prey, episodes: int, seed: int) -> dict[str, float]:
    """Mean return of one predator, for uniform predators and for predators that apply the unit vector to the prey."""
    generator = make_generator("random predators", seed)
    n = engine.scenario.n_learners
    totals = {"random": 0.0, "greedy chase": 0.0}
    for name in totals:
        kinematics = engine.start(seed, range(episodes))
        for _ in range(EPISODE_LIMIT):
            if name == "random":
                hunt = generator.uniform(-1.0, 1.0, (episodes, n, 2))
            else:
                offset = kinematics[:, n : n + 1] - kinematics[:, :n]
                hunt = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-12)
            flight = prey.act(engine.observe_prey(kinematics))
            kinematics = engine.step(kinematics, np.concatenate([hunt, flight[:, None]], axis=1))
            totals[name] += float(engine.rewards(kinematics).mean())
    return totals


def _prey_weights(actors: Weights, engine: ParticleEngine) -> Weights:
    """The last actor alone, without the rows of the padding."""
    size = engine.observe_prey(engine.start(0, range(1))).shape[1]
    weights = {name: array[-1:].copy() for name, array in actors.items()}
    return {**weights, "w0": np.ascontiguousarray(weights["w0"][:, :size])}


def _acceptable(task: MPETask, measured: dict[str, float]) -> bool:
    omar, family = task.parameters.variant == "omar", task.scenario.family
    low, high = RANDOM_RANGE if omar else MPE2_RANDOM_RANGE
    chase_low, chase_high = (CHASE_RANGE if omar else MPE2_CHASE_RANGE)[family]
    return low <= measured["random"] <= high and chase_low <= measured["greedy chase"] <= chase_high


def _card(task: MPETask, seed: int, env_steps: int, wall: float, measured: dict[str, float]) -> dict[str, object]:
    variant = task.parameters.variant
    return {
        "task": str(Selector.of(task.name, {} if variant == "omar" else {"variant": variant})),
        "level": "prey",
        "engine": ENGINE,
        "engine_version": ENGINE_VERSION,
        "variant": variant,
        "algorithm": "matd3, trained together with three predators",
        "action_rule": "tanh",
        "seed": seed,
        "env_steps": env_steps,
        "wall_seconds": round(wall, 1),
        "versions": library_versions(),
        "predator_returns": {name: round(value, 3) for name, value in measured.items()},
        "evaluation_seed": EVALUATION_SEED,
        "command": f"bench policy train '{task.spec.id}' --prey --seed {seed}",
    }
