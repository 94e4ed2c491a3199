"""Stitching under composed conditions: "agent i plays well", for all agents at once (CODI, Sec. 3.2 and 3.3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.diffusion.model import Composition, SegmentModel
from methods.diffusion.sampling import NoiseSource
from methods.synthesis.burial import buried
from methods.synthesis.model_policy import Draw, ModelPolicy
from methods.synthesis.stitch_policy import FailureRule, Jobs, Verdict

WEIGHTS = ("shared", "per_agent", "decoupled")


def agents_composition(kind: str, n_agents: int, guidance: float, label_weight: float) -> Composition:
    """The conditional branches of the sampler and their weights, by one of `WEIGHTS`.

    shared     ε_u + Σ_i (g / n) (ε(R, z⁽ⁱ⁾) − ε_u)                       (CODI, Eq. 8 with w_i = g / n)
    per_agent  ε_u + Σ_i g (ε(R, z⁽ⁱ⁾) − ε_u)                             (w_i = g; the return is counted n times)
    decoupled  ε_u + g (ε(R) − ε_u) + w_z Σ_i (ε(R, z⁽ⁱ⁾) − ε(R))

    z⁽ⁱ⁾ has entry i equal to 1 and the others masked. With w_z = g / n the third is the first.

    Args:
        kind: which of them.
        n_agents: n.
        guidance: g.
        label_weight: w_z.
    """
    g, n = guidance, n_agents
    each = np.eye(n, dtype=np.float32)
    if kind != "decoupled":
        weight = g / n if kind == "shared" else g
        return Composition(labels=each, mask=each > 0, weights=(weight,) * n)
    with_return = np.concatenate([np.zeros((1, n), dtype=np.float32), each])  # (1 + n, n)
    weights = (g - n * label_weight, *(label_weight,) * n)
    return Composition(labels=with_return, mask=with_return > 0, weights=weights)


def team_composition(n_agents: int, guidance: float) -> Composition:
    """ε_u + g (ε(R, 1) − ε_u): good play of all agents at once, in one branch (CODI, Sec. 4.1, "w/o Com.")."""
    ones = np.ones((1, n_agents), dtype=np.float32)
    return Composition(labels=ones, mask=ones > 0, weights=(guidance,))


class ComposedPolicy(ModelPolicy):
    """Windows under composed conditions, at a return-to-go that falls with what was collected (CODI, Sec. 3.3).

    Args:
        model, draw, threshold, metric, failures: see `ModelPolicy`.
        composition: branches and weights.
        whole_windows: a window counts only if all its usable transitions are valid.
    """

    def __init__(
        self,
        model: SegmentModel,
        draw: Draw,
        *,
        composition: Composition,
        whole_windows: bool,
        threshold: float | None,
        metric: str,
        failures: FailureRule,
    ) -> None:
        super().__init__(model, draw, threshold=threshold, metric=metric, failures=failures)
        self._composition, self._whole_windows = composition, whole_windows

    def sample(self, jobs: Jobs, noise: NoiseSource) -> Tensor:
        """Windows (B, H, N, D') from the rows that are known, all branches in one batch."""
        windows = self.model.sample(
            jobs.known,
            target=jobs.condition,
            noise=noise,
            sampler=self.draw.sampler,
            guidance=self.draw.guidance,
            conditioning=self.draw.conditioning,
            composition=self._composition,
        )
        return buried(self.model, windows)

    def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
        """The verdict of the model's dynamics; no part of a window outlives an invalid transition."""
        verdict = super().judge(windows, jobs)
        if not self._whole_windows:
            return verdict
        length = verdict.terminal.shape[1]
        ends = np.where(verdict.terminal.any(axis=1), verdict.terminal.argmax(axis=1) + 1, length)  # (B,)
        needed = np.minimum(jobs.usable, ends)
        return replace(verdict, valid=np.where(verdict.valid >= needed, verdict.valid, 0))

    def condition_after(self, condition: Tensor, rewards: Tensor, appended: NDArray[np.int64]) -> Tensor:
        """C − Σ r / R_s over the appended transitions: the return-to-go that is left, in the condition's units."""
        count = torch.as_tensor(appended, device=rewards.device)
        counted = torch.arange(rewards.shape[1], device=rewards.device) < count[:, None]  # (B, H - 1)
        return condition - (rewards * counted).sum(dim=1) / self.model.returns_scale
