"""Training of R models of transitions in one program: rate, clipping, averaged weights, checkpoints, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Run, require
from methods.diffusion.stacked_adam import StackedAdam
from methods.diffusion.training_state import TrainedWeights, TrainingState, trained_once
from methods.journal import Journal, to_array

_COPIED = 5  # the average is a copy during the first fifth of the updates (inferred), as for models of windows
RATES = ("constant", "cosine", "warmup-cosine")


class Objective(Protocol):
    """What is trained.

    Attributes:
        module: R replicas of a network, parameters (R · copies, ...).
        copies: networks of one replica, each with a loss and a norm of its own.
    """

    copies: int

    @property
    def module(self) -> nn.Module:
        """The network."""
        ...

    @property
    def losses(self) -> Callable[..., Tensor]:
        """From what `draw` returned, stacked over the replicas, to (R · copies,)."""
        ...

    def draw(self, generator: np.random.Generator, replica: int) -> tuple[NDArray[Any], ...]:
        """The random numbers and rows of one update of one replica, from its generator alone."""
        ...

    def after_update(self) -> None:
        """What follows each step of the optimiser, e.g. that of a target network."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How an objective is trained."""

    updates: int
    batch_size: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    rate: str = "constant"  # one of RATES
    warmup: float = 0.01  # share of the updates over which `warmup-cosine` rises
    max_norm: float | None = None  # of the gradient of each network
    ema_decay: float | None = None  # None: no average, the last weights are the result
    ema_every: int = 10  # updates

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "ema_every"):
            value = getattr(self, name)
            require(value >= 1, "transitions", f"{name}={value}", "a whole number, 1 or more")
        rate = self.learning_rate
        require(0 < rate < math.inf, "transitions", f"learning_rate={rate}", "a finite number above 0")
        require(self.rate in RATES, "transitions", f"rate={self.rate}", " or ".join(RATES))

    def share(self, done: int) -> float:
        """Of the learning rate, after so many updates."""
        if self.rate == "constant":
            return 1.0
        fall = 0.5 * (1 + math.cos(math.pi * done / self.updates))
        if self.rate == "cosine":
            return fall
        return min(1.0, (done + 1) / max(1.0, self.warmup * self.updates)) * fall


@dataclass(frozen=True, slots=True, eq=False)
class Trained(TrainedWeights):
    """Weights and buffers, leading R · copies."""

    def of_replica(self, replica: int, copies: int) -> dict[str, NDArray[np.float32]]:
        """The weights of one, (copies, ...)."""
        return {name: a[replica * copies : (replica + 1) * copies] for name, a in self.weights.items()}

    def told(self, replica: int) -> dict[str, Any]:
        """For a diagnosis."""
        return {
            "training_loss": _finite(self.curve[-1, 1 + replica]),
            "loss_curve": [[int(point[0]), _finite(point[1 + replica])] for point in self.curve],
        }


def train(
    objective: Objective, plan: TrainingPlan, run: Run, journal: Journal, *, stage: str, before: int = 0
) -> Trained:
    """Trains all replicas, from the checkpoint on where there is one; a finished stage is not trained again.

    Args:
        objective: on the device of the run.
        plan: of the training.
        run: seeds; replica r draws from `run.generator(stage, r)` alone.
        journal: progress and checkpoints.
        stage: a name of its own.
        before: updates of earlier stages, for the progress.

    Raises:
        TimeoutError: after `run.deadline`.
    """
    return trained_once(journal, stage, Trained, lambda: _Training(objective, plan, run, journal, stage, before).run())


class _Training:
    def __init__(
        self, objective: Objective, plan: TrainingPlan, run: Run, journal: Journal, stage: str, before: int
    ) -> None:
        self._objective, self._plan, self._device, self._replicas = objective, plan, run.device, len(run.seeds)
        self._generators = [run.generator(stage, r) for r in range(self._replicas)]
        clip = None if plan.max_norm is None else (self._replicas * objective.copies, plan.max_norm)
        self._adam = StackedAdam(
            objective.module, plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay, clip=clip
        )
        self._state = TrainingState(
            stage,
            plan.updates,
            self._adam,
            averaged=plan.ema_decay is not None,
            generators=self._generators,
            device=run.device,
            journal=journal,
            before=before,
        )

    def run(self) -> Trained:
        state = self._state
        for _ in state.chunks():
            self._update()
        named = {**dict(self._objective.module.named_buffers()), **self._adam.named, **state.average}
        return Trained({name: to_array(tensor) for name, tensor in named.items()}, state.curve, state.seconds)

    def _update(self) -> None:
        plan, state = self._plan, self._state
        drawn = [self._objective.draw(generator, r) for r, generator in enumerate(self._generators)]
        batch = [torch.from_numpy(np.stack(column)).to(self._device) for column in zip(*drawn, strict=True)]
        losses = self._objective.losses(*batch)  # (R · copies,)
        self._adam.step(losses, plan.learning_rate * plan.share(state.done))
        self._objective.after_update()
        state.done += 1
        if plan.ema_decay is not None and state.done % plan.ema_every == 0:
            state.step_average(1.0 if state.done < plan.updates // _COPIED else 1 - plan.ema_decay)
        state.note(losses.detach().view(self._replicas, -1).mean(dim=1))


def load_weights(module: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Puts stored weights and buffers into a module, which needs no gradient afterwards."""
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    module.requires_grad_(False)


def rows_of(
    taught: Sequence[NDArray[np.int64]], generator: np.random.Generator, replica: int, count: int
) -> NDArray[np.int64]:
    """(count,) steps that a replica is taught by, with replacement."""
    return taught[replica][generator.integers(len(taught[replica]), size=count)]


def _finite(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None
