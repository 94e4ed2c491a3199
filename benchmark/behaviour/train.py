"""Trains the behaviour policies of a task, and ships them: expert, medium and the history between."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.behaviour.evaluation import EVALUATION_SEED, RandomPolicy, evaluate, summary
from benchmark.behaviour.loop import LoopConfig, OnlineLearner, TaskArena, Weights, one_thread, training_rounds
from benchmark.behaviour.teacher import AssignmentTeacher
from methods.online.imitation import Imitation, ImitationConfig
from methods.online.matd3 import MATD3, MATD3Config
from tasks.common.errors import UsageError
from tasks.common.seeding import derive_seed, make_generator
from tasks.common.selector import Selector
from tasks.mpe.policies import MLPPolicy, save_policy, stack_history
from tasks.mpe.task import CHECKPOINTS, MPETask, make_task

log = logging.getLogger(__name__)

EVALUATE_EVERY = 2  # rounds; tag goes from random to two thirds of its expert in ten
EXPERT_EVERY = 10  # rounds between candidates for the expert: fewer of them, less luck in the best
LADDER_EPISODES = 250
CARD_EPISODES = 1_000
HISTORY_BYTES = 1_400_000
CANDIDATES = 5  # of the ladder, evaluated again before one is chosen


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run stands; `mean_return` is the team's, greedy."""

    env_steps: int
    total_steps: int | None
    wall_seconds: float
    mean_return: float


@dataclass(frozen=True, slots=True)
class Rung:
    """A policy on the ladder of a training run."""

    round: int
    env_steps: int
    mean_return: float
    weights: Weights


@dataclass(slots=True)
class TrainingRun:
    """What a run left: the ladder of evaluated policies, and every round's actors in float16."""

    ladder: list[Rung] = field(default_factory=list)
    actors: list[dict[str, NDArray[np.float16]]] = field(default_factory=list)
    uniform_rounds: int = 0
    env_steps: int = 0
    wall_seconds: float = 0.0


def loop_config(task: MPETask) -> LoopConfig:
    """The loop's settings for a task: the rewards of each scenario need their own scale."""
    if task.scenario.family != "spread":
        return LoopConfig(reward_scale=0.1)
    # inferred: mpe2's spread pays about -1 a step where OMAR's pays about 20
    return LoopConfig(reward_scale=0.05 if task.parameters.variant == "omar" else 1.0)


def algorithm_of(task: MPETask) -> str:
    """MATD3, Gumbel-softmax where actions are discrete; imitation of a scripted teacher for omar's larger squares.

    On the square of half-width 2 with four agents MATD3 had reached 30 % of the teacher's return after 480,000 steps;
    imitation reached 48 % after 160,000, in a seventh of the time.
    """
    if task.rule == "argmax":
        return "matd3-gumbel"
    large = task.parameters.variant == "omar" and task.scenario.family == "spread" and task.spec.n_agents > 3
    return "imitation" if large else "matd3"


def make_learner(
    task: MPETask, arena: TaskArena, generator: torch.Generator, weights: np.random.Generator
) -> OnlineLearner:
    """The untrained learner of a task."""
    config = _learner_config(task)
    if isinstance(config, MATD3Config):
        return MATD3(config, arena.n_agents, arena.obs_dim, arena.action, generator, weights)
    teacher = AssignmentTeacher(arena.n_agents)
    return Imitation(config, arena.n_agents, arena.obs_dim, arena.action.size, teacher, generator, weights)


def _learner_config(task: MPETask) -> MATD3Config | ImitationConfig:
    return ImitationConfig() if algorithm_of(task) == "imitation" else MATD3Config()


