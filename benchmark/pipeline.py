"""The stages of a cell group, in order: the only place where task, augmenter and learner meet.

A replicate that fails at one stage becomes a record with its reason, and the others go on.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmark.artefacts import Artefact
from benchmark.diagnosis import compact
from benchmark.outcomes import Moment, failed_record, finished_record
from benchmark.plans import GroupPlan
from benchmark.provenance import Origin, now
from benchmark.quality.report import read_report
from benchmark.records import RunRecord, Status
from benchmark.stages import augmentation, datasets, evaluations, fits, policies
from benchmark.stages.context import Context, Found
from methods.base import UnsupportedError
from tasks.common.errors import AugMARLError, StorageError, UsageError, is_out_of_memory
from tasks.datasets import regimes
from tasks.datasets.card import DatasetCard, ReturnStatistics
from tasks.datasets.offline import OfflineDataset

_LOG = logging.getLogger(__name__)
_MADITS_FAMILIES = ("mpe",)  # families whose MADiTS score needs expert data; recorded once a task, in seconds

Emit = Callable[[RunRecord], None]


def run_group(plan: GroupPlan, context: Context, origin: Origin, emit: Emit) -> None:
    """Runs all replicates of a group and emits one record each, as soon as it is known.

    Raises:
        StorageError: if an artefact cannot be stored (a full disk). That says nothing about the methods, so it is
            no record: it ends the run.
    """
    group = _GroupRun(plan, context, origin, emit)
    reason = plan.unsupported()
    if reason is not None:
        group.fail(plan.group.seeds, "unsupported", "plan", reason)
        return
    waiting = group.emit_evaluated(plan.group.seeds)
    if not waiting:
        return
    with group.guard(waiting, "dataset"):
        dataset = datasets.obtain(plan.source, context)
        original = datasets.load(dataset.artefact, plan.spec)
        group.expert_data = _expert_data(plan, context)
        group.run_on(dataset, original, waiting)


def _expert_data(plan: GroupPlan, context: Context) -> ReturnStatistics | None:
    """Return statistics of the task's balanced expert data, where its MADiTS score is defined; else None."""
    if plan.spec.family not in _MADITS_FAMILIES or "expert" not in plan.task.behaviour_levels:
        return None
    protocol = plan.protocol
    try:
        source = datasets.DatasetSource(
            plan.task,
            regimes.resolve(plan.task, "exp"),
            protocol.episodes_of_dataset(plan.spec.family),
            protocol.dataset_seed,
        )
        card, _ = datasets.card_of(datasets.obtain(source, context).artefact)
    except UsageError:  # no expert is shipped for this variant
        return None
    return card.returns


@dataclass
class _GroupRun:
    """One group on its way through the stages."""

    plan: GroupPlan
    context: Context
    origin: Origin
    emit: Emit
    expert_data: ReturnStatistics | None = None
    moment: Moment = field(init=False)

    def __post_init__(self) -> None:
        self.moment = Moment(started=now(), device=self.context.device)

    def emit_evaluated(self, seeds: Iterable[int]) -> list[int]:
        """Emits the records of replicates whose evaluation is stored, and returns the others."""
        waiting = []
        for seed in seeds:
            try:
                found = self.context.store.find_intact(self.plan.evaluation_key(seed))
            except UsageError:  # the behaviour policy is missing: reported with the data, below
                found = None
            if found is None:
                waiting.append(seed)
            else:
                self._finish(seed, found, {})
        return waiting

    def run_on(self, dataset: Found, original: OfflineDataset, seeds: list[int]) -> None:
        """Stages 2 to 4 of the replicates that have no evaluation yet."""
        plan, context = self.plan, self.context
        made: dict[int, dict[str, Found]] = {}
        synthetic: dict[int, OfflineDataset | None] = {}
        fitted, failed = self._fit(original, seeds)
        for seed in (seed for seed in seeds if seed not in failed):
            with self.guard([seed], "augmented"):
                found = augmentation.obtain(plan, seed, original, fitted.get(seed), context)
                made[seed] = {"dataset": dataset}
                if found is not None:
                    made[seed] |= {"augmented": found[0]} | ({"fit": found[1]} if found[1] else {})
                synthetic[seed] = augmentation.load(found[0].artefact, original) if found else None
        if not synthetic:
            return
        with self.guard(synthetic, "policy"):
            trained = policies.obtain(plan, synthetic, original, context)
            notes = {}
            for seed, policy in trained.items():
                made[seed]["policy"] = policy
                notes[seed] = _notes(dataset.artefact, original, synthetic[seed], made[seed])
            evaluated: dict[int, Found] = {}
            with self.guard(trained, "evaluation"):
                evaluated = evaluations.obtain(plan, {s: p.artefact for s, p in trained.items()}, notes, context)
            for seed, evaluation in evaluated.items():
                cached = {stage: found.cached for stage, found in made[seed].items()}
                with self.guard([seed], "evaluation"):
                    self._finish(seed, evaluation.artefact, {**cached, "evaluation": evaluation.cached})

    def _fit(self, original: OfflineDataset, seeds: list[int]) -> tuple[dict[int, Found], set[int]]:
        """The fitted augmenters of the replicates that must generate, and the replicates whose fit failed."""
        if not self.plan.augmenter.method_class.trains:
            return {}, set()
        waiting = augmentation.missing(self.plan, seeds, self.context)
        unfitted = [seed for seed in waiting if fits.stored(self.plan, seed, self.context) is None]
        fitted: dict[int, Found] = {}
        for part in (unfitted, [seed for seed in waiting if seed not in unfitted]):
            with self.guard(part, "fit"):
                fitted |= augmentation.obtain_fits(self.plan, part, original, self.context)
        return fitted, set(waiting) - fitted.keys()

    def fail(self, seeds: Iterable[int], status: Status, stage: str, reason: str, log: tuple[str, ...] = ()) -> None:
        """Emits a record without a score for each seed."""
        for seed in seeds:
            self.emit(failed_record(self.plan, seed, status, stage, reason, log, self.origin, self.moment))

    def guard(self, seeds: Iterable[int], stage: str) -> _Guard:
        """Turns what goes wrong in a block into records of these seeds."""
        return _Guard(self, tuple(seeds), stage)

    def _finish(self, seed: int, evaluation: Artefact, cached: dict[str, bool]) -> None:
        if self.expert_data is None:
            self.expert_data = _expert_data(self.plan, self.context)
        record = finished_record(self.plan, seed, evaluation, cached, self.expert_data, self.origin, self.moment)
        self.emit(record)


