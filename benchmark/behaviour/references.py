"""Measures the score references: the returns that 0 and 100 of the normalised score stand for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmark.behaviour.evaluation import EVALUATION_SEED, RandomPolicy, evaluate, summary
from benchmark.behaviour.train import library_versions
from tasks.base import Task
from tasks.common.errors import MissingDependencyError, UsageError
from tasks.common.files import write_bytes
from tasks.common.selector import Scalar, Selector
from tasks.mamujoco.robots import ROBOTS
from tasks.mamujoco.task import REFERENCES as MAMUJOCO_REFERENCES
from tasks.mamujoco.task import MAMuJoCoTask
from tasks.mpe.scenarios import NAMES
from tasks.mpe.task import REFERENCES as MPE_REFERENCES
from tasks.mpe.task import MPETask
from tasks.mpe.task import make_task as make_mpe_task
from tasks.registry import make_task
from tasks.smac.maps import BATTLES
from tasks.smac.task import REFERENCES as SMAC_REFERENCES

FILES: Mapping[str, Path] = {"mpe": MPE_REFERENCES, "smac": SMAC_REFERENCES, "mamujoco": MAMUJOCO_REFERENCES}
"""Where the references of each family are kept."""


def shipped_tasks() -> list[MPETask]:
    """Every MPE task for which an expert is shipped, in the order of the task table."""
    variants: Iterable[tuple[str, str]] = itertools.product(("omar", "mpe2"), ("continuous", "discrete"))
    choices: list[dict[str, Scalar]] = [dict(zip(("variant", "actions"), both, strict=True)) for both in variants]
    tasks = [make_mpe_task(Selector.of(name, chosen)) for name in NAMES for chosen in choices]
    return [task for task in tasks if task.checkpoint("expert").exists()]


def measured_tasks(family: str) -> Sequence[Task]:
    """The tasks of a family that have references.

    Raises:
        UsageError: for a family without any.
        MissingDependencyError: if they cannot be played on this machine.
    """
    if family not in FILES:
        raise UsageError(f"There are no references of {family!r}. Choose {' or '.join(FILES)}.")
    found: Mapping[str, Callable[[], Sequence[Task]]] = {
        "mpe": shipped_tasks,
        "smac": lambda: [make_task(name) for name in BATTLES],
        "mamujoco": lambda: [robot for robot in map(MAMuJoCoTask, ROBOTS) if robot.checkpoint("expert").exists()],
    }
    tasks = found[family]()
    for task in tasks:
        if missing := task.unavailable():
            raise MissingDependencyError(f"{task.spec.id}: {missing}.")
    return tasks


def measure_references(family: str, episodes: int = 1_000, path: Path | None = None) -> dict[str, tuple[float, float]]:
    """Evaluates the random policy, and the expert unless the field has fixed its return; rewrites the family's file.

    Returns:
        Mean team returns (random, expert) by task id.
    """
    rows: dict[str, object] = {}
    means: dict[str, tuple[float, float]] = {}
    for task in track(measured_tasks(family), description="Tasks", console=Console(stderr=True), transient=True):
        spec = task.spec
        low = evaluate(task, RandomPolicy(spec, EVALUATION_SEED), episodes, EVALUATION_SEED)
        high, source = _expert(task, episodes)
        means[spec.id] = float(low.mean()), float(high["mean"])  # type: ignore[arg-type]  # a number
        rows[spec.id] = {
            "engine": spec.engine,
            "engine_version": spec.engine_version,
            "variant": spec.variant,
            "team_reward": spec.team_reward,
            "episodes": episodes,
            "seed": EVALUATION_SEED,
            "random": summary(low),
            "expert": high,
            "provenance": f"uniform random policy and {source}, {episodes} episodes each",
        }
    command = f"bench policy references --family {family}"
    table = {"command": command, "versions": library_versions(), "references": rows}
    write_bytes(FILES[family] if path is None else path, (json.dumps(table, indent=2) + "\n").encode())
    return means


def _expert(task: Task, episodes: int) -> tuple[dict[str, object], str]:
    """What 100 stands for, with at least its `mean`, and where it comes from."""
    if task.full_return is not None:
        return {"mean": task.full_return}, f"the return {task.full_return:g} of a full success"
    returns = evaluate(task, task.behaviour_policy("expert"), episodes, EVALUATION_SEED)
    return summary(returns), f"shipped expert {task.behaviour_digest('expert')[:12]}"
