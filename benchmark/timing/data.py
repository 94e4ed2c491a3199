"""Opening a memory-mapped dataset of a million steps, and sampling from it."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from benchmark.timing.measurements import Measurement, seconds_of, summarise
from tasks.common.seeding import make_generator
from tasks.datasets import store, views
from tasks.datasets.card import card_of_collected
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

TASK, REGIME = "mpe/spread", "random"
EPISODES = 40_000  # of 25 steps: a million transitions (MADiTS, Sec. 5.1)
OPEN_LIMIT_SECONDS = 0.1
BATCH, WINDOWS, HORIZON = 1024, 256, 8
MEMORY_LIMIT = 2.0
"""Times the bytes a batch returns that sampling it may allocate: the batch, its indices, and no column besides."""


def measure(device: str) -> Iterator[Measurement]:
    """Seconds to open, milliseconds to sample, and the memory that sampling takes; `device` plays no part."""
    task = make_task(TASK)
    request = resolve(task, REGIME)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.safetensors"
        data = collect(task, request, EPISODES, 0, lambda done, total, what: None)
        store.save(data, card_of_collected(task, request, data, episodes=EPISODES, seed=0), path)
        del data
        detail = f"{TASK} {REGIME}, {EPISODES} episodes, {path.stat().st_size / 2**20:.0f} MiB, file cache warm"
        yield summarise(
            "data/open a million steps",
            seconds_of(lambda: store.load(path, task.spec), repetitions=20),
            unit="s",
            detail=detail,
            target=OPEN_LIMIT_SECONDS,
            comparison="at most",
        )
        opened, generator = store.load(path, task.spec), make_generator("timing", "data")
        transitions, segments = views.transitions(opened), views.segments(opened, HORIZON)
        for name, sample in (
            (f"sample {BATCH} transitions", lambda: transitions.sample(BATCH, generator)),
            (f"sample {WINDOWS} segments of {HORIZON} rows", lambda: segments.sample(WINDOWS, generator)),
        ):
            milliseconds = [1e3 * seconds for seconds in seconds_of(sample, repetitions=20)]
            yield summarise(f"data/{name}", milliseconds, unit="ms", detail="uniform, with replacement")
            yield summarise(
                f"data/{name}: memory",
                [_allocated_over_returned(sample) for _ in range(3)],
                unit="x",
                detail="peak of what the call allocates, over what it returns",
                target=MEMORY_LIMIT,
                comparison="at most",
            )


def _allocated_over_returned(sample: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        batch = sample()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    columns = (getattr(batch, field.name) for field in fields(batch))  # type: ignore[arg-type]  # a dataclass
    returned: int = sum(column.nbytes for column in columns if column is not None)
    return peak / returned
