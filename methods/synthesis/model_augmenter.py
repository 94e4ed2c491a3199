"""What augmenters around one fitted diffusion model share: its config, fitting replicas together, storing it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from methods.base import Arrays, Run
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.model import SegmentModel
from methods.diffusion.reconstruction import reconstruction_errors
from methods.diffusion.samplers import Sampler, make_sampler, sampler_within
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from methods.networks.temporal_unet import UNetConfig
from methods.synthesis.fitted import FittedAugmenter
from methods.synthesis.report import GenerationReport
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import SegmentBatch
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A model of windows and how it is sampled."""

    horizon: int = 8  # H, observation rows; MADiTS, Tab. 2; MASTARS, App. E
    diffusion_steps: int = 200  # K; MADiTS, Tab. 2; MASTARS, App. E
    width: int = 128  # MADiff's repository, exp_specs
    normaliser: str = "cdf"  # MADiff's repository
    pad_windows: bool = True  # windows may start near an episode's end; MADiff's repository
    updates: int = 1_000_000  # of the denoiser; MADiTS, Tab. 2
    batch_size: int = 32  # windows; MADiTS, Tab. 2
    learning_rate: float = 2e-4  # MADiTS, Tab. 2
    use_ema: bool = True  # sample with the averaged weights; MADiff's repository
    condition_dropout: float = 0.25  # MADiTS, Tab. 2; MADiff's repository
    gamma: float = 0.99  # of the return that conditions; MADiff's repository
    returns_scale: float | None = None  # R_s; None: the largest episode return under gamma (inferred)
    head_hidden: int = 256  # MADiTS, App. E; MASTARS, App. E
    head_updates: int = 100_000  # of the auxiliary networks (inferred)

    target: float = 1.0  # the condition in units of R_s; MADiTS, Sec. 4.3; MASTARS' repository
    guidance: float = 1.2  # g of eps_u + g (eps_c - eps_u); MADiTS, Tab. 2, as MADiff's repository means it
    sampler: str = "ddpm"  # Ho et al. 2020; also ddim, dpmpp_2m
    sampling_steps: int | None = None  # None: all K; MADiTS, Tab. 2; MASTARS, App. E

    def __post_init__(self) -> None:
        SegmentSettings(**named_settings(self))
        UNetConfig(horizon=self.horizon, features=1, width=self.width)
        make_sampler(self.sampler, CosineSchedule(self.diffusion_steps), self.sampling_steps)


def named_settings(config: object) -> dict[str, Any]:
    """The settings of a model that a config names."""
    return {f.name: getattr(config, f.name) for f in fields(SegmentSettings) if hasattr(config, f.name)}


MODEL_GENERATION_FIELDS = frozenset(("target", "guidance", "sampler", "sampling_steps"))
MODEL_TINY: Mapping[str, Any] = {
    "width": 16,
    "diffusion_steps": 4,
    "updates": 2,
    "batch_size": 4,
    "head_hidden": 8,
    "head_updates": 2,
    "sampling_steps": 2,
}
ConfigT = TypeVar("ConfigT", bound=ModelConfig)


class ModelAugmenter(FittedAugmenter[ConfigT, SegmentModel]):
    """An augmenter around one `SegmentModel`."""

    generation_fields: ClassVar[frozenset[str]] = MODEL_GENERATION_FIELDS
    tiny_params: ClassVar[Mapping[str, Any]] = MODEL_TINY

    def __init__(self, config: ConfigT | None = None) -> None:
        super().__init__(config)
        self._report: GenerationReport | None = None

    @abstractmethod
    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """The model to fit, before the budget: `shared_settings` with what is the method's own."""

    def shared_settings(self, heads: tuple[str, ...]) -> SegmentSettings:
        """Every setting of the model that the config names, with these auxiliary networks."""
        return SegmentSettings(**named_settings(self.config), heads=heads)

    def sampler(self, run: Run) -> Sampler:
        """The config's sampler, or the one that the protocol fixes for every method."""
        config = self.config
        schedule = CosineSchedule(config.diffusion_steps)
        return sampler_within(run.budget.diffusion, schedule, config.sampler, config.sampling_steps)

    # -- fitting -------------------------------------------------------------------------------------------------

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """All replicas in one program. Data without episodes teach nothing."""
        for member in members:
            member.forget()
        if data.n_steps:
            settings = members[0].settings(data.spec).within(run.budget.diffusion)
            models = fit_segment_models(settings, data, run)
            for r, (member, model) in enumerate(zip(members, models, strict=True)):
                member._model = model
                member.after_fit(model, data, run, r)

    def after_fit(self, model: SegmentModel, data: OfflineDataset, run: Run, replica: int) -> None:
        """What else is measured once the model is there."""

    def restored(self, arrays: Arrays, spec: TaskSpec, device: str) -> SegmentModel:
        """See `FittedAugmenter`."""
        return SegmentModel.from_arrays(arrays, spec, device)

    def generation_told(self) -> Mapping[str, Any] | None:
        """The report."""
        return None if self._report is None else self._report.to_json()

    def forget_generation(self) -> None:
        """There is none."""
        self._report = None

    def reconstruction_errors(self, windows: SegmentBatch) -> NDArray[np.float32] | None:
        """(B,) of windows as long as the model's; None where nothing was fitted."""
        return None if self._model is None else reconstruction_errors(self._model, windows)
