"""`madits` and its ablations: stitching with a dynamics constraint and partial noising (MADiTS, Yuan et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import require
from methods.diffusion.known import ClampConditioning, RepaintConditioning
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import Sampler
from methods.diffusion.settings import EMISSION_HEADS, SegmentSettings
from methods.synthesis.credit import automatic_rank_threshold, path_credit, pointwise_credit, underperformers
from methods.synthesis.model_policy import Draw, ModelPolicy
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_augmenter import STITCH_GENERATION_FIELDS, STITCH_TINY, StitchAugmenter, StitchConfig
from methods.synthesis.stitch_policy import FailureRule, Verdict
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import SegmentBatch
from tasks.spec import TaskSpec

CREDITS = ("rtg", "reward", "reward_sum")
PN_KNOWN = ("clamp", "repaint")


@dataclass(frozen=True, slots=True, kw_only=True)
class MADiTSConfig(StitchConfig):
    """The paper's values for every task; those that it sets by task are None here, or named in the documentation."""

    dynamics_constraint: bool = True  # False: every window is valid to its end (w/o DC; MADiTS, Sec. 5.3)
    partial_noising: bool = True  # False: nothing is drawn again (w/o PN; MADiTS, Sec. 5.3)
    circular_shift: float = 0.1  # r_cir; MADiTS, Tab. 2 and App. D
    cfg_text_convention: bool = False  # True: ε_c + ω (ε_c − ε_u), as MADiTS prints it (Sec. 3)
    total_failures: int = 5  # l_tot_limit; MADiTS, Tab. 3 on MPE (10 to 30 elsewhere)
    failures_in_a_row: int = 3  # l_limit; MADiTS, Tab. 2
    credit: str = "reward_sum"  # F of the integrated gradients (by Kendall's tau, docs/deviations.md); "rtg", "reward"
    credit_steps: int = 10  # M; MADiTS, Tab. 2
    delta_rank: float | None = None  # δ_rank; None: 1.165 (N + 1) / 2 (inferred), 2.33 for three agents (Tab. 3)
    pn_known: str = "clamp"  # how kept agents are held: clean (MADiff's way, inferred), or "repaint": noised

    def __post_init__(self) -> None:
        super(MADiTSConfig, self).__post_init__()  # the bare form does not know a class with slots
        require(self.credit in CREDITS, "madits", f"credit={self.credit}", " or ".join(CREDITS))
        require(self.pn_known in PN_KNOWN, "madits", f"pn_known={self.pn_known}", " or ".join(PN_KNOWN))
        rank = self.delta_rank
        number = rank is None or (isinstance(rank, int | float) and rank >= 0)
        require(number, "madits", f"delta_rank={rank}", "a number, 0 or more")
        for name in ("total_failures", "failures_in_a_row", "credit_steps"):
            require(getattr(self, name) >= 1, "madits", f"{name}={getattr(self, name)}", "1 or more")


class MADiTS(StitchAugmenter[MADiTSConfig]):
    """Episodes of windows at a high return, cut where they break the dynamics, with the weakest agents drawn again.

    A window counts up to its first transition that the inverse and the forward model together do not reproduce; too
    many such failures discard the episode (Alg. 3). Of what is left, the agents of least contribution are drawn once
    more beside the others, and the result is tested again (Sec. 4.2 and 4.3).
    """

    Config = MADiTSConfig
    version = 2
    name: ClassVar[str] = "madits"
    credit_functions: ClassVar[tuple[str, ...]] = CREDITS
    tiny_params: ClassVar[Mapping[str, Any]] = {**STITCH_TINY, "delta": float("inf"), "credit_steps": 2}
    generation_fields: ClassVar[frozenset[str]] = STITCH_GENERATION_FIELDS | {
        "dynamics_constraint",
        "partial_noising",
        "cfg_text_convention",
        "total_failures",
        "failures_in_a_row",
        "credit",
        "credit_steps",
        "delta_rank",
        "pn_known",
    }

    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """Joint inverse and forward models (Eq. 4); one fit serves all ablations and all three credits."""
        shared = self.shared_settings((*EMISSION_HEADS, "dynamics", "return_to_go"))
        return replace(shared, inverse_scope="joint", dynamics_scope="joint")

    def new_report(self, model: SegmentModel) -> GenerationReport:
        """Without the constraint there is no threshold, only the calibrated one to compare with."""
        report = super().new_report(model)
        return report if self.config.dynamics_constraint else GenerationReport(calibrated=report.calibrated)

    def policy(
        self, model: SegmentModel, data: OfflineDataset, sampler: Sampler, report: GenerationReport
    ) -> ModelPolicy:
        """With or without the second pass."""
        config = self.config
        draw = Draw(
            sampler=sampler,
            target=config.target,
            guidance=config.guidance + 1.0 if config.cfg_text_convention else config.guidance,
            conditioning=RepaintConditioning(level="repaint") if config.pn_known == "repaint" else ClampConditioning(),
        )
        failures = FailureRule(total=config.total_failures, in_a_row=config.failures_in_a_row)
        if not config.partial_noising:
            return ModelPolicy(model, draw, threshold=report.threshold, metric=config.metric, failures=failures)
        return PartialNoising(
            model,
            draw,
            threshold=report.threshold,
            metric=config.metric,
            failures=failures,
            credit=Credit(model, data, config.credit, config.credit_steps),
            rank_threshold=config.delta_rank,
        )

    def credit(self, data: OfflineDataset, windows: SegmentBatch, function: str | None = None) -> NDArray[np.float32]:
        """C_i(0) of each window, (B, N): what each agent contributes from its first step to its last."""
        return self.contributions(data, windows, function or self.config.credit)[:, 0]

    def contributions(self, data: OfflineDataset, windows: SegmentBatch, credit: str) -> NDArray[np.float32]:
        """C_i(k) of real windows, (B, H, N): what agent i contributes from step k to the last one (MADiTS, Sec. 4.2).

        Args:
            data: the original episodes.
            windows: in the task's units; steps that are not valid do not count, and have 0.
            credit: one of `CREDITS`, whatever the config has.

        Raises:
            UsageError: for another credit, or if nothing was fitted.
        """
        require(credit in CREDITS, "madits", f"credit={credit}", " or ".join(CREDITS))
        model = self.model_on("cpu" if self._model is None else self._model.device)
        states = windows.states if model.settings.append_state else None
        x = model.encode(windows.observations, states)
        actions = model.encode_actions(windows.actions).to(x.device)
        valid = torch.as_tensor(windows.step_valid.sum(axis=1), device=x.device)
        found = Credit(model, data, credit, self.config.credit_steps)(x, actions, valid)
        contributions: NDArray[np.float32] = found.cpu().numpy()
        return contributions


