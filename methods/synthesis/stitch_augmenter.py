"""What augmenters that stitch episodes share: config, and running the engine on a fitted model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from methods.base import Run, require
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import Sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.validity import METRICS, QUANTILES, calibrated_threshold, transition_errors
from methods.synthesis.emission import GeneratedRows, emit_episodes
from methods.synthesis.model_augmenter import MODEL_GENERATION_FIELDS, MODEL_TINY, ModelAugmenter, ModelConfig
from methods.synthesis.model_policy import ModelPolicy
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_policy import StitchPolicy
from methods.synthesis.stitching import Goal, Stitcher
from tasks.datasets.offline import OfflineDataset

STARTS = ("first", "any")
CALIBRATIONS = ("real", "generated")
PILOT_WINDOWS = 256  # that the threshold is calibrated on, with calibrate=generated


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchConfig(ModelConfig):
    """A model of windows, how it is sampled, and how episodes are begun."""

    attention: bool = True  # between agents; MADiff, Sec. 3.2
    start: str = "first"  # observations that episodes begin with: "first" of an episode (inferred), or "any" row
    slots: int = 1024  # episodes stitched at once; MADiTS, Tab. 2 has 256; decides the speed alone

    metric: str = "sse"  # of the reconstruction error (inferred); "l2" is the norm as MADiTS and CODI print it
    delta: float | None = None  # largest error of a valid transition; None: calibrated (inferred)
    quantile: float = 0.99  # of the errors that it is calibrated on (inferred)
    calibrate: str = "real"  # errors of held-out "real" transitions, or of unfiltered "generated" ones (inferred)

    def __post_init__(self) -> None:
        super(StitchConfig, self).__post_init__()  # the bare form does not know a class with slots
        owner = type(self).__name__.removesuffix("Config")
        check_stitching(self.start, self.slots)
        require(self.metric in METRICS, owner, f"metric={self.metric}", " or ".join(METRICS))
        require(self.calibrate in CALIBRATIONS, owner, f"calibrate={self.calibrate}", " or ".join(CALIBRATIONS))
        known = ", ".join(map(str, QUANTILES))
        require(self.quantile in QUANTILES, owner, f"quantile={self.quantile}", f"one of {known}")
        number = self.delta is None or (isinstance(self.delta, int | float) and self.delta >= 0)
        require(number, owner, f"delta={self.delta}", "a number, 0 or more")


STITCH_GENERATION_FIELDS = MODEL_GENERATION_FIELDS | {"start", "slots", "metric", "delta", "quantile", "calibrate"}
STITCH_TINY: Mapping[str, Any] = {**MODEL_TINY, "slots": 16}
ConfigT = TypeVar("ConfigT", bound=StitchConfig)


def check_stitching(start: str, slots: int) -> None:
    """Raises UsageError for values that the engine cannot run with."""
    require(start in STARTS, "stitching", f"start={start}", " or ".join(STARTS))
    require(slots >= 1, "stitching", f"slots={slots}", "1 or more")


class StitchAugmenter(ModelAugmenter[ConfigT]):
    """Episodes stitched out of windows of one fitted model."""

    generation_fields: ClassVar[frozenset[str]] = STITCH_GENERATION_FIELDS
    tiny_params: ClassVar[Mapping[str, Any]] = STITCH_TINY

    def new_report(self, model: SegmentModel) -> GenerationReport:
        """An empty report, with the threshold that is applied and the calibrated one beside it."""
        config = self.config
        calibrated = calibrated_threshold(model, config.metric, config.quantile)
        if config.delta is None:
            return GenerationReport(threshold=calibrated, threshold_kind="calibrated", calibrated=calibrated)
        return GenerationReport(threshold=config.delta, threshold_kind="fixed", calibrated=calibrated)

    @abstractmethod
    def policy(
        self, model: SegmentModel, data: OfflineDataset, sampler: Sampler, report: GenerationReport
    ) -> ModelPolicy:
        """How windows are drawn and judged, by the threshold of the report."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Stitched episodes; without an amount as many as the data have (MADiTS, r_aug = 1:1)."""
        if run.budget.amount == 0 or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        config, model, sampler = self.config, self.model_on(run.device), self.sampler(run)
        self._report = report = self.new_report(model)
        report.sampler = {"name": sampler.name, "steps": len(sampler)}
        policy = self.policy(model, data, sampler, report)
        if config.calibrate == "generated" and report.threshold_kind == "calibrated":
            self._calibrate_on_generated(policy, start_pool(model, data, config.start), report, run)
        return stitched_dataset(
            policy, model, data, run, report, start=config.start, slots=config.slots, owner=self.name
        )

    def _calibrate_on_generated(self, policy: ModelPolicy, pool: Tensor, report: GenerationReport, run: Run) -> None:
        """Takes the quantile of the model's own errors: how strict the filter is then does not depend on training."""
        generator = run.generator(f"{self.name}/pilot")
        chosen = torch.as_tensor(generator.integers(len(pool), size=PILOT_WINDOWS), device=pool.device)
        with report.timed("sampling"):
            windows = policy.first_windows(pool[chosen], numpy_noise(generator, pool.device))
        with report.timed("heads"):
            errors, _ = transition_errors(policy.model, windows, policy.metric)
        policy.threshold = report.threshold = float(np.quantile(errors.cpu().numpy(), self.config.quantile))
        report.threshold_kind = "generated"


def stitched_dataset(
    policy: StitchPolicy,
    model: SegmentModel,
    data: OfflineDataset,
    run: Run,
    report: GenerationReport,
    *,
    start: str,
    slots: int,
    owner: str,
) -> OfflineDataset:
    """Episodes of `run.budget.amount` transitions; None: as many episodes as the data have.

    Args:
        policy: how windows are drawn and judged.
        model: fitted on `data`.
        data: the original episodes, which observations to begin with are taken from.
        run: amount, seed, progress.
        report: filled.
        start: one of `STARTS`.
        slots: episodes in flight.
        owner: for messages and random streams.

    Raises:
        MethodError: if next to nothing is valid.
        TimeoutError: after the deadline.
    """
    amount = run.budget.amount
    goal = Goal(episodes=data.n_episodes) if amount is None else Goal(transitions=amount)
    pool = start_pool(model, data, start)
    stitcher = Stitcher(policy, pool, limit=data.spec.episode_limit, report=report, slots=slots)
    found = stitcher.run(goal, run.generator(f"{owner}/attempts"), run, owner)
    with report.timed("bookkeeping"):
        rows = GeneratedRows.from_flat(found.observations, found.actions, found.rewards, found.lengths, found.terminal)
        return emit_episodes(model, rows.to(model.device), data)


def start_pool(model: SegmentModel, data: OfflineDataset, start: str) -> Tensor:
    """(M, N, D') the normalised joint observations that episodes may begin with: `first` ones, or `any` but last."""
    rows = data.row_starts[:-1] if start == "first" else data.row_of_step()
    states = data.states[rows] if model.settings.append_state and data.states is not None else None
    return model.encode(np.asarray(data.observations[rows]), states)