@dataclass
class _Guard:
    """A block whose failure belongs to some replicates, `sys.exit` included.

    StorageError and interruptions pass through.
    """

    run: _GroupRun
    seeds: tuple[int, ...]
    stage: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, StorageError) or not isinstance(error, (Exception, SystemExit)):
            return False
        log = tuple(traceback.format_exception(error))
        _LOG.error("%s failed at stage %s\n%s", self.run.plan.group.name, self.stage, "".join(log))
        lines = tuple("".join(log).splitlines())
        self.run.fail(self.seeds, _status_of(error), self.stage, _reason_of(error), lines)
        return True


def _status_of(error: BaseException) -> Status:
    if isinstance(error, UnsupportedError):
        return "unsupported"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "oom" if is_out_of_memory(error) else "failed"


def _reason_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"The method ended its process with sys.exit({error.code!r}). Raise an error instead."
    if is_out_of_memory(error):
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        return (
            f"Out of memory ({type(error).__name__}{f': {said}' if said else ''}). Less is needed by fewer replicates "
            "at once (--only seed=0), a smaller batch or model, or fewer workers (--jobs)."
        )
    if isinstance(error, (AugMARLError, TimeoutError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _notes(
    dataset: Artefact, original: OfflineDataset, synthetic: OfflineDataset | None, made: dict[str, Found]
) -> dict[str, Any]:
    """What a record needs beside the evaluation, so that it can be written again from the evaluation alone."""
    card, card_sha256 = datasets.card_of(dataset)
    told = made["augmented"].artefact.notes if "augmented" in made else {}
    report = read_report(made["augmented"].artefact.folder) if "augmented" in made else None
    return {
        "dataset_summary": _summary(card, original, synthetic),
        "dataset_card_sha256": card_sha256,
        "augmenter_diagnosis": compact(told.get("diagnosis", {})),
        "quality": dict(told.get("quality", {})),
        "quality_details": {} if report is None else report.details(),
        "source_digests": {stage: found.artefact.source_digest for stage, found in made.items()},
        "costs": {stage: evaluations.cost_document(found.artefact) for stage, found in made.items()},
    }


def _summary(card: DatasetCard, original: OfflineDataset, synthetic: OfflineDataset | None) -> dict[str, float]:
    summary = {"episodes": float(original.n_episodes), "steps": float(original.n_steps)}
    if card.returns is not None:
        summary |= {"mean_return": card.returns.mean}
    if synthetic is not None and synthetic.n_episodes:
        summary |= {
            "synthetic_episodes": float(synthetic.n_episodes),
            "synthetic_steps": float(synthetic.n_steps),
            "synthetic_share": synthetic.n_steps / (synthetic.n_steps + original.n_steps),
            "synthetic_mean_return": float(synthetic.returns().mean()),
        }
    else:
        summary["synthetic_share"] = 0.0
    return summary
