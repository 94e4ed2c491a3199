"""Collecting generated windows until there are enough: propose a batch, keep what the filter believes, go on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.diffusion.model import SegmentModel
from methods.synthesis.emission import GeneratedRows
from methods.synthesis.emit import until_amount
from methods.synthesis.report import GenerationReport
from tasks.common.errors import MethodError

PATIENCE = 20  # batches in a row without a success; inferred, MASTARS' repository tries 1,000 of 256 windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """B generated windows before the filter.

    Attributes:
        observations: (B, H, N, D') normalised.
        actions: (B, H - 1, N, A) encoded.
        errors: (B,) in the filter's metric; not a number counts as too large.
        lengths: (B,) how many of the transitions are wanted, 1..H - 1.
        new_shares: (B,) share of the wanted rows that are not the source window's.
        starts: (B,) the step of its episode that each window's first row was taken from.
    """

    observations: Tensor
    actions: Tensor
    errors: NDArray[np.float64]
    lengths: NDArray[np.int64]
    new_shares: NDArray[np.float64]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentGoal:
    """When there are enough; exactly one of the two is given.

    Attributes:
        transitions: whole segments until they hold so many. segments: so many segments.
    """

    transitions: int | None = None
    segments: int | None = None

    def needed(self, lengths: NDArray[np.int64]) -> int | None:
        """How many of the first segments, of these lengths, are enough; None: all of them are not."""
        if self.segments is not None:
            return self.segments if len(lengths) >= self.segments else None
        transitions = self.transitions or 0
        return until_amount(lengths, transitions) if lengths.sum() >= transitions else None

    def missing(self, lengths: NDArray[np.int64], horizon: int) -> int:
        """About how many more segments it takes."""
        if self.segments is not None:
            return self.segments - len(lengths)
        left = (self.transitions or 0) - int(lengths.sum())
        return math.ceil(left / (lengths.mean() if len(lengths) else horizon - 1))


def collect_segments(
    propose: Callable[[int], Candidates],
    model: SegmentModel,
    goal: SegmentGoal,
    report: GenerationReport,
    run: Run,
    *,
    owner: str,
    largest: int = 1024,
    keep_unchanged: bool = True,
) -> GeneratedRows:
    """Generated windows whose error is at most `report.threshold`, in the order in which they were proposed.

    Batches are sized by the acceptance rate so far, so that few windows are made in vain at the end.

    Args:
        propose: draws and generates so many windows; times its own stages in `report`.
        model: predicts the rewards of what is kept.
        goal: how much is wanted, more than nothing.
        report: receives the counts, and what share of the kept rows and windows is new; its threshold decides.
        run: progress and deadline.
        owner: for messages.
        largest: windows a batch at most.
        keep_unchanged: whether windows without a new row are kept as well; they never count as progress.

    Raises:
        MethodError: after `PATIENCE` batches without an accepted window that has a new row, or where unchanged windows
            alone have made up the amount before, with `PATIENCE` others refused.
        TimeoutError: after the deadline.
    """
    limit = math.inf if report.threshold is None else report.threshold
    parts: list[GeneratedRows] = []
    lengths, new_shares = np.zeros(0, dtype=np.int64), np.zeros(0)
    needed, barren, refused = goal.needed(lengths), 0, 0
    while needed is None:
        missing = goal.missing(lengths, model.settings.horizon)
        rate = (report.accepted + 1) / (report.windows + 1)  # optimistic by one window
        candidates = propose(min(largest, math.ceil(missing / rate)))
        changed, valid = candidates.new_shares > 0, candidates.errors <= limit  # (B,)
        judged = changed | keep_unchanged
        accepted = valid & judged
        report.count(accepted[judged], candidates.starts[judged])
        report.count(accepted[~judged], candidates.starts[~judged], reason="unchanged")
        refused += int((changed & ~valid).sum())
        barren = 0 if (valid & changed).any() else barren + 1
        with report.timed("heads"):
            parts.append(_rows(candidates, accepted, model))
        lengths = np.concatenate([lengths, parts[-1].lengths])
        new_shares = np.concatenate([new_shares, candidates.new_shares[accepted]])
        needed = goal.needed(lengths)
        wanted = goal.segments if goal.transitions is None else goal.transitions
        done = len(lengths) if goal.transitions is None else int(lengths.sum())
        run.report(min(done, wanted or done), wanted or done, f"{owner}: {report.accepted} of {report.windows} windows")
        if needed is None and barren >= PATIENCE:
            raise MethodError(
                f"{owner}: none of the last {PATIENCE} batches had an acceptable window with new rows; "
                f"{report.summary()} Raise the threshold, or train longer."
            )
    if refused >= PATIENCE and not (new_shares[:needed] > 0).any():
        raise MethodError(
            f"{owner}: no window with new rows was acceptable, and unchanged ones alone are no augmentation; "
            f"{report.summary()} Raise the threshold, or train longer."
        )
    report.extra["new_row_share"] = float(new_shares[:needed].mean())
    report.extra["unchanged_share"] = float((new_shares[:needed] == 0).mean())
    return GeneratedRows.join(parts)[:needed]


def _rows(candidates: Candidates, accepted: NDArray[np.bool_], model: SegmentModel) -> GeneratedRows:
    kept = torch.from_numpy(np.flatnonzero(accepted)).to(candidates.observations.device)
    x, actions = candidates.observations[kept], candidates.actions[kept]
    with torch.no_grad():
        rewards = model.reward(x[:, :-1], actions, x[:, 1:] if model.settings.reward_next else None)  # (B, H - 1)
    return GeneratedRows(
        observations=x,
        actions=actions,
        rewards=rewards,
        lengths=candidates.lengths[accepted],
        terminal=np.zeros(int(accepted.sum()), dtype=np.bool_),
    )
