"""What augmenters that stitch episodes share: config, and running the engine on a fitted model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor

from methods.base import Run, require
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import Sampler
from methods.synthesis.emission import GeneratedRows, emit_episodes
from methods.synthesis.model_augmenter import MODEL_GENERATION_FIELDS, MODEL_TINY, ModelAugmenter, ModelConfig
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_policy import StitchPolicy
from methods.synthesis.stitching import Goal, Stitcher
from tasks.datasets.offline import OfflineDataset

STARTS = ("first", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchConfig(ModelConfig):
    """A model of windows, how it is sampled, and how episodes are begun."""

    attention: bool = True  # between agents; MADiff, Sec. 3.2
    start: str = "first"  # observations that episodes begin with: "first" of an episode (inferred), or "any" row
    slots: int = 1024  # episodes stitched at once; MADiTS, Tab. 2 has 256; decides the speed alone

    def __post_init__(self) -> None:
        check_stitching(self.start, self.slots)


STITCH_GENERATION_FIELDS = MODEL_GENERATION_FIELDS | {"start", "slots"}
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

    @abstractmethod
    def new_report(self, model: SegmentModel) -> GenerationReport:
        """An empty report, with the threshold that is applied."""

    @abstractmethod
    def policy(
        self, model: SegmentModel, data: OfflineDataset, sampler: Sampler, report: GenerationReport
    ) -> StitchPolicy:
        """How windows are drawn and judged, by the threshold of the report."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Stitched episodes; without an amount as many as the data have (MADiTS, r_aug = 1:1)."""
        if run.budget.amount == 0 or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        config, model, sampler = self.config, self.model_on(run.device), self.sampler(run)
        self._report = report = self.new_report(model)
        report.sampler = {"name": sampler.name, "steps": len(sampler)}
        policy = self.policy(model, data, sampler, report)
        return stitched_dataset(
            policy, model, data, run, report, start=config.start, slots=config.slots, owner=self.name
        )


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
