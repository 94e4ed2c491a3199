"""Model-based stitching by the number of episodes: the search for neighbours, and one pass of decisions."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from benchmark.memory import peak_memory_bytes, reset_peak_memory
from benchmark.timing.measurements import Measurement, summarise
from methods.augmenters.mbts import MBTS
from methods.base import Run
from methods.model_based_stitching.jumps import TransitionGraph, decide
from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.neighbours import nearest_rows
from methods.model_based_stitching.steps import StepTensors
from methods.model_based_stitching.stitched import StitchedEpisodes
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

TASK, REGIME = "mpe/spread", "exp-m"
EPISODES = (1_000, 2_000, 4_000)
NEIGHBOURS, PASSES = 64, 5  # the method's own
ALL = 40_000  # episodes of MADiTS' data, for which it reports 48 hours (Sec. 5.1)
LIMIT_MINUTES = 10.0
FEW = {f"{name}_updates": 2 for name in ("inverse", "reward")} | {"density_epochs": 1}
"""Of models at their published sizes: what they have learned does not change how long they take."""


def measure(device: str) -> Iterator[Measurement]:
    """Seconds at each size, how both grow with it, and what follows for all episodes."""
    task = make_task(TASK)
    whole = collect(task, resolve(task, REGIME), max(EPISODES), 0, lambda done, total, what: None)
    whole = whole.without_privileged()
    model = _fitted(whole.take(range(min(EPISODES))), device)
    searching, deciding = [], []
    for episodes in EPISODES:
        data = whole.take(range(episodes))
        label, detail = f"stitching/{episodes} episodes", f"{TASK} {REGIME}, {len(data.observations)} rows, {device}"
        reset_peak_memory()
        seconds = _search_and_decide(data, model, device)
        searching.append(seconds[0])
        deciding.append(seconds[1])
        memory = peak_memory_bytes() / 1e6
        yield summarise(f"{label}/neighbours", seconds[:1], unit="s", detail=f"{NEIGHBOURS} a row, {detail}")
        yield summarise(f"{label}/decisions of a pass", seconds[1:], unit="s", detail=f"values at random, {detail}")
        yield summarise(f"{label}: memory", [memory], unit="MB", detail=f"peak of the process, {detail}")
    sizes = EPISODES[-1] / EPISODES[-2]
    for name, taken in (("neighbours", searching), ("decisions", deciding)):
        power = math.log(taken[-1] / taken[-2]) / math.log(sizes)
        detail = f"p of seconds ~ episodes^p, from {EPISODES[-2]} to {EPISODES[-1]}"
        yield summarise(f"stitching/growth of {name}", [power], unit="power", detail=detail)
    times = ALL / EPISODES[-1]
    minutes = (searching[-1] * times**2 + PASSES * deciding[-1] * times) / 60
    yield summarise(
        f"stitching/{ALL} episodes: predicted",
        [minutes],
        unit="min",
        detail=f"from {EPISODES[-1]}: search as the square, {PASSES} passes of decisions in proportion; no training",
        target=LIMIT_MINUTES,
        comparison="at most",
    )


def _fitted(data: OfflineDataset, device: str) -> StitchingModel:
    """Models of the published sizes, and the radius that these data calibrate."""
    augmenter = MBTS.from_params(FEW)
    augmenter.fit(data, Run(seeds=(0,), device=device))
    return StitchingModel.from_arrays(augmenter.state(), data.spec, device)


def _search_and_decide(data: OfflineDataset, model: StitchingModel, device: str) -> list[float]:
    """Wall seconds of the neighbours of all rows, and of all transitions' decisions."""
    rows = model.scaling.rows(data)
    start = time.perf_counter()
    neighbours = nearest_rows(rows, model.numbers["radius"], NEIGHBOURS, device=device)
    found = time.perf_counter()
    episodes = StitchedEpisodes.original(data)
    values = make_generator("timing", "stitching").standard_normal(len(rows), dtype=np.float32)
    decide(
        TransitionGraph.of(episodes, len(rows)), neighbours, model, StepTensors.of(data, model.scaling, device), values
    )
    return [found - start, time.perf_counter() - found]
