"""`mastars-*`: agents regenerated one after another by inpainting, after their subgoals (MASTARS, Sec. 3, Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import require
from methods.diffusion.known import ClampConditioning, Conditioning, Known, RepaintConditioning
from methods.diffusion.settings import EMISSION_HEADS, SegmentSettings
from methods.synthesis.segment_augmenter import (
    GENERATION_FIELDS,
    Generated,
    Sampling,
    SegmentAugmenter,
    SegmentConfig,
    SourceWindows,
)
from methods.synthesis.subgoals import ORDERS, generation_order, regenerated_rows, subgoals
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MASTARSConfig(SegmentConfig):
    """Partial, sequential generation of real windows."""

    order: str = "lov"  # lov (MASTARS, Eq. 7), sg (Eq. 8), reverse or random (Sec. 4.6)
    subgoal: bool = True  # False: everything after the first row is new (Sec. 4.4)
    sequential: bool = True  # False: all agents in one pass (Sec. 4.4)
    inpainting: bool = True  # False: agents are sampled from their first rows alone, and cut in (inferred)
    keep_unchanged: bool = True  # return windows in which every agent keeps all (repository), with the model's actions
    value_noise: float = 0.0  # sigma; values are multiplied by U[1 - sigma, 1 + sigma] (Sec. 4.5)
    known_level: str = "paper"  # noise of pasted values: "paper" (Eq. 5c) or "repaint" (Lugmayr et al. 2022)
    jump_length: int = 10  # of a resampling jump; RePaint
    resamples: int = 1  # 1: none, as MASTARS' repository; RePaint has 10
    state_mode: str = "head"  # global state: a "head" predicts it (inferred), or "append" it to every observation
    value_gamma: float = 0.99  # Eq. 12
    value_literal: bool = False  # True: gradients through the target, no end of episodes (repository)

    def __post_init__(self) -> None:
        super(MASTARSConfig, self).__post_init__()  # the bare form does not know a class with slots
        require(self.order in ORDERS, "mastars", f"order={self.order}", ", ".join(ORDERS))
        require(0 <= self.value_noise <= 1, "mastars", f"value_noise={self.value_noise}", "a number in [0, 1]")
        require(self.state_mode in ("append", "head"), "mastars", f"state_mode={self.state_mode}", "append or head")
        self.conditioning()

    def conditioning(self) -> Conditioning:
        """How known rows hold the sampler."""
        if not self.inpainting:
            return ClampConditioning()
        return RepaintConditioning(level=self.known_level, jump_length=self.jump_length, resamples=self.resamples)


class MASTARS(SegmentAugmenter[MASTARSConfig]):
    """Real windows whose agents keep what leads to their best observation and get a new future from there on.

    Agents are generated in turn, each given all that is fixed by then: kept parts, agents already new, and the
    originals of those still to come. Rows past the end of the source's episode are not returned.
    """

    Config = MASTARSConfig
    version = 2
    name: ClassVar[str] = "mastars"
    generation_fields: ClassVar[frozenset[str]] = GENERATION_FIELDS | {
        "order",
        "subgoal",
        "sequential",
        "inpainting",
        "keep_unchanged",
        "value_noise",
        "known_level",
        "jump_length",
        "resamples",
    }

    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """MADiff's model, with a value."""
        append = self.config.state_mode == "append" and spec.state_dim is not None
        return replace(
            self.shared_settings((*EMISSION_HEADS, "dynamics", "value")),
            append_state=append,
            value_gamma=self.config.value_gamma,
            value_literal=self.config.value_literal,
        )

    @property
    def keep_unchanged(self) -> bool:
        """As the config says."""
        return self.config.keep_unchanged

    def new_rows(
        self, values: NDArray[np.float32], lengths: NDArray[np.int64], choices: np.random.Generator
    ) -> NDArray[np.bool_]:
        """What lies after the subgoals."""
        return regenerated_rows(self._goals(values, lengths), lengths, values.shape[1])

    def regenerate(self, source: SourceWindows, sampling: Sampling) -> Generated:
        """Algorithm 1 on a batch; values, subgoals and order are those of the source.

        The algorithm takes the argmax again before each turn, on the partly new window: an agent's own rows are
        still the source's then, so it is the same.
        """
        with torch.no_grad():
            values = sampling.model.value(source.x).cpu().numpy()  # (B, H, N)
        values = self._perturbed(values, sampling.choices)
        goals = self._goals(values, source.lengths)
        new = regenerated_rows(goals, source.lengths, values.shape[1])  # (B, H, N)
        x = source.x
        if not self.config.sequential:
            x = self._inpainted(x, new, sampling)
        else:
            order = generation_order(values, goals, self.config.order, sampling.choices)
            for turn in range(order.shape[1]):
                theirs = np.arange(new.shape[2]) == order[:, turn, None]  # (B, N)
                x = self._inpainted(x, new & theirs[:, None], sampling)
        return Generated(x=x, new=new, lengths=source.lengths)

    def _inpainted(self, x: Tensor, unknown: NDArray[np.bool_], sampling: Sampling) -> Tensor:
        """(B, H, N, D') with the unknown rows (B, H, N) sampled anew; windows without one are not sampled."""
        windows = torch.from_numpy(np.flatnonzero(unknown.any(axis=(1, 2)))).to(x.device)
        if not len(windows):
            return x
        old, mask = x[windows], torch.from_numpy(unknown).to(x.device)[windows]
        known = Known(old, ~mask) if self.config.inpainting else Known.first_row(old[:, 0], old.shape[1])
        sampled = sampling.model.sample(
            known,
            target=self.config.target,
            noise=sampling.noise,
            sampler=sampling.sampler,
            guidance=self.config.guidance,
            conditioning=self.config.conditioning(),
        )
        x = x.clone()
        x[windows] = torch.where(mask[..., None], sampled, old)
        return x

    def _perturbed(self, values: NDArray[np.float32], choices: np.random.Generator) -> NDArray[np.float32]:
        """Values with the relative noise of the sensitivity study (Sec. 4.5)."""
        sigma = self.config.value_noise
        if sigma == 0:
            return values
        return values * choices.uniform(1 - sigma, 1 + sigma, size=values.shape).astype(np.float32)

    def _goals(self, values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        goals = subgoals(values, lengths)
        return goals if self.config.subgoal else np.zeros_like(goals)
