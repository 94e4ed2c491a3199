"""Windows of a fitted `SegmentModel`, as a policy of the stitching engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.diffusion.known import ClampConditioning, Conditioning, Known
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import Sampler
from methods.diffusion.sampling import NoiseSource
from methods.diffusion.validity import transition_errors, valid_prefix
from methods.synthesis.burial import buried
from methods.synthesis.stitch_policy import FailureRule, Jobs, StitchPolicy, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How windows are drawn.

    Attributes:
        sampler: its steps.
        target: condition c of the return that every window is sampled at.
        guidance: g of ε̂ = ε_u + g (ε_c − ε_u).
        conditioning: how known entries are kept.
    """

    sampler: Sampler
    target: float
    guidance: float
    conditioning: Conditioning = ClampConditioning()  # noqa: RUF009 - it has no state


class ModelPolicy(StitchPolicy):
    """Every window at the same return; a prefix is valid as far as the model's own dynamics reproduce it.

    An agent that the model calls dead lies as dead agents do, on a row of zeros, from there to the end of the window
    and hence of the episode.

    Args:
        model: the fitted model.
        draw: how windows are drawn.
        threshold: largest error δ of a valid transition; None: all are valid.
        metric: of the error, `sse`, `l2` or `mse`.
        failures: when an episode is given up.
    """

    def __init__(
        self,
        model: SegmentModel,
        draw: Draw,
        *,
        threshold: float | None = None,
        metric: str = "sse",
        failures: FailureRule | None = None,
    ) -> None:
        self.model, self.draw, self.threshold, self.metric = model, draw, threshold, metric
        self.horizon = model.settings.horizon
        self.failures = failures or FailureRule()

    def first_condition(self, rows: Tensor) -> Tensor:
        """The target, for all."""
        return rows.new_full((len(rows),), self.draw.target)

    def sample(self, jobs: Jobs, noise: NoiseSource) -> Tensor:
        """Windows (B, H, N, D') from the rows that are known."""
        draw = self.draw
        windows = self.model.sample(
            jobs.known,
            target=jobs.condition,
            noise=noise,
            sampler=draw.sampler,
            guidance=draw.guidance,
            conditioning=draw.conditioning,
        )
        return buried(self.model, windows)

    def first_windows(self, rows: Tensor, noise: NoiseSource) -> Tensor:
        """Windows (B, H, N, D') of episodes that begin with these rows (B, N, D')."""
        known, batch = Known.first_row(rows, self.horizon), len(rows)
        jobs = Jobs(
            known=known,
            condition=self.first_condition(rows),
            second=np.zeros(batch, dtype=np.bool_),
            usable=np.full(batch, self.horizon - 1),
        )
        return self.sample(jobs, noise)

    @torch.no_grad()
    def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
        """Actions and rewards of the heads; the valid prefix by the threshold."""
        model, rows, next_rows = self.model, windows[:, :-1], windows[:, 1:]
        if self.threshold is None:
            available = model.availability(rows) if model.has("availability") else None
            actions = model.act(rows, next_rows, available)
            valid = np.full(len(windows), self.horizon - 1)
        else:
            errors, actions = transition_errors(model, windows, self.metric)
            valid = valid_prefix(errors, self.threshold).cpu().numpy()
        terminal = np.zeros((len(windows), self.horizon - 1), dtype=np.bool_)
        if model.has("termination"):
            terminal = model.termination(next_rows).cpu().numpy()
        rewards = model.reward(rows, actions, next_rows if model.settings.reward_next else None)
        return Verdict(valid=valid, actions=actions, rewards=rewards, terminal=terminal)
