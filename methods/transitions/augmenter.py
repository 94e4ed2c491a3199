"""What augmenters with a model of single transitions share: fitting replicas together, streamed generation."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import Arrays, Run
from methods.data.windows import require_finite
from methods.diffusion.sampling import NoiseSource, numpy_noise
from methods.journal import Journal
from methods.networks.precision import fast_matmul
from methods.synthesis.fitted import FittedAugmenter
from methods.transitions.chunks import Keeper
from methods.transitions.config import (
    TRANSITION_GENERATION_FIELDS,
    TRANSITION_TINY,
    TransitionConfig,
    head_settings,
    within,
)
from methods.transitions.fit_data import FitData, fit_data
from methods.transitions.model import TransitionModel
from methods.transitions.rows import fit_row_heads
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import Objective, Trained, TrainingPlan, load_weights, train
from methods.transitions.writer import TransitionWriter
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_JUDGED = 2_048  # held-out transitions, drawn with replacement
_REPORT_SECONDS = 1.0


ConfigT = TypeVar("ConfigT", bound=TransitionConfig)


class TransitionAugmenter(FittedAugmenter[ConfigT, TransitionModel]):
    """An augmenter around one `TransitionModel`."""

    compute: ClassVar[str] = "transition"
    generation_fields: ClassVar[frozenset[str]] = TRANSITION_GENERATION_FIELDS
    tiny_params: ClassVar[Mapping[str, Any]] = TRANSITION_TINY

    def __init__(self, config: ConfigT | None = None) -> None:
        super().__init__(config)
        self._told: dict[str, Any] = {}

    @property
    def returns_transitions(self) -> bool:
        """It does."""
        return True

    # -- what a method says ----------------------------------------------------------------------------------------

    @property
    def joint(self) -> bool:
        """Whether a token is that of the whole team."""
        return False

    @property
    def apart(self) -> bool:
        """Whether each token has a network, and normalising statistics, of its own."""
        return False

    @abstractmethod
    def build(self, layout: TokenLayout, width: int, generators: Sequence[np.random.Generator]) -> nn.ModuleDict:
        """The networks, R replicas of each, by name; `main` is what `objective` trains."""

    @abstractmethod
    def plan(self, n_steps: int) -> TrainingPlan:
        """Of the main network, as the paper has it for a dataset of so many transitions."""

    @abstractmethod
    def objective(self, module: nn.ModuleDict, given: FitData, batch_size: int, *, judging: bool = False) -> Objective:
        """What is trained; `judging`: without what is random in training alone, e.g. dropout."""

    @abstractmethod
    def draw(
        self, model: TransitionModel, run: Run, count: int, noise: NoiseSource, after: Callable[[float], None]
    ) -> Tensor:
        """(count, T, F) normalised tokens; `after` receives the share that is done."""

    def further(
        self, module: nn.ModuleDict, given: FitData, plan: TrainingPlan, run: Run, journal: Journal
    ) -> Mapping[str, Trained]:
        """Other networks of `build`, trained by name after the main one, for `plan.updates` each."""
        return {}

    def further_stages(self) -> int:
        """How many those are."""
        return 0

    def judge(self, model: TransitionModel, given: FitData, generator: np.random.Generator) -> Mapping[str, Any]:
        """Further numbers for the diagnosis of one replica."""
        return {}

    def sampler_told(self, run: Run) -> Mapping[str, Any]:
        """For the diagnosis, how tokens are drawn."""
        return {}

    # -- fitting ---------------------------------------------------------------------------------------------------

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """All replicas in one program. Data without episodes teach nothing."""
        for member in members:
            member.forget()
        if not data.n_steps:
            return
        if run.device != "cpu":
            models = members[0]._fit(data, run, {"matmul": torch.get_float32_matmul_precision()})
        else:
            with fast_matmul() as precision:
                models = members[0]._fit(data, run, precision)
        for member, model in zip(members, models, strict=True):
            member._model = model

    def _fit(self, data: OfflineDataset, run: Run, precision: Mapping[str, Any]) -> list[TransitionModel]:
        began = time.monotonic()
        require_finite(data)
        plan, width = within(self.plan(data.n_steps), run), run.budget.transition.width or self.config.width
        heads = head_settings(self.config, run)
        before = plan.updates * (1 + self.further_stages())
        journal = Journal(run, before + heads.updates)
        journal.report(0, "preparing the data", now=True)
        given = fit_data(self.config, data, run, self.name, joint=self.joint, apart=self.apart)
        replicas = range(len(run.seeds))
        module = self.build(given.layout, width, [run.generator(f"{self.name}/weights", r) for r in replicas])
        module.to(run.device)
        preparing = time.monotonic() - began
        main = train(self.objective(module, given, plan.batch_size), plan, run, journal, stage=f"{self.name}/denoiser")
        trained = {"main": main, **self.further(module, given, plan, run, journal)}
        settings = heads.segment_settings(append_state=self.config.append_state, before=before)
        rows, of_heads = fit_row_heads(settings, data, given.splits, run, journal)

        models = []
        for r in replicas:
            alone = self.build(given.layout, width, [np.random.default_rng(0)])
            for name, result in trained.items():
                load_weights(alone[name], result.of_replica(r, _copies(result, len(replicas))))
            model = TransitionModel(
                layout=given.layout,
                normaliser=given.normaliser,
                module=alone.to(run.device),
                width=width,
                rows=rows[r],
            )
            model.diagnosis.update(
                {
                    **main.told(r),
                    **self._judged(model, given.alone(r), run.generator(f"{self.name}/judging", r)),
                    **{name: result.told(r) for name, result in trained.items() if name != "main"},
                    "precision": dict(precision),
                    "diverged": not all(p.isfinite().all() for p in alone.parameters()),
                    "transitions": len(given.taught[r]),
                    "heldout_transitions": len(given.judged[r]),
                    "compute": {
                        "width": width,
                        "updates": plan.updates,
                        "batch_size": plan.batch_size,
                        "learning_rate": plan.learning_rate,
                        "parameters": sum(p.numel() for p in alone["main"].parameters()),
                    },
                    "seconds": {
                        "preparing": round(preparing, 3),
                        **{name: round(result.seconds, 3) for name, result in trained.items()},
                    },
                }
            )
            if of_heads is not None:
                model.diagnosis["seconds"]["heads"] = round(of_heads.seconds, 3)
                model.diagnosis["heads"] = {
                    name: {"training": _finite(of_heads.training[name][r]), "heldout": _finite(loss[r])}
                    for name, loss in of_heads.held_out.items()
                }
            models.append(model)
        return models

    @torch.no_grad()
    def _judged(self, model: TransitionModel, given: FitData, generator: np.random.Generator) -> dict[str, Any]:
        """The loss on held-out transitions, with rows and noise that a seed fixes; and what else the method tells."""
        objective = self.objective(model.module, given, _JUDGED, judging=True)
        drawn = (torch.from_numpy(array)[None].to(model.device) for array in objective.draw(generator, 0))
        loss = float(objective.losses(*drawn).mean())
        return {"heldout_loss": _finite(loss), **self.judge(model, given, generator)}

    # -- storing ---------------------------------------------------------------------------------------------------

    def restored(self, arrays: Arrays, spec: TaskSpec, device: str) -> TransitionModel:
        """See `FittedAugmenter`."""

        def build(layout: TokenLayout, width: int) -> nn.ModuleDict:
            return self.build(layout, width, [np.random.default_rng(0)])

        return TransitionModel.from_arrays(arrays, spec, device, build)

    def generation_told(self) -> Mapping[str, Any] | None:
        """What it noted."""
        return dict(self._told) or None

    def forget_generation(self) -> None:
        """There is none."""
        self._told = {}

    # -- generating ------------------------------------------------------------------------------------------------

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Transitions, each an episode of one step, chunk by chunk; every chunk has a random stream of its own.

        Memory is that of a chunk, beyond a limit or where the run has checkpoint and folder: chunks are then written to
        files. There, a generation that was killed goes on behind its last whole chunk and ends in the same data.
        """
        amount = self.config.amount if run.budget.amount is None else run.budget.amount
        self._told = {}
        if not amount or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        began, model = time.monotonic(), self.model_on(run.device)
        with fast_matmul() if run.device == "cpu" else contextlib.nullcontext():
            result = self.generate_transitions(model, data, run, amount)
        self._told |= {
            "transitions": amount,
            "sampler": dict(self.sampler_told(run)),
            "seconds": round(time.monotonic() - began, 3),
        }
        return result

    def generate_transitions(
        self, model: TransitionModel, data: OfflineDataset, run: Run, amount: int
    ) -> OfflineDataset:
        """As many as are wanted, as they are drawn."""
        writer = TransitionWriter(data.spec, amount, self.keeper(run, amount))
        for tokens in self.chunks(model, run, amount, writer.done):
            writer.add(model.emit(tokens, data))
        return writer.dataset()

    def keeper(self, run: Run, amount: int) -> Keeper | None:
        """Of whole chunks, to go on after a kill; None where one chunk is all there is."""
        return Keeper(run) if amount > self.config.rows_at_once else None

    def chunks(self, model: TransitionModel, run: Run, amount: int, done: int = 0) -> Iterator[Tensor]:
        """(M, T, F) normalised tokens of `rows_at_once` transitions at a time, until there are `amount`.

        Args:
            model: on the device of the run.
            run: one seed.
            amount: transitions.
            done: how many there are already, whole chunks: the next one is what it would have been anyway.

        Raises:
            MethodError: if the model has diverged.
            TimeoutError: after the deadline.
        """
        reported = 0.0
        for start in range(done, amount, self.config.rows_at_once):
            index = start // self.config.rows_at_once
            count = min(self.config.rows_at_once, amount - start)

            def after(share: float, start: int = start, count: int = count) -> None:
                nonlocal reported
                if share == 1.0 or time.monotonic() - reported >= _REPORT_SECONDS:
                    run.report(start + int(share * count), amount, f"{self.name}: transitions")
                    reported = time.monotonic()

            noise = numpy_noise(run.generator(f"{self.name}/sampling/{index}"), run.device)
            tokens = self.draw(model, run, count, noise, after)
            model.require_finite(tokens, self.name)
            yield tokens


def _copies(trained: Trained, replicas: int) -> int:
    """Networks of one replica."""
    return len(next(iter(trained.weights.values()))) // replicas


def _finite(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None
