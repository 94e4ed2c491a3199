"""Episodes stitched from sampled windows: thousands of slots in one sampler batch (MADiTS, Alg. 1 and 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.synthesis.stitch_policy import StitchPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """When generation is done; exactly one of the two is given.

    Attributes:
        transitions: whole episodes until they hold so many. episodes: so many episodes.
    """

    transitions: int | None = None
    episodes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitched:
    """E finished episodes of S transitions, one after another, in the order in which they were begun.

    Attributes:
        rows: (S + E, N, D) normalised observations, T + 1 an episode.
        actions: (S, N, A') encoded. rewards: (S,) of the team.
        terminated: (E,) the episode ended truly; False: at the limit.
        lengths: (E,) int64.
        starts: (E,) int64, which row of the start pool the episode began with.
    """

    rows: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]


class Stitcher:
    """Runs a `StitchPolicy` in many slots at once.

    An attempt is one start row and what follows from it. Each has its own random stream (start and noise), and the
    episodes returned are those of the first attempts that together reach the goal: exactly what the sequential
    algorithm gives, whatever the number of slots and however fast single attempts finish.

    Args:
        policy: the method.
        starts: (M, N, D) normalised joint observations, the pool that attempts begin from, uniformly.
        limit: transitions of the longest episode.
        slots: attempts in flight; decides the speed and nothing else.
    """

    def __init__(self, policy: StitchPolicy, starts: Tensor, *, limit: int, slots: int = 1024) -> None:
        raise NotImplementedError

    def run(self, goal: Goal, generator: np.random.Generator, run: Run, owner: str) -> Stitched:
        """Stitches until the goal is reached; `self.report` then holds the statistics (`GenerationReport`).

        Raises:
            MethodError: after `PATIENCE` ticks in which no window was accepted, or as many attempts in a row given up.
            TimeoutError: after the deadline of the run.
        """
        raise NotImplementedError
