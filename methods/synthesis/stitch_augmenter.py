"""What augmenters that stitch episodes share: their config, fitting one model, and running the engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from torch import Tensor

from methods.base import Arrays, Augmenter, Run, require
from methods.diffusion.model import SegmentModel, fit_segment_models
from methods.diffusion.samplers import Sampler
from methods.diffusion.settings import SegmentSettings
from methods.synthesis.emission import GeneratedRows, emit_episodes
from methods.synthesis.model_policy import sampler_within
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_policy import StitchPolicy
from methods.synthesis.stitching import Goal, Stitcher
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

STARTS = ("first", "any")
METRICS = ("sse", "l2", "mse")


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchConfig:
    """A model of windows, how it is sampled, which transitions are valid, and how episodes are begun and given up."""

    horizon: int = 8  # H, observation rows; MADiTS, Tab. 2
    diffusion_steps: int = 200  # K; MADiTS, Tab. 2
    width: int = 128  # MADiff's repository, exp_specs
    attention: bool = True  # between agents; MADiff, Sec. 3.2
    normaliser: str = "cdf"  # MADiff's repository
    pad_windows: bool = True  # windows may start near an episode's end; MADiff's repository
    updates: int = 1_000_000  # of the denoiser; MADiTS, Tab. 2
    batch_size: int = 32  # windows; MADiTS, Tab. 2
    learning_rate: float = 2e-4  # MADiTS, Tab. 2
    use_ema: bool = True  # sample with the averaged weights; MADiff's repository
    condition_dropout: float = 0.25  # MADiTS, Tab. 2
    returns_scale: float | None = None  # R_s; None: the largest episode return (inferred), MADiTS, Tab. 3 by task
    head_hidden: int = 256  # MADiTS, App. E
    head_updates: int = 100_000  # of the auxiliary networks (inferred)

    target: float = 1.0  # the condition in units of R_s; MADiTS, Sec. 4.3
    guidance: float = 1.2  # g of eps_u + g (eps_c - eps_u); MADiTS, Tab. 2, as MADiff's repository means it
    sampler: str = "ddpm"  # Ho et al. 2020; also ddim, dpmpp_2m
    sampling_steps: int = 0  # 0: all K; MADiTS, Tab. 2
    start: str = "first"  # observations that episodes begin with: "first" of an episode (inferred), or "any" row
    slots: int = 1024  # episodes stitched at once; MADiTS, Tab. 2 has 256; decides the speed alone

    def __post_init__(self) -> None:
        owner = type(self).__name__
        require(self.start in STARTS, owner, f"start={self.start}", " or ".join(STARTS))
        require(self.slots >= 1, owner, f"slots={self.slots}", "1 or more")
        steps = f"sampling_steps={self.sampling_steps}"
        require(0 <= self.sampling_steps <= self.diffusion_steps, owner, steps, f"0..{self.diffusion_steps}")


STITCH_GENERATION_FIELDS = frozenset(("target", "guidance", "sampler", "sampling_steps", "start", "slots"))
STITCH_TINY: dict[str, Any] = {
    "width": 8,
    "diffusion_steps": 4,
    "updates": 2,
    "batch_size": 4,
    "head_hidden": 8,
    "head_updates": 2,
    "sampling_steps": 2,
    "slots": 16,
}
ConfigT = TypeVar("ConfigT", bound=StitchConfig)


class StitchAugmenter(Augmenter[ConfigT]):
    """Episodes stitched out of windows of one fitted model.

    Attributes:
        name: for messages and random streams.
    """

    trains: ClassVar[bool] = True
    generation_fields: ClassVar[frozenset[str]] = STITCH_GENERATION_FIELDS
    name: ClassVar[str]

    def __init__(self, config: ConfigT | None = None) -> None:
        super().__init__(config)
        self._model: SegmentModel | None = None
        self._report: GenerationReport | None = None

    @abstractmethod
    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """The model to fit, before the budget."""

    @abstractmethod
    def policy(self, model: SegmentModel, data: OfflineDataset, sampler: Sampler) -> StitchPolicy:
        """How windows are drawn and judged."""

    @abstractmethod
    def new_report(self, model: SegmentModel) -> GenerationReport:
        """An empty report, with the threshold that `policy` applies."""

    @classmethod
    def tiny(cls, params: Mapping[str, Any] | None = None) -> Self:
        """A network of width 8, trained and sampled for a moment."""
        return cls.from_params({**STITCH_TINY, **(params or {})})

    @property
    def model(self) -> SegmentModel:
        """What was fitted.

        Raises:
            UsageError: if nothing was.
        """
        if self._model is None:
            raise UsageError(f"{self.name}: nothing was fitted. Call `fit` or `load_state` first.")
        return self._model

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Trains the denoiser and its heads."""
        self.fit_together([self], data, run)

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """All replicas in one program. Data without episodes teach nothing."""
        for member in members:
            member._model = member._report = None
        if data.n_steps:
            settings = members[0].settings(data.spec).within(run.budget.diffusion)
            for member, model in zip(members, fit_segment_models(settings, data, run), strict=True):
                member._model = model

    def state(self) -> Arrays:
        """The model."""
        return {} if self._model is None else self._model.arrays()

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        """Takes it back, on the CPU; `generate` moves it to the device of its run."""
        self._report = None
        self._model = SegmentModel.from_arrays(arrays, spec, "cpu") if arrays else None

    def diagnosis(self) -> Mapping[str, Any]:
        """What the model tells of its fit, and under `generation` the report of the last `generate`."""
        told = {} if self._model is None else dict(self._model.diagnosis)
        return told if self._report is None else {**told, "generation": self._report.to_json()}

    # -- generating ----------------------------------------------------------------------------------------------

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Stitched episodes; without an amount as many as the data have (MADiTS, r_aug = 1:1)."""
        amount = run.budget.amount
        if amount == 0 or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        if self.model.device != run.device:
            self._model = SegmentModel.from_arrays(self.model.arrays(), data.spec, run.device)
        config, model, budget = self.config, self.model, run.budget.diffusion
        sampler = sampler_within(budget, model.settings.diffusion_steps, config.sampler, config.sampling_steps)
        self._report = report = self.new_report(model)
        report.sampler = {"name": sampler.name, "steps": len(sampler)}
        return stitched_dataset(
            self.policy(model, data, sampler),
            model,
            data,
            run,
            report,
            start=config.start,
            slots=config.slots,
            owner=self.name,
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


def model_fields(config: StitchConfig) -> dict[str, Any]:
    """The fields of a config that are settings of the model, by name."""
    known = {field.name for field in fields(SegmentSettings)}
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name in known}
