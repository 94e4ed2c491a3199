"""Where a training of R networks in one program stands: optimiser, averaged weights, loss curve, and its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators, to_array

_CURVE = 50  # points of the loss curve


@dataclass(frozen=True, slots=True, eq=False)
class TrainedWeights:
    """Weights named as in the module with a leading R; curve (points, 1 + R): updates, mean losses since the last."""

    weights: dict[str, NDArray[np.float32]]
    curve: NDArray[np.float64]
    seconds: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        named = {f"weights/{name}": array for name, array in self.weights.items()}
        return {**named, "curve": self.curve, "seconds": np.array(self.seconds)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` returned."""
        weights = {name.removeprefix("weights/"): a for name, a in arrays.items() if name.startswith("weights/")}
        return cls(weights, np.array(arrays["curve"]), float(arrays["seconds"]))


TrainedT = TypeVar("TrainedT", bound=TrainedWeights)


def trained_once(journal: Journal, stage: str, kind: type[TrainedT], run: Callable[[], TrainedT]) -> TrainedT:
    """What `run` gives, or gave in a process that was killed after it had finished."""
    stored = journal.result(stage)
    if stored is not None:
        return kind.from_arrays(stored)
    trained = run()
    journal.finish(stage, trained.arrays())
    return trained


class TrainingState:
    """Counts updates, averages weights, notes losses, reports, and is stored and restored whole.

    Args:
        stage: its name, for progress and checkpoints.
        updates: of the whole training.
        adam: the optimiser of R networks, or more.
        averaged: whether there is an average of the weights.
        generators: R, what the replicas draw from.
        device: of the losses.
        journal: progress and checkpoints.
        before: updates of earlier stages, for the progress.

    Attributes:
        done: updates so far.
        average: of the weights, by name; empty where there is none.
        curve: (points, 1 + R).
        seconds: what all processes of the training took.
    """

    def __init__(
        self,
        stage: str,
        updates: int,
        adam: StackedAdam,
        *,
        averaged: bool,
        generators: Sequence[np.random.Generator],
        device: str,
        journal: Journal,
        before: int = 0,
    ) -> None:
        self._stage, self._updates, self._adam, self._before = stage, updates, adam, before
        self._generators, self._journal = generators, journal
        self.average = {name: p.detach().clone() for name, p in (adam.named if averaged else {}).items()}
        self.curve = np.zeros((0, 1 + len(generators)))
        self.done, self.seconds = 0, 0.0
        self._losses, self._since = torch.zeros(len(generators), device=device), 0

    def chunks(self) -> Iterator[None]:
        """Once before each piece of the training, from the checkpoint on where there is one; saves after it if due."""
        saved = self._journal.resumed(self._stage)
        if saved is not None:
            self.load(saved)
        began = time.monotonic() - self.seconds
        while self.done < self._updates:
            yield
            self.seconds = time.monotonic() - began
            if self.done < self._updates and self._journal.due():
                self._journal.save(self._stage, self.arrays())

    def step_average(self, share: float) -> None:
        """Moves the average: v ← (1 − share) v + share · w."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self._adam.named.values()), share)

    def note(self, losses: Tensor) -> None:
        """Adds losses (R,) of the update that was just counted to the curve, and reports."""
        self._losses += losses
        self._since += 1
        if self.done == self._updates or self.done * _CURVE // self._updates > len(self.curve):
            mean = self._losses.double().cpu().numpy() / self._since
            self.curve = np.concatenate([self.curve, [[self.done, *mean]]])
            self._losses.zero_()
            self._since = 0
        if self.done == self._updates or self._journal.wants_report():
            latest = float(self.curve[-1, 1:].mean()) if len(self.curve) else float(losses.mean())
            self._journal.report(self._before + self.done, f"{self._stage}, loss {latest:.4f}", now=True)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `load`."""
        return {
            **self._adam.arrays(),
            **{f"average/{name}": to_array(tensor) for name, tensor in self.average.items()},
            "curve": self.curve,
            "losses": to_array(self._losses),
            "counts": np.array([self.done, self._since], np.int64),
            "seconds": np.array(self.seconds),
            "generators": pack_generators(self._generators),
        }

    def load(self, saved: Arrays) -> None:
        """Takes what `arrays` returned."""
        self._adam.load(saved)
        for name, tensor in self.average.items():
            tensor.copy_(torch.from_numpy(np.array(saved[f"average/{name}"])))
        self.curve = np.array(saved["curve"])
        self._losses.copy_(torch.from_numpy(np.array(saved["losses"])))
        self.done, self._since = (int(count) for count in saved["counts"])
        self.seconds = float(saved["seconds"])
        restore_generators(self._generators, saved["generators"])
