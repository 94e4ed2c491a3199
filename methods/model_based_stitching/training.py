"""Training of stacked networks on single transitions: one loop for density, inverse, reward and value."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators, to_array

_CHUNK = 16  # updates whose random numbers are drawn at once
_RECENT = 0.05  # share of the updates, at the end, over which the training loss is the mean


class Watcher(Protocol):
    """What follows a training: a target network, an early stop. Its state is part of the checkpoint."""

    def after(self, done: int) -> bool:
        """Called after every update; True ends the training."""

    def arrays(self) -> dict[str, NDArray[Any]]: ...

    def load(self, arrays: Arrays) -> None: ...


class Descent(Protocol):
    """How one update is made from a batch; `OneAdam` unless a stage says otherwise. Its state is in the checkpoint."""

    def step(self, index: Tensor, noise: Tensor | None) -> Tensor:
        """One update from steps (G, B) and standard normal noise (G, B, Z), or None; the losses (G,)."""

    def arrays(self) -> dict[str, NDArray[Any]]: ...

    def load(self, arrays: Arrays) -> None: ...


class OneAdam:
    """A step of Adam down the losses.

    Args:
        module: G stacked networks.
        losses: from steps (G, B) and standard normal noise (G, B, Z), or None, to the loss (G,) of each network.
        learning_rate: of Adam.
    """

    def __init__(
        self, module: nn.Module, losses: Callable[[Tensor, Tensor | None], Tensor], learning_rate: float
    ) -> None:
        self._adam, self._losses = StackedAdam(module, learning_rate), losses
        self.arrays, self.load = self._adam.arrays, self._adam.load

    def step(self, index: Tensor, noise: Tensor | None) -> Tensor:
        """See `Descent`."""
        losses = self._losses(index, noise)
        self._adam.step(losses)
        return losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Networks to train.

    Attributes:
        name: for progress and checkpoints.
        module: G stacked networks, G = R · copies.
        descent: what makes an update.
        generators: R, what the networks of a replica draw from.
        steps: R, what each replica is trained on.
        copies: networks a replica, each with its own batches.
        noise: Z.
        updates, batch_size: of the training.
        watcher: what follows it.
    """

    name: str
    module: nn.Module
    descent: Descent
    generators: Sequence[np.random.Generator]
    steps: Sequence[NDArray[np.int64]]
    copies: int = 1
    noise: int = 0
    updates: int
    batch_size: int
    watcher: Watcher | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Weights (G, ...) by name, what the watcher kept, the recent loss (G,), updates made and time taken."""

    weights: dict[str, NDArray[np.float32]]
    watched: dict[str, NDArray[Any]]
    loss: NDArray[np.float64]
    updates: int
    seconds: float


def train(stage: Stage, journal: Journal, before: int, device: str) -> Trained:
    """All updates of a stage, from the checkpoint on where there is one; a finished one is taken from the journal.

    Args:
        stage: what to train.
        journal: progress and checkpoints.
        before: steps of the stages before it, for the progress.
        device: where the module is.
    """
    stored = journal.result(stage.name)
    if stored is not None:
        parts = (_under("weights/", stored), _under("watcher/", stored))
        return Trained(*parts, stored["loss"], int(stored["updates"]), float(stored["seconds"]))
    trained = _Training(stage, journal, before, device).run()
    named = {f"weights/{name}": array for name, array in trained.weights.items()}
    named |= {f"watcher/{name}": array for name, array in trained.watched.items()}
    numbers = {"loss": trained.loss, "updates": np.array(trained.updates), "seconds": np.array(trained.seconds)}
    journal.finish(stage.name, {**named, **numbers})
    return trained


class _Training:
    def __init__(self, stage: Stage, journal: Journal, before: int, device: str) -> None:
        self._stage, self._journal, self._before, self._device = stage, journal, before, device
        self._done, self._counted, self._stopped, self._seconds = 0, 0, False, 0.0
        self._sum = torch.zeros(len(stage.generators) * stage.copies, device=device)

    def run(self) -> Trained:
        stage = self._stage
        saved = self._journal.resumed(stage.name)
        if saved is not None:
            self._load(saved)
        began = time.monotonic() - self._seconds
        while self._done < stage.updates and not self._stopped:
            self._chunk()
            self._seconds = time.monotonic() - began
            if self._done < stage.updates and not self._stopped and self._journal.due():
                self._journal.save(stage.name, self._arrays())
        weights = {name: to_array(p) for name, p in stage.module.named_parameters()}
        loss = (self._sum.double() / max(1, self._counted)).cpu().numpy()
        return Trained(weights, self._watched(), loss, self._done, self._seconds)

    def _chunk(self) -> None:
        """Some updates, every replica's from its generator alone, which always draws as many numbers."""
        stage = self._stage
        lead = (_CHUNK, stage.copies, stage.batch_size)
        pairs = list(zip(stage.generators, stage.steps, strict=True))
        drawn = np.concatenate([steps[generator.integers(len(steps), size=lead)] for generator, steps in pairs], axis=1)
        steps = torch.from_numpy(drawn).to(self._device)  # (C, G, B)
        noise: Tensor | None = None
        if stage.noise:
            size = (*lead, stage.noise)
            normal = np.concatenate([g.standard_normal(size, dtype=np.float32) for g in stage.generators], axis=1)
            noise = torch.from_numpy(normal).to(self._device)  # (C, G, B, Z)
        for i in range(min(_CHUNK, stage.updates - self._done)):
            losses = stage.descent.step(steps[i], None if noise is None else noise[i])
            self._done += 1
            if self._done > stage.updates * (1 - _RECENT):
                self._sum += losses.detach()
                self._counted += 1
            self._journal.report(self._before + self._done, stage.name)
            if stage.watcher is not None and stage.watcher.after(self._done):
                self._stopped = True
                return

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            **self._stage.descent.arrays(),
            **{f"watcher/{name}": array for name, array in self._watched().items()},
            "sum": to_array(self._sum),
            "counts": np.array([self._done, self._counted], np.int64),
            "seconds": np.array(self._seconds),
            "generators": pack_generators(self._stage.generators),
        }

    def _watched(self) -> dict[str, NDArray[Any]]:
        return {} if self._stage.watcher is None else self._stage.watcher.arrays()

    def _load(self, saved: Arrays) -> None:
        self._stage.descent.load(saved)
        if self._stage.watcher is not None:
            self._stage.watcher.load(_under("watcher/", saved))
        self._sum.copy_(torch.from_numpy(np.array(saved["sum"])))
        self._done, self._counted = (int(count) for count in saved["counts"])
        self._seconds = float(saved["seconds"])
        restore_generators(self._stage.generators, saved["generators"])