def train_behaviour(
    task_selector: str,
    seed: int,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    out: Path = CHECKPOINTS,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, float]:
    """Trains a policy on a task and writes `expert`, `medium` and, for continuous actions, `history` under `out`.

    The expert is the best rung of the ladder, the medium the rung nearest to s = ½ before it, where s is the
    normalised score between random and expert. Both are chosen among candidates evaluated again with one set of
    episodes; the cards' numbers come from another.

    Args:
        task_selector: an MPE task, e.g. `mpe/tag[actions=discrete]`.
        seed: of the run; starting states, weights, exploration and batches derive from it.
        steps: length of the run in environment steps, or else
        seconds: in wall time.
        out: the folder that holds one folder a task.
        progress: called at each rung of the ladder.

    Returns:
        The mean team returns of "random", "medium" and "expert" over 1,000 episodes.

    Raises:
        UsageError: if not exactly one of `steps` and `seconds` is given, or the task is unknown.
    """
    if (steps is None) == (seconds is None):
        raise UsageError("Give the length of the training: either steps or seconds.")
    task = make_task(Selector.parse(task_selector))
    started = time.perf_counter()
    with one_thread():
        run = _train(task, seed, steps, seconds, progress)
    random_returns = evaluate(task, RandomPolicy(task.spec, seed), CARD_EPISODES, EVALUATION_SEED)
    low = float(random_returns.mean())
    candidates = [rung for rung in run.ladder if rung.round % EXPERT_EVERY == 0 or rung is run.ladder[-1]]
    expert = max(_again(task, sorted(candidates, key=lambda rung: -rung.mean_return)[:CANDIDATES], seed))
    middle = (low + expert[0]) / 2
    before = [rung for rung in run.ladder if rung.env_steps <= expert[2].env_steps]
    nearest = sorted(before, key=lambda rung: abs(rung.mean_return - middle))[:CANDIDATES]
    medium = min(_again(task, nearest, seed), key=lambda scored: abs(scored[0] - middle))

    length = f"--steps {steps}" if steps is not None else f"--seconds {seconds:g}"
    command = f"bench policy train '{task.spec.id}' --seed {seed} {length}"
    card = _card(task, seed, command, run)
    means = {"random": low}
    for level, (_, _, rung) in (("medium", medium), ("expert", expert)):
        returns = evaluate(task, MLPPolicy(rung.weights, task.rule), CARD_EPISODES, EVALUATION_SEED)
        means[level] = float(returns.mean())
        extra = {"level": level, "env_steps": rung.env_steps, "evaluation": summary(returns)}
        save_policy(task.checkpoint(level, out), rung.weights, {**card, **extra, "random_return": round(low, 4)})
    if task.rule == "tanh":
        reached = next((rung.round for rung in run.ladder if rung.mean_return >= middle), run.ladder[-1].round)
        _save_history(task, run, reached, card, out)
    log.info("%s: %s after %.0f s", task.spec.id, means, time.perf_counter() - started)
    return means


def _train(
    task: MPETask,
    seed: int,
    steps: int | None,
    seconds: float | None,
    progress: Callable[[Progress], None] | None,
) -> TrainingRun:
    config = loop_config(task)
    stage = derive_seed("behaviour", task.spec.id, seed)
    env = task.make_env(config.num_envs, derive_seed("train", stage))
    arena, generator = TaskArena(env), torch.Generator().manual_seed(stage)
    learner = make_learner(task, arena, generator, make_generator("weights", stage))
    run, started = TrainingRun(), time.perf_counter()
    for start in training_rounds(arena, config, learner, generator):
        run.env_steps, run.wall_seconds = start.env_steps, time.perf_counter() - started
        finished = start.env_steps >= steps if steps is not None else run.wall_seconds >= (seconds or 0.0)
        if start.index % EVALUATE_EVERY == 0 or finished:
            policy = MLPPolicy(start.actors, task.rule)
            mean = float(evaluate(task, policy, LADDER_EPISODES, derive_seed("ladder", stage)).mean())
            run.ladder.append(Rung(start.index, start.env_steps, mean, start.actors))
            if progress is not None:
                progress(Progress(start.env_steps, steps, run.wall_seconds, mean))
        if finished:
            return run
        run.uniform_rounds += start.uniform
        run.actors.append({name: array.astype(np.float16) for name, array in start.actors.items()})
    raise AssertionError("training_rounds never ends")


def _again(task: MPETask, rungs: list[Rung], seed: int) -> list[tuple[float, int, Rung]]:
    episodes = derive_seed("choice", task.spec.id, seed)
    scored = []
    for rung in rungs:
        returns = evaluate(task, MLPPolicy(rung.weights, task.rule), CARD_EPISODES, episodes)
        scored.append((float(returns.mean()), rung.env_steps, rung))
    return scored


def _save_history(task: MPETask, run: TrainingRun, reached: int, card: Mapping[str, object], out: Path) -> None:
    """Keeps evenly spaced actors of the rounds before `reached`; each stands for the rounds until the next one."""
    first, num_envs = run.uniform_rounds, loop_config(task).num_envs
    last = max(reached, first + 1)
    size = sum(array.nbytes for array in run.actors[0].values())
    count = max(1, min(last - first, HISTORY_BYTES // size))
    starts = np.unique(np.linspace(first, last, count, endpoint=False).astype(int))
    episodes = np.diff([0, *starts, last]) * num_envs
    weights = stack_history([run.actors[start] for start in starts], episodes.tolist())
    extra = {"level": "history", "env_steps": int(episodes.sum()) * task.spec.episode_limit, "snapshots": len(starts)}
    save_policy(task.checkpoint("history", out), weights, {**card, **extra})


def _card(task: MPETask, seed: int, command: str, run: TrainingRun) -> dict[str, object]:
    return {
        "task": task.spec.id,
        "engine": task.spec.engine,
        "engine_version": task.spec.engine_version,
        "variant": task.spec.variant,
        "algorithm": algorithm_of(task),
        "action_rule": task.rule,
        "seed": seed,
        "run": {
            "env_steps": run.env_steps,
            "wall_seconds": round(run.wall_seconds, 1),
            "learning_curve": [[rung.env_steps, round(rung.mean_return, 2)] for rung in run.ladder[::5]],
        },
        "config": {**asdict(loop_config(task)), **asdict(_learner_config(task))},
        "versions": library_versions(),
        "evaluation_seed": EVALUATION_SEED,
        "command": command,
    }


def library_versions() -> dict[str, str]:
    """Python and the libraries that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "torch", "safetensors")}}
