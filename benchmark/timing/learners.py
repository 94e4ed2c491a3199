"""Learners: five seeds together against five one after another, and one seed against what is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmark.timing.measurements import Measurement, interleaved_seconds, seconds_of, summarise
from methods.base import Budget, Learner, Run
from methods.learners import LEARNERS
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

SEEDS = (0, 1, 2, 3, 4)
EPISODES = 400
BATCHES = (32, 256)
CLONING = (("bc", "mpe/spread", "none"), ("bc", "mpe/spread[actions=discrete]", "gru"))
CRITICS = ("td3bc", "omar", "cql", "omiga")
AT_LEAST = {32: 5.0, 256: 2.0}
"""Times faster that five seeds of 64 wide networks shall be together, by batch."""
PUBLISHED = {"td3bc": (1024, 34.0), "omar": (1024, 12.9), "cql": (1024, 19.0), "omiga": (128, 115.0)}
"""Batch and updates a second that published implementations reach on MPE spread, on one core of another such machine:
OffPyMARL's MATD3+BC (800 transitions a batch), OMAR's and OMIGA's own repositories."""
PUBLISHED_TARGET = 3.0


def measure(device: str) -> Iterator[Measurement]:
    """Cloning, then learners with critics, at 64 wide; then single seeds as published."""
    for name, task_id, memory in CLONING:
        data = _data(task_id)
        learner = LEARNERS.load(name).from_params({"memory": memory, "hidden": 64})
        unit = "episodes" if memory == "gru" else "transitions"
        for batch_size in BATCHES if memory == "none" else BATCHES[:1]:
            label = f"learner/{name} ({'recurrent' if memory == 'gru' else 'memoryless'}), batch {batch_size}"
            yield from _five_seeds(learner, data, label, f"{batch_size} {unit}", batch_size, 400, 1.0, device)
    data = _data("mpe/spread")
    for name in CRITICS:
        learner = LEARNERS.load(name).from_params({**LEARNERS.entry(name).params, "hidden": 64})
        for batch_size in BATCHES:
            label = f"learner/{name}, batch {batch_size}"
            target = AT_LEAST[batch_size]
            yield from _five_seeds(learner, data, label, f"{batch_size} transitions", batch_size, 40, target, device)
    for name, (batch_size, published) in PUBLISHED.items():
        learner = LEARNERS.load(name).from_params(LEARNERS.entry(name).params)
        seconds = seconds_of(_training(learner, data, batch_size, 30, device, (0,)), repetitions=3)
        rates = [30 / s for s in seconds]
        label, detail = f"learner/{name}, batch {batch_size}, as published", f"sampling included, {device}"
        yield summarise(label, rates, unit="updates/s", detail=detail)
        yield summarise(
            f"{label}: ratio",
            [rate / published for rate in rates],
            unit="x",
            detail=f"over {published} updates a second, measured elsewhere on one such core",
            target=PUBLISHED_TARGET,
        )


def _data(task_id: str) -> OfflineDataset:
    task = make_task(task_id)
    return collect(task, resolve(task, "random"), EPISODES, 0, lambda done, total, what: None)


def _training(
    learner: Learner[Any], data: OfflineDataset, batch_size: int, updates: int, device: str, seeds: tuple[int, ...]
) -> Callable[[], object]:
    run = Run(seeds=seeds, device=device, budget=Budget(updates=updates, batch_size=batch_size))
    return lambda: learner.fit([data] * len(seeds), run)


def _five_seeds(
    learner: Learner[Any],
    data: OfflineDataset,
    label: str,
    batch: str,
    batch_size: int,
    updates: int,
    target: float,
    device: str,
) -> Iterator[Measurement]:
    """Updates a second of one seed alone and of five together, and the ratio of the times for five seeds."""
    alone = [_training(learner, data, batch_size, updates, device, (seed,)) for seed in SEEDS]
    together, apart = interleaved_seconds(
        _training(learner, data, batch_size, updates, device, SEEDS),
        lambda: [train() for train in alone],
        repetitions=3,
    )
    detail = f"64 wide, {batch} a batch, {updates} updates, {device}"
    yield summarise(f"{label}: one seed", [5 * updates / s for s in apart], unit="updates/s", detail=detail)
    yield summarise(
        f"{label}: five together", [updates / s for s in together], unit="updates/s", detail="each of all five"
    )
    yield summarise(
        f"{label}: speed-up of five",
        list(np.divide(apart, together)),
        unit="x",
        detail="five one after another over five together",
        target=target,
    )
