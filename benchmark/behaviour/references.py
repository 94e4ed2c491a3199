"""Measures the score references: the returns that 0 and 100 of the normalised score stand for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from benchmark.behaviour.evaluation import EVALUATION_SEED, RandomPolicy, evaluate, summary
from benchmark.behaviour.train import library_versions
from tasks.common.files import write_bytes
from tasks.common.selector import Selector
from tasks.mpe.scenarios import NAMES
from tasks.mpe.task import REFERENCES, MPETask, make_task

_VARIANTS = [
    dict(zip(("variant", "actions"), chosen, strict=True))
    for chosen in itertools.product(("omar", "mpe2"), ("continuous", "discrete"))
]


def shipped_tasks() -> list[MPETask]:
    """Every task for which an expert is shipped, in the order of the task table."""
    tasks = [make_task(Selector.of(name, dict(params))) for name in NAMES for params in _VARIANTS]
    return [task for task in tasks if task.checkpoint("expert").exists()]


def measure_references(episodes: int = 1_000, path: Path = REFERENCES) -> dict[str, tuple[float, float]]:
    """Evaluates the random policy and the shipped expert of every task, and rewrites the reference file.

    Returns:
        Mean team returns (random, expert) by task id.
    """
    rows: dict[str, object] = {}
    means: dict[str, tuple[float, float]] = {}
    for task in shipped_tasks():
        spec = task.spec
        low = evaluate(task, RandomPolicy(spec, EVALUATION_SEED), episodes, EVALUATION_SEED)
        high = evaluate(task, task.behaviour_policy("expert"), episodes, EVALUATION_SEED)
        means[spec.id] = float(low.mean()), float(high.mean())
        rows[spec.id] = {
            "engine": spec.engine,
            "engine_version": spec.engine_version,
            "variant": spec.variant,
            "team_reward": spec.team_reward,
            "episodes": episodes,
            "seed": EVALUATION_SEED,
            "random": summary(low),
            "expert": summary(high),
            "provenance": f"uniform random policy and shipped expert {task.behaviour_digest('expert')[:12]}, "
            f"{episodes} episodes each",
        }
    table = {"command": "bench policy references", "versions": library_versions(), "references": rows}
    write_bytes(path, (json.dumps(table, indent=2) + "\n").encode())
    return means
