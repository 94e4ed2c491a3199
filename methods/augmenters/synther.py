"""`synther`: transitions up-sampled by diffusion (Lu et al. 2024), each agent by itself (MA-SynthER of INS, App. J)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from methods.networks.token_groups import TokenGroups
from methods.transitions.denoising import DenoisingObjective, GroupedMLP
from methods.transitions.diffusing import DiffusingAugmenter, DiffusingConfig
from methods.transitions.fit_data import FitData
from methods.transitions.modes import AgentModes, require_mode
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import Objective, TrainingPlan

_MANY = 800_000  # transitions from which the larger batch is used; SynthER's repository


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthERConfig(DiffusingConfig):
    """SynthER's numbers, which MA-SynthER keeps (INS, App. J)."""

    width: int = 2048  # SynthER's repository (1,024 for some datasets)
    updates: int = 100_000  # SynthER's repository, resmlp_denoiser.gin
    batch_size: int | None = None  # None: 256 below 800,000 transitions, else 1,024; SynthER's repository
    learning_rate: float = 3e-4  # SynthER's repository
    agent_mode: str = (
        "per_agent"  # a model for each (INS, App. J); "shared" with an index, or "joint" (inferred options)
    )

    def __post_init__(self) -> None:
        super(SynthERConfig, self).__post_init__()  # the bare form does not know a class with slots
        require_mode(self.agent_mode, "synther")


class SynthER(AgentModes, DiffusingAugmenter[SynthERConfig]):
    """A residual perceptron denoises tokens (o, a, r, o', e).

    `per_agent`: N models; the j-th draws of all agents make the j-th joint transition, so that agents do not fit
    together (the baseline of INS). `shared`: one model of all agents' tokens, told whose it is. `joint`: one model of
    whole joint transitions, which INS does not report. INS calls the network an MLP-Mixer, and says that it is
    SynthER's, which is this one.
    """

    Config = SynthERConfig
    version = 1
    name: ClassVar[str] = "synther"

    def build(self, layout: TokenLayout, width: int, generators: Sequence[np.random.Generator]) -> nn.ModuleDict:
        """The denoiser."""
        return nn.ModuleDict({"main": GroupedMLP(self._groups(layout), layout.features, width, generators)})

    def plan(self, n_steps: int) -> TrainingPlan:
        """AdamW without decay, which is Adam; cosine to 0."""
        config = self.config
        return TrainingPlan(
            updates=config.updates,
            batch_size=config.batch_size or (256 if n_steps < _MANY else 1024),
            learning_rate=config.learning_rate,
            betas=(0.9, 0.99),  # SynthER's repository
            rate="cosine",  # same
            max_norm=1.0,  # same
            ema_decay=config.ema_decay,
            ema_every=config.ema_every,
        )

    def objective(self, module: nn.ModuleDict, given: FitData, batch_size: int, *, judging: bool = False) -> Objective:
        """A shared model has as many rows an update as each of the others: N of one joint transition (inferred)."""
        groups = self._groups(given.layout)
        rows = batch_size if groups.apart else max(1, batch_size // groups.tokens)
        return DenoisingObjective(module["main"], groups, given.tokens, given.taught, rows, one_level=False)

    def _groups(self, layout: TokenLayout) -> TokenGroups:
        return TokenGroups(layout.tokens, apart=self.apart, ids=not self.apart)
