"""Trains the behaviour policies of a task, and ships them: expert, medium and the history between."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark.behaviour.evaluation import EVALUATION_SEED, RandomPolicy, play, summary
from benchmark.behaviour.loop import Weights, one_thread
from benchmark.behaviour.recipes import Recipe, recipe_of
from tasks.common.errors import UsageError
from tasks.common.seeding import derive_seed
from tasks.policies import DRAWN, ActionRule, MLPPolicy, PolicyTask, SoftmaxPolicy, save_policy, stack_history
from tasks.registry import make_task

log = logging.getLogger(__name__)

SHARES = {"poor": 0.25, "medium": 0.5}  # of the way from random to expert, at which the other levels stand
EXPERT_EVERY = 10  # rounds between candidates for the expert: fewer of them, less luck in the best
LADDER_EPISODES = 250
CARD_EPISODES = 1_000
HISTORY_BYTES = 1_400_000
CURVE_POINTS = 50
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
    """A policy on the ladder of a training run; `drawn`: not greedy, for the levels below the expert."""

    round: int
    env_steps: int
    mean_return: float
    weights: Weights
    drawn: bool = False

    def policy(self, rule: ActionRule) -> MLPPolicy | SoftmaxPolicy:
        """As it acts."""
        return SoftmaxPolicy(self.weights) if self.drawn else MLPPolicy(self.weights, rule)


@dataclass(slots=True)
class TrainingRun:
    """What a run left: the ladder of evaluated policies, and every round's actors in float16 with their exploration."""

    ladder: list[Rung] = field(default_factory=list)
    actors: list[dict[str, NDArray[np.float16]]] = field(default_factory=list)
    epsilons: list[float] = field(default_factory=list)
    noises: list[float] = field(default_factory=list)
    uniform_rounds: int = 0
    env_steps: int = 0
    wall_seconds: float = 0.0


def train_behaviour(
    task_selector: str,
    seed: int,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    algorithm: str | None = None,
    out: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, float]:
    """Trains a policy on a task and writes every level of it, and the history of the run where it is kept, under `out`.

    The expert is the best rung of the ladder; the other levels are the rungs before it nearest to their share s of the
    normalised score between random and expert. All are chosen among candidates evaluated again with one set of
    episodes; the cards' numbers come from another.

    Args:
        task_selector: e.g. `mpe/tag[actions=discrete]` or `smac/3m`.
        seed: of the run; starting states, weights, exploration and batches derive from it.
        steps: length of the run in environment steps, or else
        seconds: in wall time.
        algorithm: another than the task's first, e.g. "qmix".
        out: the folder that holds one folder a task; None: the package's.
        progress: called at each rung of the ladder.

    Returns:
        The mean team returns of "random" and of every level over 1,000 episodes, or the recipe's share of them.

    Raises:
        UsageError: if not exactly one of `steps` and `seconds` is given, or there is no such way to train the task.
    """
    if (steps is None) == (seconds is None):
        raise UsageError("Give the length of the training: either steps or seconds.")
    task = make_task(task_selector)
    if not isinstance(task, PolicyTask):
        raise UsageError(f"{task.spec.id}: its package keeps no policies here. Ask its authors how to train one.")
    recipe, started = recipe_of(task, algorithm), time.perf_counter()
    with one_thread():
        run = _train(task, recipe, seed, steps, seconds, progress)
    low = float(
        play(task, RandomPolicy(task.spec, seed), recipe.episodes(CARD_EPISODES), EVALUATION_SEED).returns.mean()
    )
    chosen, middle = _levels(task, recipe, run, low, seed)

    length = f"--steps {steps}" if steps is not None else f"--seconds {seconds:g}"
    chosen_by = f" --algorithm {algorithm}" if algorithm else ""
    command = f"bench policy train '{task.spec.id}' --seed {seed} {length}{chosen_by}"
    card = _card(task, recipe, seed, command, run)
    means = {"random": low}
    for level in task.behaviour_levels:
        rung = chosen[level]
        played = play(task, rung.policy(task.rule), recipe.episodes(CARD_EPISODES), EVALUATION_SEED)
        means[level] = float(played.returns.mean())
        extra = {"level": level, "env_steps": rung.env_steps, "drawn": rung.drawn, "evaluation": summary(*played)}
        flag = {DRAWN: np.ones(1, dtype=np.int8)} if rung.drawn else {}
        save_policy(
            task.checkpoint(level, out), {**rung.weights, **flag}, {**card, **extra, "random_return": round(low, 4)}
        )
    if recipe.keeps_history:
        rungs = [rung for rung in run.ladder if rung.drawn] or run.ladder  # as the run itself acted
        reached = next((rung.round for rung in rungs if rung.mean_return >= middle), rungs[-1].round)
        _save_history(task, recipe, run, reached, chosen["expert"].round if recipe.keeps_all else None, card, out)
    log.info("%s: %s after %.0f s", task.spec.id, means, time.perf_counter() - started)
    return means


