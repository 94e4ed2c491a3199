"""What trainings of R denoisers in one program share: Adam, averaged weights, loss curve, progress and checkpoints."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators

STAGE = "denoiser"
_CURVE = 50  # points of the loss curve

ChunkT = TypeVar("ChunkT")


class TrainingSettings(Protocol):
    """How long and how fast, and how the average of the weights is taken; see `SegmentSettings`."""

    @property
    def updates(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def ema_decay(self) -> float: ...
    @property
    def ema_every(self) -> int: ...
    @property
    def ema_start(self) -> int: ...
    @property
    def use_ema(self) -> bool: ...


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDenoiser:
    """Weights to sample with, named as in the module with a leading R; curve (points, 1 + R): updates, mean losses."""

    weights: dict[str, NDArray[np.float32]]
    curve: NDArray[np.float64]
    seconds: float

    @property
    def training_loss(self) -> NDArray[np.float64]:
        """(R,) the mean over the last point of the curve."""
        last: NDArray[np.float64] = self.curve[-1, 1:]
        return last

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        named = {f"weights/{name}": array for name, array in self.weights.items()}
        return {**named, "curve": self.curve, "seconds": np.array(self.seconds)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` returned."""
        weights = {name.removeprefix("weights/"): a for name, a in arrays.items() if name.startswith("weights/")}
        return cls(weights, arrays["curve"], float(arrays["seconds"]))


class StackedTraining(ABC, Generic[ChunkT]):
    """Adam on the losses (R,) of a subclass, and an exponential average of the weights.

    Args:
        settings: updates, rate, average.
        module: parameters (R, ...) on the device.
        generators: R, what replica r draws from.
        device: of the module.
        journal: progress and checkpoints.
    """

    chunk: int
    """Updates whose random numbers are drawn at once."""

    def __init__(
        self,
        settings: TrainingSettings,
        module: nn.Module,
        generators: Sequence[np.random.Generator],
        device: str,
        journal: Journal,
    ) -> None:
        self._plan, self._generators = settings, generators
        self._adam = StackedAdam(module, settings.learning_rate)
        self._average = {name: p.detach().clone() for name, p in self._adam.named.items()}
        self._journal, self._done, self._seconds = journal, 0, 0.0
        self._curve = np.zeros((0, 1 + len(generators)))
        self._losses = torch.zeros(len(generators), device=device)
        self._since = 0

    @abstractmethod
    def draw(self) -> ChunkT:
        """The random numbers of the next `chunk` updates, always as many: a longer training begins as a shorter one."""

    @abstractmethod
    def losses(self, chunk: ChunkT, index: int) -> Tensor:
        """(R,) of update `index` of a chunk."""

    def run(self) -> TrainedDenoiser:
        """All updates, from the checkpoint on where there is one."""
        saved = self._journal.resumed(STAGE)
        if saved is not None:
            self._load(saved)
        updates, began = self._plan.updates, time.monotonic() - self._seconds
        while self._done < updates:
            chunk = self.draw()
            for i in range(min(self.chunk, updates - self._done)):
                losses = self.losses(chunk, i)
                self._adam.step(losses)
                self._done += 1
                self._step_average()
                self._note(losses.detach())
            self._seconds = time.monotonic() - began
            if self._done < updates and self._journal.due():
                self._journal.save(STAGE, self._arrays())
        weights = self._average if self._plan.use_ema else self._adam.named
        return TrainedDenoiser(
            {name: tensor.detach().cpu().numpy().copy() for name, tensor in weights.items()},
            self._curve,
            self._seconds,
        )

    def run_once(self) -> TrainedDenoiser:
        """`run`, or what it gave in a process that was killed after it had finished."""
        stored = self._journal.result(STAGE)
        if stored is not None:
            return TrainedDenoiser.from_arrays(stored)
        trained = self.run()
        self._journal.finish(STAGE, trained.arrays())
        return trained

    def _step_average(self) -> None:
        """A copy until `ema_start`, then v ← decay · v + (1 − decay) · w, every `ema_every` updates."""
        plan = self._plan
        last = self._done == plan.updates and self._done < plan.ema_start
        if self._done % plan.ema_every and not last:
            return
        share = 1.0 if self._done < plan.ema_start else 1 - plan.ema_decay
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.values()), list(self._adam.named.values()), share)

    def _note(self, losses: Tensor) -> None:
        """Adds to the loss curve and reports."""
        plan = self._plan
        self._losses += losses
        self._since += 1
        if self._done == plan.updates or self._done * _CURVE // plan.updates > len(self._curve):
            mean = self._losses.double().cpu().numpy() / self._since
            self._curve = np.concatenate([self._curve, [[self._done, *mean]]])
            self._losses.zero_()
            self._since = 0
        if self._done == plan.updates or self._journal.wants_report():
            latest = float(self._curve[-1, 1:].mean()) if len(self._curve) else float(losses.mean())
            self._journal.report(self._done, f"denoiser, loss {latest:.4f}", now=True)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        average = {f"average/{name}": tensor.cpu().numpy().copy() for name, tensor in self._average.items()}
        return {
            **self._adam.arrays(),
            **average,
            "curve": self._curve,
            "losses": self._losses.cpu().numpy().copy(),
            "counts": np.array([self._done, self._since], np.int64),
            "seconds": np.array(self._seconds),
            "generators": pack_generators(self._generators),
        }

    def _load(self, saved: Arrays) -> None:
        self._adam.load(saved)
        for name, tensor in self._average.items():
            tensor.copy_(torch.from_numpy(np.array(saved[f"average/{name}"])))
        self._curve = np.array(saved["curve"])
        self._losses.copy_(torch.from_numpy(np.array(saved["losses"])))
        self._done, self._since = (int(count) for count in saved["counts"])
        self._seconds = float(saved["seconds"])
        restore_generators(self._generators, saved["generators"])
