"""Five seeds of a learner together against the same five one after another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmark.timing.measurements import Measurement, interleaved_seconds, summarise
from methods.base import Budget, Run
from methods.learners import LEARNERS
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

SEEDS = (0, 1, 2, 3, 4)
EPISODES = 400
UPDATES = 400
BATCHES = (32, 256)
CASES = (("bc", "mpe/spread", "none"), ("bc", "mpe/spread[actions=discrete]", "gru"))


def measure(device: str) -> Iterator[Measurement]:
    """Updates a second of one seed alone and of five together, and the ratio of the times for five seeds."""
    for name, task_id, memory in CASES:
        task = make_task(task_id)
        data = collect(task, resolve(task, "random"), EPISODES, 0, lambda done, total, what: None)
        learner = LEARNERS.load(name).from_params({"memory": memory, "hidden": 64})
        for batch_size in BATCHES if memory == "none" else BATCHES[:1]:

            def train(seeds: tuple[int, ...], batch_size: int = batch_size) -> None:
                budget = Budget(updates=UPDATES, batch_size=batch_size)
                learner.fit([data] * len(seeds), Run(seeds=seeds, device=device, budget=budget))  # noqa: B023

            def one_by_one() -> None:
                for seed in SEEDS:
                    train((seed,))

            together, apart = interleaved_seconds(lambda: train(SEEDS), one_by_one, repetitions=3)
            unit = "episodes" if memory == "gru" else "transitions"
            detail = f"64 wide, {batch_size} {unit} a batch, {UPDATES} updates, {device}"
            label = f"learner/{name} ({'recurrent' if memory == 'gru' else 'memoryless'}), batch {batch_size}"
            yield summarise(f"{label}: one seed", [5 * UPDATES / s for s in apart], unit="updates/s", detail=detail)
            yield summarise(
                f"{label}: five together", [UPDATES / s for s in together], unit="updates/s", detail="each of all five"
            )
            yield summarise(
                f"{label}: speed-up of five",
                list(np.divide(apart, together)),
                unit="x",
                detail="five one after another over five together",
                target=1.0,
            )
