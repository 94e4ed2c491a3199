"""The loop that every learner runs: updates, progress, points of the learning curve, and the losses at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from methods.base import Budget, LearnedPolicy, Run
from methods.networks.stacked import clip_each_replica

_REPORT_EVERY = 200  # updates between two reports of progress
_RECENT = 100  # last losses that a final one is the mean of: one batch says little

Batch = TypeVar("Batch")
Losses = Mapping[str, Tensor]


def train(
    batches: Iterable[Batch],
    update: Callable[[Batch], Losses],
    freeze: Callable[[], LearnedPolicy],
    run: Run,
    updates: int,
) -> dict[str, list[float]]:
    """Makes all updates, one a batch.

    Args:
        batches: `updates` of them.
        update: one gradient update; returns (R,) losses by name, those that this update computed.
        freeze: a copy of the policy as it is, for the points of the curve before the last.
        run: progress, snapshots, deadline.
        updates: how many.

    Returns:
        For each loss the means of the last hundred values, one a replica; NaN where training diverged.

    Raises:
        TimeoutError: after the deadline of the run.
    """
    recent: dict[str, deque[Tensor]] = {}
    points = curve_points(updates, run.budget)
    for done, batch in enumerate(batches, start=1):
        for name, loss in update(batch).items():
            recent.setdefault(name, deque(maxlen=_RECENT)).append(loss.detach())
        if done % _REPORT_EVERY == 0 or done == updates:
            told = ", ".join(f"{name} {torch.stack(list(last)).nanmean():.4g}" for name, last in recent.items())
            run.report(done, updates, told)
        if done in points and done < updates:
            run.snapshot(done, freeze())
    return {name: torch.stack(list(last)).mean(dim=0).tolist() for name, last in recent.items()}


def descend(
    adam: torch.optim.Optimizer, parameters: Sequence[Tensor], losses: Tensor, groups: int, max_norm: float
) -> None:
    """One step of `adam` on the sum of `losses`, of any shape: a sum, for no replica may rescale another's gradient.

    The gradients of each of `groups` slices are clipped to a joint L2 norm of `max_norm`; 0: they are not.
    """
    adam.zero_grad()
    torch.autograd.backward(losses.sum(), inputs=list(parameters))
    if max_norm > 0:
        clip_each_replica(parameters, groups, max_norm)
    adam.step()


def curve_points(updates: int, budget: Budget) -> frozenset[int]:
    """After which updates a point of the learning curve is due: evenly spaced, the last one included."""
    return frozenset(round(updates * (i + 1) / budget.snapshots) for i in range(budget.snapshots))


def final_losses(losses: Mapping[str, Sequence[float]], replica: int) -> dict[str, float | None]:
    """`train`'s losses of one replica as diagnosis: `final_<name>`, None where training diverged."""
    found = {f"final_{name}": values[replica] for name, values in losses.items()}
    return {name: value if value == value and abs(value) < float("inf") else None for name, value in found.items()}
