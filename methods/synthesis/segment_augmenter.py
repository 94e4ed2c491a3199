"""What augmenters that return filtered segments share: fitting, calibrating the filter, proposing, collecting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays, Run, require
from methods.data.windows import WindowIndex, raw_windows
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import Sampler
from methods.diffusion.sampling import NoiseSource, numpy_noise
from methods.diffusion.validity import per_agent_errors
from methods.synthesis.burial import buried
from methods.synthesis.emission import emit_episodes
from methods.synthesis.model_augmenter import MODEL_GENERATION_FIELDS, MODEL_TINY, ModelAugmenter, ModelConfig
from methods.synthesis.report import GenerationReport
from methods.synthesis.segments import Candidates, SegmentGoal, collect_segments
from methods.synthesis.window_filter import RULES, HeldOutWindows, calibrated_threshold, window_errors
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

CALIBRATIONS = ("real", "generated")
_HELD_OUT_WINDOWS = 4096  # at most so many calibrate the filter
_PILOT_WINDOWS = 256  # that calibrate it with calibrate=generated


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentConfig(ModelConfig):
    """A model of windows, how it is sampled, and which windows are kept."""

    updates: int = 200_000  # of the denoiser on MPE, 500,000 on SMAC; MASTARS, App. D.3
    batch_size: int = 64  # windows; 32, gradients of two batches added: MADiff's and MASTARS' repositories
    segments: int = 1000  # how many, where the protocol names no amount; MASTARS, App. E
    accept: str = "repo"  # the error of a window: "repo" or "mean" (MASTARS, Eq. 6); see `window_errors`
    epsilon: float | None = None  # its largest value; None: calibrated (inferred), as MASTARS tunes it by hand
    quantile: float = 0.99  # share of windows that the calibrated threshold lets pass (inferred)
    calibrate: str = "real"  # on held-out "real" windows, or on unfiltered "generated" ones (inferred)
    windows_at_once: int = 1024  # inferred; decides the speed

    def __post_init__(self) -> None:
        super(SegmentConfig, self).__post_init__()  # the bare form does not know a class with slots
        owner, number = type(self).__name__.removesuffix("Config"), isinstance(self.epsilon, float | int)
        require(self.accept in RULES, owner, f"accept={self.accept}", " or ".join(RULES))
        right = self.epsilon is None or (number and self.epsilon >= 0)
        require(right, owner, f"epsilon={self.epsilon}", "a number, 0 or more")
        require(self.calibrate in CALIBRATIONS, owner, f"calibrate={self.calibrate}", " or ".join(CALIBRATIONS))
        require(0 < self.quantile <= 1, owner, f"quantile={self.quantile}", "a number in (0, 1]")
        for name in ("segments", "windows_at_once"):
            require(getattr(self, name) >= 1, owner, f"{name}={getattr(self, name)}", "1 or more")


_OWN_FIELDS = ("segments", "accept", "epsilon", "quantile", "calibrate", "windows_at_once")
GENERATION_FIELDS = MODEL_GENERATION_FIELDS.union(_OWN_FIELDS)
ConfigT = TypeVar("ConfigT", bound=SegmentConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWindows:
    """B real windows that generation starts from.

    Attributes:
        x: (B, H, N, D') normalised; rows past the episode's end repeat its last one.
        lengths: (B,) transitions within the episode, 1..H - 1.
    """

    x: Tensor
    lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What a method samples with: model, sampler, noise, and a generator for its own random choices."""

    model: SegmentModel
    sampler: Sampler
    noise: NoiseSource
    choices: np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Windows with new rows.

    Attributes:
        x: (B, H, N, D') normalised.
        new: (B, H, N) bool, which rows are not the source's.
        lengths: (B,) how many of the transitions are wanted, 1..H - 1.
    """

    x: Tensor
    new: NDArray[np.bool_]
    lengths: NDArray[np.int64]


class SegmentAugmenter(ModelAugmenter[ConfigT]):
    """Windows generated from real ones, kept where the model's own dynamics believe them (MASTARS, Sec. 3.2)."""

    generation_fields: ClassVar[frozenset[str]] = GENERATION_FIELDS
    tiny_params: ClassVar[Mapping[str, Any]] = {**MODEL_TINY, "segments": 3, "epsilon": float("inf")}

    def __init__(self, config: ConfigT | None = None) -> None:
        super().__init__(config)
        self._held_out: HeldOutWindows | None = None

    @property
    def keep_unchanged(self) -> bool:
        """Whether windows in which nothing was regenerated are returned."""
        return True

    @abstractmethod
    def regenerate(self, source: SourceWindows, sampling: Sampling) -> Generated:
        """New windows from real ones."""

    @abstractmethod
    def new_rows(
        self, values: NDArray[np.float32], lengths: NDArray[np.int64], choices: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Which rows `regenerate` makes anew; the filter is calibrated under the same mask.

        Args:
            values: (B, H, N) V of every agent's rows, zeros where no value was learned.
            lengths: (B,) transitions within the episode.
            choices: for what is random.

        Returns:
            (B, H, N) bool.
        """

    def after_fit(self, model: SegmentModel, data: OfflineDataset, run: Run, replica: int) -> None:
        """Measures the errors of the heads on held-out windows."""
        self._held_out = _held_out_windows(model, data, run, replica)

    def state(self) -> Arrays:
        """The model, and what it says of held-out windows."""
        if self._held_out is None:
            return {}
        return {**{f"model.{key}": value for key, value in super().state().items()}, **self._held_out.arrays()}

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        """Takes both back."""
        own = {key.removeprefix("model."): value for key, value in arrays.items() if key.startswith("model.")}
        super().load_state(own, spec)
        self._held_out = HeldOutWindows.from_arrays(arrays) if arrays else None

    # -- generating ----------------------------------------------------------------------------------------------

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Accepted segments, `truncations` on their last step."""
        config, amount = self.config, run.budget.amount
        if amount == 0 or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        model, sampler = self.model_on(run.device), self.sampler(run)
        sampling = Sampling(
            model=model,
            sampler=sampler,
            noise=numpy_noise(run.generator("segments/noise"), model.device),
            choices=run.generator("segments/choices"),
        )
        self._report = report = self._new_report(model, sampler, run.generator("segments/calibration"))
        proposer = _Proposer(self, data, sampling, report, run.generator("segments/windows"))
        if config.epsilon is None and config.calibrate == "generated":
            pilot = proposer(_PILOT_WINDOWS)
            errors = pilot.errors[pilot.new_shares > 0]
            report.threshold = float(np.quantile(errors, config.quantile)) if len(errors) else report.threshold
            report.threshold_kind = "generated"
        goal = SegmentGoal(segments=config.segments) if amount is None else SegmentGoal(transitions=amount)
        rows = collect_segments(
            proposer,
            model,
            goal,
            report,
            run,
            owner=self.name,
            largest=config.windows_at_once,
            keep_unchanged=self.keep_unchanged,
        )
        with report.timed("bookkeeping"):
            return emit_episodes(model, rows, data)

    def _new_report(self, model: SegmentModel, sampler: Sampler, choices: np.random.Generator) -> GenerationReport:
        """With the filter's threshold: the config's, or the one calibrated under the method's own mask."""
        assert self._held_out is not None
        held_out, config = self._held_out, self.config
        new = self.new_rows(held_out.values, held_out.lengths, choices)
        calibrated = calibrated_threshold(
            held_out, new, rule=config.accept, features=model.features, quantile=config.quantile
        )
        return GenerationReport(
            threshold=calibrated if config.epsilon is None else config.epsilon,
            threshold_kind="calibrated" if config.epsilon is None else "fixed",
            calibrated=calibrated,
            sampler={"name": sampler.name, "steps": len(sampler)},
        )


def all_but_first(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(B, H, N) bool: new rows where the first of every agent is real."""
    new = np.ones(shape, dtype=np.bool_)
    new[:, 0] = False
    return new


class _Proposer:
    """Draws real windows, lets the method make new ones of them, and measures their errors."""

    def __init__(
        self,
        method: SegmentAugmenter[Any],
        data: OfflineDataset,
        sampling: Sampling,
        report: GenerationReport,
        choose: np.random.Generator,
    ) -> None:
        self._method, self._sampling, self._report, self._choose = method, sampling, report, choose
        self._limit = data.spec.episode_limit
        settings = sampling.model.settings
        self._index = WindowIndex(data, settings.horizon, padded=settings.pad_windows)

    def __call__(self, count: int) -> Candidates:
        model, horizon = self._sampling.model, self._index.horizon
        with self._report.timed("bookkeeping"):
            windows = self._choose.integers(len(self._index), size=count)
            raw = raw_windows(self._index, windows)
            x = model.encode(raw.observations, raw.states if model.settings.append_state else None)
            source = SourceWindows(x=x, lengths=np.minimum(self._index.left[windows], horizon - 1))
        with self._report.timed("sampling"):
            generated = self._method.regenerate(source, self._sampling)
            generated = replace(generated, x=buried(model, generated.x))
            if generated.x.is_cuda:
                torch.cuda.synchronize()
        lengths = np.minimum(generated.lengths, self._limit)
        with self._report.timed("heads"):
            sums, actions = per_agent_errors(model, generated.x, "sse")  # (B, H - 1, N), (B, H - 1, N, A)
            errors = window_errors(
                sums.cpu().numpy(),
                generated.new,
                lengths,
                rule=self._method.config.accept,
                features=model.features,
            )
        wanted = np.arange(horizon) <= lengths[:, None]  # (B, H)
        return Candidates(
            observations=generated.x,
            actions=actions,
            errors=errors,
            lengths=lengths,
            new_shares=(generated.new & wanted[..., None]).sum(axis=(1, 2)) / (wanted.sum(axis=1) * x.shape[2]),
            starts=self._index.starts[windows],
        )


def _held_out_windows(model: SegmentModel, data: OfflineDataset, run: Run, replica: int) -> HeldOutWindows:
    """Errors and values on windows of the episodes that replica was not trained on, at most 4,096 of them."""
    settings = model.settings
    index = WindowIndex(data, settings.horizon, padded=settings.pad_windows)
    windows = index.of_episodes(model.held_out)
    if not len(windows):  # none of them is as long as a window
        windows = np.arange(len(index))
    if len(windows) > _HELD_OUT_WINDOWS:
        chosen = run.generator("segments/held-out", replica).permutation(len(windows))[:_HELD_OUT_WINDOWS]
        windows = windows[np.sort(chosen)]
    raw = raw_windows(index, windows)
    with torch.no_grad():
        x = model.encode(raw.observations, raw.states if settings.append_state else None)
        errors, _ = per_agent_errors(model, x, "sse")
        values = model.value(x) if model.has("value") else x.new_zeros(x.shape[:-1])
    return HeldOutWindows(
        errors=errors.cpu().numpy(),
        values=values.cpu().numpy(),
        lengths=np.minimum(index.left[windows], settings.horizon - 1),
    )
