"""`madiff`, `madiff-segment`: return-conditioned diffusion of joint windows (MADiff, Zhu et al. 2024).

As an augmenter it has two forms: episodes stitched window to window without any test (the baseline of MADiTS, Sec. 5.1,
and CODI, Sec. 4.1), and single windows that pass a filter (MADiff* of MASTARS, App. B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from methods.base import Run, require
from methods.diffusion.known import Known
from methods.diffusion.settings import EMISSION_HEADS, SegmentSettings
from methods.synthesis.model_policy import Draw, ModelPolicy
from methods.synthesis.report import GenerationReport
from methods.synthesis.segment_augmenter import (
    GENERATION_FIELDS,
    Generated,
    Sampling,
    SegmentAugmenter,
    SegmentConfig,
    SourceWindows,
    all_but_first,
)
from methods.synthesis.stitch_augmenter import check_stitching, stitched_dataset
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

EMISSIONS = ("episodes", "segments")


@dataclass(frozen=True, slots=True, kw_only=True)
class MADiffConfig(SegmentConfig):
    """Shared weights and attention between agents; the first row of every agent is known."""

    updates: int = 1_000_000  # MADiff's repository, exp_specs (500,000 on MuJoCo)
    attention: bool = True  # between agents; False: each on its own, with shared weights
    per_agent_returns: bool = True  # each agent conditioned on its own rewards; MADiff's repository, sequence.py
    target: float = 0.9  # MADiff's repository on MPE and 4ant; 1.0 on SMAC and 2ant
    emit: str = "episodes"  # stitched (MADiTS, CODI), or "segments" (MASTARS)
    start: str = "first"  # of episodes: the "first" observation of one (inferred), or "any"
    slots: int = 1024  # episodes stitched at once (inferred); decides the speed alone

    def __post_init__(self) -> None:
        super(MADiffConfig, self).__post_init__()  # the bare form does not know a class with slots
        require(self.emit in EMISSIONS, "madiff", f"emit={self.emit}", " or ".join(EMISSIONS))
        check_stitching(self.start, self.slots)


class MADiff(SegmentAugmenter[MADiffConfig]):
    """Windows drawn at a high return.

    `emit=episodes`: from a first observation, each window begins with the last row of the one before and adds H − 1
    transitions, up to the task's limit or a predicted end; nothing is filtered. `emit=segments`: single windows from
    any real observation, kept where the model's dynamics believe them. Both use one fitted model.
    """

    Config = MADiffConfig
    version = 2
    name: ClassVar[str] = "madiff"
    generation_fields: ClassVar[frozenset[str]] = GENERATION_FIELDS | {"emit", "start", "slots"}
    tiny_params: ClassVar[Mapping[str, Any]] = {**SegmentAugmenter.tiny_params, "slots": 16}

    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """With attention, and dynamics for the filter."""
        return self.shared_settings((*EMISSION_HEADS, "dynamics"))

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Stitched episodes, as many as the data have where no amount is given; or accepted segments."""
        config = self.config
        if config.emit == "segments" or run.budget.amount == 0 or not data.n_steps:
            return super().generate(data, run)
        model, sampler = self.model_on(run.device), self.sampler(run)
        self._report = report = GenerationReport(sampler={"name": sampler.name, "steps": len(sampler)})
        policy = ModelPolicy(model, Draw(sampler=sampler, target=config.target, guidance=config.guidance))
        return stitched_dataset(
            policy, model, data, run, report, start=config.start, slots=config.slots, owner=self.name
        )

    def new_rows(
        self, values: NDArray[np.float32], lengths: NDArray[np.int64], choices: np.random.Generator
    ) -> NDArray[np.bool_]:
        """All but the first."""
        return all_but_first(values.shape)

    def regenerate(self, source: SourceWindows, sampling: Sampling) -> Generated:
        """Windows that begin with the source's first row (MASTARS, App. B: joint trajectory generation)."""
        x = sampling.model.sample(
            Known.first_row(source.x[:, 0], source.x.shape[1]),
            target=self.config.target,
            noise=sampling.noise,
            sampler=sampling.sampler,
            guidance=self.config.guidance,
        )
        lengths = np.full(len(x), x.shape[1] - 1, dtype=np.int64)
        return Generated(x=x, new=all_but_first(x.shape[:3]), lengths=lengths)