def _under(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class EarlyStop:
    """Keeps each network at its best held-out loss, and stops once none has been better for some time.

    A network whose patience is over is frozen at its best, whatever the others do: one beside others ends as one alone.

    Args:
        module: G stacked networks.
        judge: the held-out losses (G,).
        every: updates between two judgements.
        patience: judgements without improvement that are one too many.
        last: the last update, which is judged in any case.
    """

    def __init__(self, module: nn.Module, judge: Callable[[], Tensor], every: int, patience: int, last: int) -> None:
        self._named, self._judge = dict(module.named_parameters()), judge
        self._every, self._patience, self._last = every, patience, last
        self.best = {name: p.detach().clone() for name, p in self._named.items()}
        some = next(iter(self._named.values()))
        self.loss = torch.full((len(some),), torch.inf, device=some.device)
        self.waited = torch.zeros(len(some), dtype=torch.int64, device=some.device)

    @torch.no_grad()
    def after(self, done: int) -> bool:
        """Judges now and then; whether all have stopped."""
        if done % self._every and done != self._last:
            return False
        loss = self._judge()
        better = (loss < self.loss) & (self.waited < self._patience)
        self.loss = torch.where(better, loss, self.loss)
        self.waited = torch.where(better, 0, self.waited + 1)
        for name, p in self._named.items():
            self.best[name] = torch.where(better.view(-1, *[1] * (p.dim() - 1)), p.detach(), self.best[name])
        return bool((self.waited >= self._patience).all())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Best weights, their losses, and how long ago."""
        kept = {f"best/{name}": to_array(p) for name, p in self.best.items()}
        return {**kept, "loss": to_array(self.loss), "waited": to_array(self.waited)}

    def load(self, arrays: Arrays) -> None:
        """Takes what `arrays` returned."""
        device = self.loss.device
        self.best = {name: torch.from_numpy(np.array(arrays[f"best/{name}"])).to(device) for name in self.best}
        self.loss = torch.from_numpy(np.array(arrays["loss"])).to(device)
        self.waited = torch.from_numpy(np.array(arrays["waited"])).to(device)
