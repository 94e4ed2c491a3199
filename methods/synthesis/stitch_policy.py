"""What a stitching method decides; `Stitcher` (in `stitching`) does the rest.

A method stitches an episode out of windows: it samples H rows that begin with the episode's last row, says how many
of their leading transitions are good enough, and goes on from the last row it kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.diffusion.known import Known
from methods.diffusion.sampling import NoiseSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Windows to sample, B of them, one a slot; first and second passes ride together.

    Attributes:
        known: values (B, H, N, D) normalised, mask (B, H, N) bool; of a first pass row 0 alone is known.
        condition: (B,) what the episode of each slot is conditioned on at this point.
        second: (B,) bool, the window was sampled before and is drawn again in part.
        usable: (B,) int64, leading transitions that can be appended at most: H − 1, fewer near the episode limit,
            and in a second pass no more than the first one had.
    """

    known: Known
    condition: Tensor
    second: NDArray[np.bool_]
    usable: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a method says of B sampled windows.

    Attributes:
        valid: (B,) int64, length of the leading run of transitions that may be appended, 0..H − 1.
        actions: (B, H − 1, N, A') encoded as the model's heads encode them.
        rewards: (B, H − 1) of the team, in the task's units.
        terminal: (B, H − 1) bool, the episode ends truly with this transition.
    """

    valid: NDArray[np.int64]
    actions: Tensor
    rewards: Tensor
    terminal: NDArray[np.bool_]

    def take(self, index: NDArray[np.int64]) -> Verdict:
        """The verdict of some of the windows."""
        rows = torch.as_tensor(index, device=self.rewards.device)
        return Verdict(
            valid=self.valid[index],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            terminal=self.terminal[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRule:
    """When an episode is given up (MADiTS, Alg. 3, lines 6-16). None: never for that reason.

    A window fails where not all its usable transitions are valid. The failures in a row start again at 1 where
    some were valid, and at 0 after a window without a failure.

    Attributes:
        total: failures of one episode. in_a_row: failures since a row was last appended.
    """

    total: int | None = None
    in_a_row: int | None = None


class StitchPolicy(ABC):
    """How windows are sampled, judged and drawn again. Nothing here may keep state between two calls, nor let one
    window influence another: slots must not feel each other.
    """

    horizon: int
    failures: FailureRule = FailureRule()

    @abstractmethod
    def first_condition(self, rows: Tensor) -> Tensor:
        """(B,) what episodes that begin with these joint observations (B, N, D) are conditioned on."""

    @abstractmethod
    def sample(self, jobs: Jobs, noise: NoiseSource) -> Tensor:
        """Windows (B, H, N, D), equal to `jobs.known` where that is known. Noise has the leading axis B."""

    @abstractmethod
    def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
        """Actions, rewards, ends and the valid prefix of sampled windows (B, H, N, D)."""

    def known_again(self, windows: Tensor, verdict: Verdict, kept: NDArray[np.int64]) -> Tensor | None:
        """Which entries stay if the windows are drawn once more, (B, H, N) bool; None: no window has a second pass.

        A window whose mask is True in all rows up to and including row `kept` is appended as it is. Row 0 must be
        True for every agent. Asked after first passes only.

        Args:
            windows: (B, H, N, D).
            verdict: of these windows.
            kept: (B,) int64, how many leading transitions would be appended, at least 1.
        """
        return None

    def condition_after(self, condition: Tensor, rewards: Tensor, appended: NDArray[np.int64]) -> Tensor:
        """(B,) the condition of the next window, after `appended` (B,) of the transitions with rewards (B, H − 1)."""
        return condition


def leading_rows(count: NDArray[np.int64], size: int, device: torch.device) -> Tensor:
    """(B, size) bool, True in the first `count` (B,) places."""
    return torch.arange(size, device=device) < torch.as_tensor(count, device=device)[:, None]