def _train(
    task: PolicyTask,
    recipe: Recipe,
    seed: int,
    steps: int | None,
    seconds: float | None,
    progress: Callable[[Progress], None] | None,
) -> TrainingRun:
    stage = derive_seed("behaviour", task.spec.id, seed)
    run, started = TrainingRun(), time.perf_counter()
    for start in recipe.rounds(stage, steps):
        run.env_steps, run.wall_seconds = start.env_steps, time.perf_counter() - started
        finished = start.env_steps >= steps if steps is not None else run.wall_seconds >= (seconds or 0.0)
        if start.index < recipe.close_until:
            mean = _mean(task, recipe, SoftmaxPolicy(start.actors), stage)
            run.ladder.append(Rung(start.index, start.env_steps, mean, start.actors, drawn=True))
        if recipe.is_rung(start.index) or finished:
            mean = _mean(task, recipe, MLPPolicy(start.actors, task.rule), stage)
            run.ladder.append(Rung(start.index, start.env_steps, mean, start.actors))
            if progress is not None:
                progress(Progress(start.env_steps, steps, run.wall_seconds, mean))
        if finished:
            return run
        run.uniform_rounds += start.uniform
        run.actors.append({name: array.astype(np.float16) for name, array in start.actors.items()})
        run.epsilons.append(start.epsilon)
        run.noises.append(start.noise)
    raise AssertionError("rounds never end")


def _mean(task: PolicyTask, recipe: Recipe, policy: MLPPolicy | SoftmaxPolicy, stage: int) -> float:
    """The mean return by which a rung is placed on the ladder."""
    return float(play(task, policy, recipe.episodes(LADDER_EPISODES), derive_seed("ladder", stage)).returns.mean())


def _levels(task: PolicyTask, recipe: Recipe, run: TrainingRun, low: float, seed: int) -> tuple[dict[str, Rung], float]:
    """The rung of every level, and the return half way between random and expert."""
    greedy = [rung for rung in run.ladder if not rung.drawn]
    candidates = [rung for rung in greedy if rung.round % EXPERT_EVERY == 0 or rung is greedy[-1]]
    best = sorted(candidates, key=lambda rung: -rung.mean_return)[:CANDIDATES]
    high, _, expert = max(_again(task, recipe, best, seed), key=lambda scored: scored[:2])
    rungs = [rung for rung in run.ladder if rung.drawn] or greedy
    before = [rung for rung in rungs if rung.env_steps <= expert.env_steps]
    chosen = {"expert": expert}
    for level in task.behaviour_levels[:-1]:
        goal = low + SHARES[level] * (high - low)
        nearest = sorted(before, key=lambda rung: abs(rung.mean_return - goal))[:CANDIDATES]  # at once
        chosen[level] = min(_again(task, recipe, nearest, seed), key=lambda scored: abs(scored[0] - goal))[2]
    return chosen, (low + high) / 2


def _again(task: PolicyTask, recipe: Recipe, rungs: list[Rung], seed: int) -> list[tuple[float, int, Rung]]:
    episodes = derive_seed("choice", task.spec.id, seed)
    scored = []
    for rung in rungs:
        returns = play(task, rung.policy(task.rule), recipe.episodes(CARD_EPISODES), episodes).returns
        scored.append((float(returns.mean()), rung.env_steps, rung))
    return scored


def _save_history(
    task: PolicyTask,
    recipe: Recipe,
    run: TrainingRun,
    reached: int,
    end: int | None,
    card: Mapping[str, object],
    out: Path | None,
) -> None:
    """Keeps evenly spaced actors of the rounds before `end`; each stands for the rounds until the next one.

    Without `end` they are those before `reached`, the round of the medium level.
    """
    first = run.uniform_rounds
    last = max(reached if end is None else end, first + 1)
    size = sum(array.nbytes for array in run.actors[0].values())
    count = max(1, min(last - first, HISTORY_BYTES // size))
    starts = np.unique(np.linspace(first, last, count, endpoint=False).astype(int))
    episodes = np.diff([0, *starts, last]) * recipe.num_envs
    epsilon = [run.epsilons[start] for start in starts] if any(run.epsilons) else None
    noise = [run.noises[start] for start in starts] if any(run.noises) else None
    medium = None if end is None else max(reached, 1) * recipe.num_envs
    actors = [run.actors[start] for start in starts]
    weights = stack_history(actors, episodes.tolist(), epsilon=epsilon, noise=noise, medium=medium)
    extra = {"level": "history", "episodes": int(episodes.sum()), "snapshots": len(starts)}
    if recipe.to_the_limit:
        extra["env_steps"] = int(episodes.sum()) * task.spec.episode_limit
    save_policy(task.checkpoint("history", out), weights, {**card, **extra})


def _card(task: PolicyTask, recipe: Recipe, seed: int, command: str, run: TrainingRun) -> dict[str, object]:
    return {
        "task": task.spec.id,
        "engine": task.spec.engine,
        "engine_version": task.spec.engine_version,
        "variant": task.spec.variant,
        "algorithm": recipe.algorithm,
        "action_rule": task.rule,
        "seed": seed,
        "run": {
            "env_steps": run.env_steps,
            "wall_seconds": round(run.wall_seconds, 1),
            "learning_curve": _learning_curve(run),
        },
        "config": dict(recipe.config),
        "versions": library_versions(),
        "evaluation_seed": EVALUATION_SEED,
        "command": command,
    }


def _learning_curve(run: TrainingRun) -> list[list[float]]:
    """Steps and mean return of the greedy rungs, evenly thinned; the last one is always among them."""
    points = [[rung.env_steps, round(rung.mean_return, 2)] for rung in run.ladder if not rung.drawn]
    kept = np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int)
    return [points[index] for index in kept]


def library_versions() -> dict[str, str]:
    """Python and the libraries that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "torch", "safetensors")}}
