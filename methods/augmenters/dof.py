"""`dof`: the generation component of DoF, each agent diffused on its own (DoF, Li et al. 2025; MASTARS, App. E)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from methods.base import require
from methods.diffusion.known import Known
from methods.diffusion.settings import EMISSION_HEADS, SegmentSettings
from methods.synthesis.segment_augmenter import (
    GENERATION_FIELDS,
    Generated,
    Sampling,
    SegmentAugmenter,
    SegmentConfig,
    SourceWindows,
    all_but_first,
)
from tasks.spec import TaskSpec

_LITERAL_DROPOUT = 0.25  # of the unconditional branch, as DoF's repository samples


@dataclass(frozen=True, slots=True, kw_only=True)
class DoFConfig(SegmentConfig):
    """DoF-Trajectory with windows of 8 rows and no history, as MASTARS runs it (App. E)."""

    target: float = 0.9  # on spread, 1.0 on SMAC; DoF's repository, configs
    updates: int = 100_000  # on MPE and 3m, 500,000 on SMACv2; DoF's repository, configs
    factorisation: str = "concat"  # or "wconcat": learned weights of the agents; DoF's repository, configs
    literal_uncond: bool = False  # True: the slip in DoF's sampler, which drops the condition at random only

    def __post_init__(self) -> None:
        super(DoFConfig, self).__post_init__()  # the bare form does not know a class with slots
        kind = self.factorisation
        require(kind in ("concat", "wconcat"), "dof", f"factorisation={kind}", "concat or wconcat")


class DoF(SegmentAugmenter[DoFConfig]):
    """Joint windows from per-agent noise estimates: the U-Net has no attention, and all agents share its weights.

    `concat`: ε = [ε_1 .. ε_N]. `wconcat`: ε_i w_i / Σ_j w_j with learned w. Every agent's first row is a real one;
    the rest is generated, and windows pass the same filter as MASTARS'.
    """

    Config = DoFConfig
    version = 2
    name: ClassVar[str] = "dof"
    generation_fields: ClassVar[frozenset[str]] = GENERATION_FIELDS | {"literal_uncond"}

    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """Without attention."""
        shared = self.shared_settings((*EMISSION_HEADS, "dynamics"))
        return replace(shared, attention=False, wconcat=self.config.factorisation == "wconcat")

    def new_rows(
        self, values: NDArray[np.float32], lengths: NDArray[np.int64], choices: np.random.Generator
    ) -> NDArray[np.bool_]:
        """All but the first of every agent."""
        return all_but_first(values.shape)

    def regenerate(self, source: SourceWindows, sampling: Sampling) -> Generated:
        """Windows that begin with the source's first row."""
        batch, horizon = source.x.shape[:2]
        x = sampling.model.sample(
            Known.first_row(source.x[:, 0], horizon),
            target=self.config.target,
            noise=sampling.noise,
            sampler=sampling.sampler,
            guidance=self.config.guidance,
            null_dropout=_LITERAL_DROPOUT if self.config.literal_uncond else 1.0,
        )
        return Generated(x=x, new=all_but_first(x.shape[:3]), lengths=np.full(batch, horizon - 1, dtype=np.int64))
