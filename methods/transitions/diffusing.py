"""The augmenters of transitions whose model is an EDM denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from methods.base import Run
from methods.diffusion.edm import HeunSampler, make_edm_sampler
from methods.diffusion.sampling import NoiseSource
from methods.transitions.augmenter import TransitionAugmenter
from methods.transitions.config import TRANSITION_GENERATION_FIELDS, TRANSITION_TINY, TransitionConfig
from methods.transitions.denoising import denoiser_of
from methods.transitions.model import TransitionModel


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusingConfig(TransitionConfig):
    """A denoiser and how it is sampled."""

    ema_decay: float = 0.995  # of the weights that are sampled with; SynthER's repository
    ema_every: int = 10  # updates; same
    sampler: str = "edm_heun"  # stochastic (INS, Tab. A5), or "edm_heun_det"
    sampling_steps: int | None = None  # None: 128 (INS, Tab. A5), deterministic 32 (inferred)

    def __post_init__(self) -> None:
        super(DiffusingConfig, self).__post_init__()  # the bare form does not know a class with slots
        make_edm_sampler(self.sampler, self.sampling_steps)


ConfigT = TypeVar("ConfigT", bound=DiffusingConfig)


class DiffusingAugmenter(TransitionAugmenter[ConfigT]):
    """Tokens from noise by the config's sampler, in as many steps as the protocol fixes for every method."""

    generation_fields: ClassVar[frozenset[str]] = TRANSITION_GENERATION_FIELDS | {"sampler", "sampling_steps"}
    tiny_params: ClassVar[Mapping[str, Any]] = {**TRANSITION_TINY, "sampling_steps": 3}

    def sampler(self, run: Run) -> HeunSampler:
        """The config's sampler within the budget."""
        budget, config = run.budget.transition, self.config
        return make_edm_sampler(budget.sampler or config.sampler, budget.sampling_steps or config.sampling_steps)

    def sampler_told(self, run: Run) -> Mapping[str, Any]:
        """Name, steps and network evaluations."""
        sampler = self.sampler(run)
        return {"name": sampler.name, "steps": len(sampler.gammas), "evaluations": sampler.evaluations}

    def draw(
        self, model: TransitionModel, run: Run, count: int, noise: NoiseSource, after: Callable[[float], None]
    ) -> Tensor:
        """(count, T, F) by the sampler."""
        sampler, layout = self.sampler(run), model.layout
        steps = len(sampler.gammas)
        return sampler.sample(
            denoiser_of(model.module["main"]),
            (count, layout.tokens, layout.features),
            noise,
            lambda done: after(done / steps),
        )
