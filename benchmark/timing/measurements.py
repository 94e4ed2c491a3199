"""What a measurement is, how repetitions are taken, and the table of all of them."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.common.errors import UnknownNameError

Comparison = Literal["at least", "at most"]


class Measurement(BaseModel):
    """One number, as it is printed and stored, with what it is to be compared with.

    Attributes:
        name: of the quantity, e.g. `engine/mpe/spread/speed-up`.
        value: median over the repetitions, in `unit`.
        low, high: smallest and largest repetition.
        repetitions: how many there were.
        target, comparison: what the project asks for, or None where a number only informs.
        detail: what exactly was run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    value: float
    unit: str
    low: float
    high: float
    repetitions: int
    detail: str
    target: float | None = None
    comparison: Comparison = "at least"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.comparison == "at least" else self.value <= self.target


MeasurementFunction = Callable[[str], Iterator[Measurement]]

MEASUREMENTS: dict[str, tuple[str, str]] = {
    "engine": ("benchmark.timing.engines:measure", "the batched MPE core against mpe2's loop"),
    "smax": ("benchmark.timing.battles:measure", "battles with a policy in the loop against JaxMARL's loop"),
    "mujoco": ("benchmark.timing.robots:measure", "robots on all cores against a loop"),
    "evaluation": ("benchmark.timing.evaluations:measure", "five seeds' policies in one batch against one by one"),
    "data": ("benchmark.timing.data:measure", "opening a dataset of a million steps, and sampling from it"),
    "learner": ("benchmark.timing.learners:measure", "five seeds together against five one after another"),
    "diffusion": ("benchmark.timing.diffusion:measure", "the temporal U-Net against MADiff's in plain modules"),
    "transition": ("benchmark.timing.transitions:measure", "models of transitions against plain modules and SynthER's"),
    "stitching": ("benchmark.timing.stitching:measure", "neighbours and jumps of mbts by the number of episodes"),
    "attention": (
        "benchmark.timing.attention:measure",
        "sparse attention over 3, 12 and 25 agents against plain forms",
    ),
    "startup": ("benchmark.timing.startup:measure", "how soon the command line answers"),
}


def load_measurement(name: str) -> MeasurementFunction:
    """The function of a group; it takes a device and yields measurements.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in MEASUREMENTS:
        raise UnknownNameError("timing group", name, MEASUREMENTS)
    module, _, attribute = MEASUREMENTS[name][0].partition(":")
    function: MeasurementFunction = getattr(importlib.import_module(module), attribute)
    return function


def seconds_of(action: Callable[[], object], *, repetitions: int, warm_up: int = 1) -> list[float]:
    """Wall seconds of each repetition of `action`, after some that do not count."""
    for _ in range(warm_up):
        action()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return taken


def interleaved_seconds(
    first: Callable[[], object], second: Callable[[], object], *, repetitions: int, device: str = "cpu"
) -> tuple[list[float], list[float]]:
    """Wall seconds of two actions taken in turn, so that a slow spell of the machine hits both.

    An accelerator is idle when an action begins, and again when it counts as done.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    both = [_settled(action, device) for action in (first, second)]
    for action in both:
        action()
    for _ in range(repetitions):
        for action, seconds in zip(both, taken, strict=True):
            seconds += seconds_of(action, repetitions=1, warm_up=0)
    return taken


def _settled(action: Callable[[], object], device: str) -> Callable[[], object]:
    if device == "cpu":
        return action

    def run() -> None:
        import torch  # costs seconds, which a message of `bench timing --help` need not wait for

        action()
        torch.cuda.synchronize(device)

    return run


class Side(NamedTuple):
    """One of two ways of doing the same, e.g. batched.

    Attributes:
        label: behind the name of the comparison.
        action: what is timed.
        amount: how many units of work, e.g. steps, one call does.
        detail: what exactly it runs.
        target: units a second, or None.
    """

    label: str
    action: Callable[[], object]
    amount: int
    detail: str
    target: float | None = None


def compared(
    name: str, first: Side, second: Side, *, unit: str, target: float, repetitions: int = 5
) -> Iterator[Measurement]:
    """Units a second of two sides, taken in turn, and the ratio of the first to the second."""
    taken = interleaved_seconds(first.action, second.action, repetitions=repetitions)
    rates = []
    for side, seconds in zip((first, second), taken, strict=True):
        rates.append([side.amount / s for s in seconds])
        yield summarise(f"{name}/{side.label}", rates[-1], unit=f"{unit}/s", detail=side.detail, target=side.target)
    detail = f"{first.label} over {second.label}"
    yield summarise(f"{name}/speed-up", list(np.divide(rates[0], rates[1])), unit="x", detail=detail, target=target)


def summarise(
    name: str,
    values: list[float],
    *,
    unit: str,
    detail: str,
    target: float | None = None,
    comparison: Comparison = "at least",
) -> Measurement:
    """The median of the repetitions, with their range."""
    return Measurement(
        name=name,
        value=float(np.median(values)),
        unit=unit,
        low=min(values),
        high=max(values),
        repetitions=len(values),
        detail=detail,
        target=target,
        comparison=comparison,
    )
