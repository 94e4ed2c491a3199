"""What trainings of R denoisers in one program share: Adam, averaged weights, loss curve, progress and checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.diffusion.stacked_adam import StackedAdam
from methods.diffusion.training_state import TrainedWeights, TrainingState, trained_once
from methods.journal import Journal, to_array

STAGE = "denoiser"

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
class TrainedDenoiser(TrainedWeights):
    """Weights to sample with."""

    @property
    def training_loss(self) -> NDArray[np.float64]:
        """(R,) the mean over the last point of the curve."""
        last: NDArray[np.float64] = self.curve[-1, 1:]
        return last


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
        self._state = TrainingState(
            STAGE,
            settings.updates,
            self._adam,
            averaged=True,
            generators=generators,
            device=device,
            journal=journal,
        )
        self._journal = journal

    @abstractmethod
    def draw(self) -> ChunkT:
        """The random numbers of the next `chunk` updates, always as many: a longer training begins as a shorter one."""

    @abstractmethod
    def losses(self, chunk: ChunkT, index: int) -> Tensor:
        """(R,) of update `index` of a chunk."""

    def run(self) -> TrainedDenoiser:
        """All updates, from the checkpoint on where there is one."""
        state, updates = self._state, self._plan.updates
        for _ in state.chunks():
            chunk = self.draw()
            for i in range(min(self.chunk, updates - state.done)):
                losses = self.losses(chunk, i)
                self._adam.step(losses)
                state.done += 1
                self._step_average()
                state.note(losses.detach())
        weights = state.average if self._plan.use_ema else self._adam.named
        return TrainedDenoiser({name: to_array(tensor) for name, tensor in weights.items()}, state.curve, state.seconds)

    def run_once(self) -> TrainedDenoiser:
        """`run`, or what it gave in a process that was killed after it had finished."""
        return trained_once(self._journal, STAGE, TrainedDenoiser, self.run)

    def _step_average(self) -> None:
        """A copy until `ema_start`, then v ← decay · v + (1 − decay) · w, every `ema_every` updates."""
        plan, done = self._plan, self._state.done
        last = done == plan.updates and done < plan.ema_start
        if done % plan.ema_every and not last:
            return
        self._state.step_average(1.0 if done < plan.ema_start else 1 - plan.ema_decay)
