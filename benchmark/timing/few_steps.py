"""Samplers of few steps against all 200 ancestral ones: how much faster, and how different what they draw."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmark.timing.measurements import Measurement, summarise
from methods.base import Run
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.known import Known
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from tasks.common.seeding import make_generator
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

TASK, REGIME, EPISODES = "mpe/spread", "exp-m", 400
WIDTH, UPDATES, STEPS, SEGMENTS = 32, 600, 200, 96
SAMPLERS = (("ddpm", 8), ("ddim", 10), ("ddim", 15), ("ddim", 25), ("dpmpp_2m", 10), ("dpmpp_2m", 20))
TARGET, ITS_MOST = 8.0, 25
"""Times the speed of all steps, asked of samplers of at most so many: 200 / 25 is the target itself."""


def measure_few_steps(device: str) -> Iterator[Measurement]:
    """The speed-up of each sampler at the same batch, and the distance of its rows from the ancestral sampler's."""
    model, first = _fitted(device)
    reference, seconds = _drawn(model, first, "ddpm", None, "reference")
    again, _ = _drawn(model, first, "ddpm", None, "again")
    detail = f"two-sample Kolmogorov-Smirnov of each feature, {len(reference)} rows: median and range over features"
    floor = feature_distances(reference, again)
    yield summarise(f"diffusion/few steps/ddpm {STEPS} against itself: distance", floor, unit="KS", detail=detail)
    for name, steps in SAMPLERS:
        drawn, taken = _drawn(model, first, name, steps, "few")
        label = f"diffusion/few steps/{name} {steps}"
        yield summarise(
            f"{label}: speed-up",
            [seconds / taken],
            unit="x",
            detail=f"over {STEPS} ancestral steps, {SEGMENTS} segments of width {WIDTH}, guided, {device}",
            target=TARGET if steps < ITS_MOST else None,
        )
        yield summarise(f"{label}: distance", feature_distances(reference, drawn), unit="KS", detail=detail)


def _fitted(device: str) -> tuple[SegmentModel, NDArray[np.float32]]:
    """A small model trained for a short while on real data, and first rows (SEGMENTS, N, D) of real episodes."""
    task = make_task(TASK)
    data = collect(task, resolve(task, REGIME), EPISODES, 0, lambda done, total, what: None)
    settings = SegmentSettings(
        diffusion_steps=STEPS,
        width=WIDTH,
        updates=UPDATES,
        prediction="velocity",  # these as in `quick`
        first_skip=True,
        learning_rate=2e-3,
        ema_start=UPDATES // 5,
        heads=("inverse",),
        head_updates=1,
    )
    model = fit_segment_models(settings, data, Run(seeds=(0,), device=device))[0]
    return model, data.observations[data.row_starts[:SEGMENTS]]


def _drawn(
    model: SegmentModel, first: NDArray[np.float32], name: str, steps: int | None, stream: str
) -> tuple[NDArray[np.float32], float]:
    """Generated rows (SEGMENTS · (H − 1) · N, D) in the model's units, and the seconds they took."""
    known = Known.first_row(model.encode(first), model.settings.horizon)
    noise = numpy_noise(make_generator("timing", "few steps", stream), model.device)
    sampler = make_sampler(name, CosineSchedule(STEPS), steps)
    start = time.perf_counter()
    drawn = model.sample(known, target=1.0, noise=noise, sampler=sampler).cpu()  # waits for the device
    return drawn[:, 1:].flatten(0, 2).numpy(), time.perf_counter() - start


def feature_distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[float]:
    """The two-sample statistic of every feature."""
    return [float(ks_2samp(a, b).statistic) for a, b in zip(first.T, second.T, strict=True)]
