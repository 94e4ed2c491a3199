"""Training of the auxiliary networks of R replicas, apart from the denoiser.

The papers train them in one loss with it: MADiff ½ (L_diff + L_inv), MADiTS L_diff + 10 L_dyn + 0.01 L_rew (App. E),
CODI with weights 1 (Eq. 9), MASTARS' repository the mean of five. No parameter is shared between the networks, and Adam
is invariant to the scale of a loss, so the weights change nothing (but for Adam's ε) and each network can be trained on
its own: on many single transitions an update in place of a few windows, which is what these small networks need.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from methods.base import Arrays, Run
from methods.data.window_tensors import DeviceWindows, Transitions
from methods.diffusion.heads import HeadNetworks
from methods.diffusion.settings import SegmentSettings
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators
from methods.networks.heads import masked_log_softmax

STAGE = "heads"
_CHUNK_UPDATES = 16  # updates whose random numbers are drawn at once
_JUDGED = 2_048  # held-out transitions, drawn with replacement
_RARE = 100.0  # largest weight of a true end (inferred)
_RISE = 0.05  # share of the updates over which the learning rate rises
_RECENT = 0.05  # share of the updates, at the end, over which the training loss is the mean


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHeads:
    """Weights named as in the module with a leading R, and losses (R,) of every head by name."""

    weights: dict[str, NDArray[np.float32]]
    training: dict[str, NDArray[np.float64]]
    held_out: dict[str, NDArray[np.float64]]
    seconds: float


def head_losses(heads: HeadNetworks, batch: Transitions, end_weight: float) -> dict[str, Tensor]:
    """The loss (R,) of every head on transitions (R, B, ...).

    Squared errors in normalised or standardised units: means over agents and dimensions. Discrete actions: cross
    entropy over available ones. Flags: binary cross entropy, a true end counting `end_weight` times.
    """
    settings = heads.settings

    def mse(predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).square().flatten(1).mean(dim=1)

    def standardised(name: str, target: Tensor) -> Tensor:
        scale = heads.scales[name]  # (2, ...)
        return (target - scale[0]) / scale[1]

    def bce(logits: Tensor, target: Tensor, weight: float = 1.0) -> Tensor:
        positive = torch.full((), weight, device=logits.device)
        entries = binary_cross_entropy_with_logits(logits, target.float(), reduction="none", pos_weight=positive)
        return entries.flatten(1).mean(dim=1)

    def inverse() -> Tensor:
        predicted = heads.inverse(batch.x, batch.x_next)
        if batch.available is None:
            return mse(predicted, batch.actions)
        log_p = masked_log_softmax(predicted, batch.available)
        return -(log_p * batch.actions).sum(dim=-1).flatten(1).mean(dim=1)

    def value() -> Tensor:
        mean, deviation = heads.scales["value"].unbind()
        rewards = batch.rewards[..., None]  # every agent's is the team's
        predicted = mean + deviation * heads.value(batch.x)
        following = mean + deviation * heads.value(batch.x_next)
        if not settings.value_literal:
            following = (following * ~batch.terminal[..., None]).detach()
        error = (predicted - rewards - settings.value_gamma * following) / deviation
        return error.square().flatten(1).mean(dim=1)

    x_next = batch.x_next if settings.reward_next else None
    ways: dict[str, Callable[[], Tensor]] = {
        "inverse": inverse,
        "dynamics": lambda: mse(heads.dynamics(batch.x, batch.actions), batch.x_next),
        "reward": lambda: mse(heads.reward(batch.x, batch.actions, x_next), standardised("reward", batch.rewards)),
        "return_to_go": lambda: mse(
            heads.return_to_go(batch.x, batch.actions), standardised("return_to_go", batch.returns_to_go)
        ),
        "value": value,
        "availability": lambda: bce(heads.availability(batch.x), _given(batch.available)),
        "alive": lambda: bce(heads.alive(batch.x), _given(batch.alive)),
        "termination": lambda: bce(heads.termination(batch.x_next), batch.terminal, end_weight),
        "state": lambda: mse(heads.state(batch.x), standardised("state", _given(batch.states))),
    }
    return {name: ways[name]() for name in heads.names}


def _given(column: Tensor | None) -> Tensor:
    assert column is not None  # `useful_heads` leaves out heads whose column is missing
    return column


def end_weight(terminals: NDArray[np.bool_]) -> float:
    """(1 − p) / p for a share p of true ends, at most 100 (inferred)."""
    share = float(terminals.mean())
    return min((1 - share) / share, _RARE) if share > 0 else 1.0


def rate_share(done: int, updates: int) -> float:
    """Share of the learning rate: a linear rise over the first 5% of the updates, times a cosine fall to 0 (inferred).

    Without the rise, the first steps of Adam would push a joint head of a thousand inputs far from where it began.
    """
    return min(1.0, (done + 1) / (_RISE * updates)) * 0.5 * (1 + math.cos(math.pi * done / updates))


class HeadTraining:
    """Adam, its rate rising and falling, on transitions of the same episodes as the denoiser's.

    Never on rotated agents: a circular shift is for the denoiser, the heads learn from the data as they are (MADiTS,
    Sec. 4.1 and Eq. 8). Rotated rows contradict each other, and the best ones would teach that contradictions pay.

    Args:
        settings: updates, batch size, learning rate.
        heads: R replicas on the device.
        windows: the data.
        taught: R, the steps that each replica draws from, all alike: a window would have those in the middle of an
            episode more often. held_out: R, those that it is judged by.
        run: seeds.
        journal: progress and checkpoints.
    """

    def __init__(
        self,
        settings: SegmentSettings,
        heads: HeadNetworks,
        windows: DeviceWindows,
        taught: Sequence[NDArray[np.int64]],
        held_out: Sequence[NDArray[np.int64]],
        run: Run,
        journal: Journal,
    ) -> None:
        self._settings, self._heads, self._windows, self._taught = settings, heads, windows, taught
        self._held_out, self._run, self._journal = held_out, run, journal
        self._generators = [run.generator("diffusion/heads/batches", r) for r in range(len(run.seeds))]
        self._weight = end_weight(windows.index.data.terminals)
        self._adam = StackedAdam(heads, settings.head_learning_rate) if heads.names else None
        self._done, self._seconds, self._counted = 0, 0.0, 0
        self._sums = torch.zeros(len(heads.names), len(run.seeds), device=run.device)

    def run(self) -> TrainedHeads:
        """All updates, from the checkpoint on where there is one."""
        settings, adam = self._settings, self._adam
        saved = self._journal.resumed(STAGE)
        if saved is not None:
            self._load(saved)
        updates, began = settings.head_updates, time.monotonic() - self._seconds
        while adam is not None and self._done < updates:
            for _, batch in zip(range(updates - self._done), self._batches(), strict=False):
                rate = settings.head_learning_rate * rate_share(self._done, updates)
                losses = torch.stack(list(head_losses(self._heads, batch, self._weight).values()))  # (heads, R)
                adam.step(losses.sum(dim=0), rate)
                self._done += 1
                if self._done > updates * (1 - _RECENT):
                    self._sums += losses.detach()
                    self._counted += 1
                if self._done == updates or self._journal.wants_report():
                    self._journal.report(settings.updates + self._done, "auxiliary networks", now=True)
            self._seconds = time.monotonic() - began
            if self._done < updates and self._journal.due():
                self._journal.save(STAGE, self._arrays())
        named = dict(self._heads.named_parameters())
        training = (self._sums.double() / max(1, self._counted)).cpu().numpy()
        return TrainedHeads(
            {name: p.detach().cpu().numpy().copy() for name, p in named.items()},
            dict(zip(self._heads.names, training, strict=True)),
            self._judge(),
            self._seconds,
        )

    def _batches(self) -> Iterator[Transitions]:
        """The transitions of the next updates, replica r's drawn from its generator alone, always as many numbers."""
        lead = (_CHUNK_UPDATES, self._settings.head_batch_size)
        drawn = [
            taught[generator.integers(len(taught), size=lead)]
            for generator, taught in zip(self._generators, self._taught, strict=True)
        ]
        steps = torch.from_numpy(np.stack(drawn, axis=1)).to(self._run.device)  # (C, R, B)
        for i in range(_CHUNK_UPDATES):
            yield self._windows.transitions(steps[i])

    @torch.no_grad()
    def _judge(self) -> dict[str, NDArray[np.float64]]:
        """The losses (R,) on held-out transitions."""
        drawn = [
            self._run.generator("diffusion/heads/judging", r).choice(held_out, size=_JUDGED)
            for r, held_out in enumerate(self._held_out)
        ]
        batch = self._windows.transitions(torch.from_numpy(np.stack(drawn)).to(self._run.device))
        losses = head_losses(self._heads, batch, self._weight)
        return {name: loss.double().cpu().numpy() for name, loss in losses.items()}

    def _arrays(self) -> dict[str, NDArray[Any]]:
        assert self._adam is not None  # asked for between updates
        return {
            **self._adam.arrays(),
            "sums": self._sums.cpu().numpy().copy(),
            "counts": np.array([self._done, self._counted], np.int64),
            "seconds": np.array(self._seconds),
            "generators": pack_generators(self._generators),
        }

    def _load(self, saved: Arrays) -> None:
        assert self._adam is not None  # saved between updates
        self._adam.load(saved)
        self._sums.copy_(torch.from_numpy(np.array(saved["sums"])))
        self._done, self._counted = (int(count) for count in saved["counts"])
        self._seconds = float(saved["seconds"])
        restore_generators(self._generators, saved["generators"])