class Credit:
    """C_i(k) under one choice of F: the return-to-go, the reward as printed, or the reward against the mean.

    `rtg` makes Eq. 7 true: contributions add up to the rewards between x_k and the last point. `reward` is the model
    of Eq. 8 in its place, and blames an agent for improving. `reward_sum` measures every point against the mean of
    the data.

    Args:
        model: with the heads `reward` and `return_to_go`.
        data: what the mean is taken of.
        kind: one of `CREDITS`.
        steps: M midpoints of the integral.
    """

    def __init__(self, model: SegmentModel, data: OfflineDataset, kind: str, steps: int) -> None:
        self._model, self._kind, self._steps = model, kind, steps
        self._baseline = _mean_point(model, data) if kind == "reward_sum" else None

    def __call__(self, rows: Tensor, actions: Tensor, valid: Tensor) -> Tensor:
        """(B, V, N) of rows (B, V, N, D') and actions (B, V, N, A), of which the first `valid` (B,) count."""
        points = torch.cat([rows, actions], dim=-1)  # (B, V, N, X)
        if self._baseline is not None:
            return pointwise_credit(self._function, points, valid, self._baseline, self._steps)
        return path_credit(self._function, points, valid, self._steps)

    def _function(self, points: Tensor) -> Tensor:
        x, a = points[..., : self._model.features], points[..., self._model.features :]
        return self._model.return_to_go(x, a) if self._kind == "rtg" else self._model.reward(x, a)


class PartialNoising(ModelPolicy):
    """Draws the rows of underperforming agents once more, the others being known (MADiTS, Eq. 9).

    Eq. 9 as printed would redraw the good agents; the text says the underperforming ones. One round a window: with a
    threshold above the mean rank there are always some.

    Args:
        model, draw, threshold, metric, failures: see `ModelPolicy`.
        credit: who contributes how much.
        rank_threshold: δ_rank, agents of a lower mean rank are drawn again; None: automatic.
    """

    def __init__(
        self,
        model: SegmentModel,
        draw: Draw,
        *,
        threshold: float | None,
        metric: str,
        failures: FailureRule,
        credit: Credit,
        rank_threshold: float | None,
    ) -> None:
        super().__init__(model, draw, threshold=threshold, metric=metric, failures=failures)
        self._credit = credit
        self._rank = automatic_rank_threshold(model.spec.n_agents) if rank_threshold is None else rank_threshold

    def known_again(self, windows: Tensor, verdict: Verdict, kept: NDArray[np.int64]) -> Tensor:
        """Known: row 0 of all, and rows up to `kept` of the agents that do well."""
        valid = torch.as_tensor(kept, device=windows.device)
        credit = self._credit(windows[:, :-1], verdict.actions, valid)  # (B, H - 1, N)
        weak = underperformers(credit, valid, self._rank)  # (B, N)
        rows = torch.arange(windows.shape[1], device=windows.device) <= valid[:, None]  # (B, H)
        mask = rows[..., None] & ~weak[:, None, :]
        mask[:, 0] = True
        return mask


def _mean_point(model: SegmentModel, data: OfflineDataset) -> Tensor:
    """(N, X) mean of the normalised observations and actions."""
    rows = data.row_of_step()
    states = data.states[rows] if model.settings.append_state and data.states is not None else None
    x = model.encode(data.observations[rows], states)
    return torch.cat([x, model.encode_actions(data.actions).to(x.device)], dim=-1).mean(dim=0)
