"""Training of R models of transitions in one program: rate, clipping, averaged weights, checkpoints, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays, Run, require
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators, to_array

_CURVE = 50  # points of the loss curve
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
class Trained:
    """Weights and buffers named as in the module, leading R · copies; curve (points, 1 + R): updates, mean losses."""

    weights: dict[str, NDArray[np.float32]]
    curve: NDArray[np.float64]
    seconds: float

    def of_replica(self, replica: int, copies: int) -> dict[str, NDArray[np.float32]]:
        """The weights of one, (copies, ...)."""
        return {name: a[replica * copies : (replica + 1) * copies] for name, a in self.weights.items()}

    def told(self, replica: int) -> dict[str, Any]:
        """For a diagnosis."""
        return {
            "training_loss": _finite(self.curve[-1, 1 + replica]),
            "loss_curve": [[int(point[0]), _finite(point[1 + replica])] for point in self.curve],
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        named = {f"weights/{name}": array for name, array in self.weights.items()}
        return {**named, "curve": self.curve, "seconds": np.array(self.seconds)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` returned."""
        weights = {name.removeprefix("weights/"): a for name, a in arrays.items() if name.startswith("weights/")}
        return cls(weights, np.array(arrays["curve"]), float(arrays["seconds"]))


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
    stored = journal.result(stage)
    if stored is not None:
        return Trained.from_arrays(stored)
    trained = _Training(objective, plan, run, journal, stage, before).run()
    journal.finish(stage, trained.arrays())
    return trained


class _Training:
    def __init__(
        self, objective: Objective, plan: TrainingPlan, run: Run, journal: Journal, stage: str, before: int
    ) -> None:
        self._objective, self._plan, self._journal, self._stage = objective, plan, journal, stage
        self._device, self._before, self._replicas = run.device, before, len(run.seeds)
        self._generators = [run.generator(stage, r) for r in range(self._replicas)]
        clip = None if plan.max_norm is None else (self._replicas * objective.copies, plan.max_norm)
        self._adam = StackedAdam(
            objective.module, plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay, clip=clip
        )
        averaged = {} if plan.ema_decay is None else self._adam.named
        self._average = {name: p.detach().clone() for name, p in averaged.items()}
        self._curve = np.zeros((0, 1 + self._replicas))
        self._losses = torch.zeros(self._replicas, device=run.device)
        self._done, self._since, self._seconds = 0, 0, 0.0

    def run(self) -> Trained:
        saved = self._journal.resumed(self._stage)
        if saved is not None:
            self._load(saved)
        plan, began = self._plan, time.monotonic() - self._seconds
        while self._done < plan.updates:
            self._update()
            self._seconds = time.monotonic() - began
            if self._done < plan.updates and self._journal.due():
                self._journal.save(self._stage, self._arrays())
        named = {**dict(self._objective.module.named_buffers()), **self._adam.named, **self._average}
        return Trained({name: to_array(tensor) for name, tensor in named.items()}, self._curve, self._seconds)

    def _update(self) -> None:
        plan = self._plan
        drawn = [self._objective.draw(generator, r) for r, generator in enumerate(self._generators)]
        batch = [torch.from_numpy(np.stack(column)).to(self._device) for column in zip(*drawn, strict=True)]
        losses = self._objective.losses(*batch)  # (R · copies,)
        self._adam.step(losses, plan.learning_rate * plan.share(self._done))
        self._objective.after_update()
        self._done += 1
        if plan.ema_decay is not None and self._done % plan.ema_every == 0:
            share = 1.0 if self._done < plan.updates // _COPIED else 1 - plan.ema_decay
            with torch.no_grad():
                torch._foreach_lerp_(list(self._average.values()), list(self._adam.named.values()), share)
        self._note(losses.detach().view(self._replicas, -1).mean(dim=1))

    def _note(self, losses: Tensor) -> None:
        """Adds to the loss curve and reports."""
        updates = self._plan.updates
        self._losses += losses
        self._since += 1
        if self._done == updates or self._done * _CURVE // updates > len(self._curve):
            mean = self._losses.double().cpu().numpy() / self._since
            self._curve = np.concatenate([self._curve, [[self._done, *mean]]])
            self._losses.zero_()
            self._since = 0
        if self._done == updates or self._journal.wants_report():
            latest = float(self._curve[-1, 1:].mean()) if len(self._curve) else float(losses.mean())
            self._journal.report(self._before + self._done, f"{self._stage}, loss {latest:.4f}", now=True)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        average = {f"average/{name}": to_array(tensor) for name, tensor in self._average.items()}
        return {
            **self._adam.arrays(),
            **average,
            "curve": self._curve,
            "losses": to_array(self._losses),
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
