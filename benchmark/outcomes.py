"""Run records from what a cell group produced, or from how it failed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.artefacts import Artefact
from benchmark.folders import CHECKOUT
from benchmark.plans import GroupPlan
from benchmark.provenance import Origin, now
from benchmark.records import Artefacts, Failure, RunRecord, StageTiming, Status
from benchmark.scores import scores_of
from benchmark.stages import evaluations
from methods.run import COMPUTES
from tasks.common.errors import UsageError
from tasks.datasets.card import ReturnStatistics

LOG_LINES = 20
MAX_REASON, MAX_LINE = 4_000, 1_000
"""Characters of a reason and of a line of a log; what methods say may be of any length."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When and on which device a run happened."""

    started: str
    device: str


def finished_record(
    plan: GroupPlan,
    seed: int,
    evaluation: Artefact,
    cached: Mapping[str, bool],
    expert_data: ReturnStatistics | None,
    origin: Origin,
    moment: Moment,
) -> RunRecord:
    """The record of an evaluated policy: `ok`, or `diverged` where there was nothing to evaluate.

    `cached` says by stage whether this run found the artefact ready.
    """
    notes, result = evaluation.notes, evaluations.load(evaluation)
    costs = {**notes["costs"], "evaluation": evaluations.cost_document(evaluation)}
    status: Status = "ok" if result is not None else "diverged"
    failure = None
    if result is None:
        failure = Failure(
            stage="policy", reason=f"{plan.learner.text}: parameters or actions were not finite at the end of training."
        )
    summary = dict(notes["dataset_summary"])
    return RunRecord(
        **_common(plan, notes["source_digests"]),
        cell=plan.group.cell(seed),
        status=status,
        artefacts=plan.artefacts(seed, notes["dataset_card_sha256"]),
        dataset_summary=summary,
        evaluation=result,
        scores=scores_of(plan.spec, result.returns, result.won, summary.get("mean_return"), expert_data)
        if result
        else {},
        diagnosis=notes["diagnosis"],
        augmenter_diagnosis=notes.get("augmenter_diagnosis", {}),
        quality=notes.get("quality", {}),
        quality_details=notes.get("quality_details", {}),
        timings={stage: StageTiming(cached=cached.get(stage, True), **cost) for stage, cost in costs.items()},
        provenance=origin.provenance(moment.started, now(), moment.device),
        failure=failure,
    )


def failed_record(
    plan: GroupPlan,
    seed: int,
    status: Status,
    stage: str,
    reason: str,
    log_tail: Sequence[str],
    origin: Origin,
    moment: Moment,
) -> RunRecord:
    """The record of a cell without a score, with its reason and the last lines of its log."""
    return RunRecord(
        **_common(plan, {}),
        cell=plan.group.cell(seed),
        status=status,
        artefacts=_artefacts(plan, seed),
        dataset_summary={},
        evaluation=None,
        scores={},
        diagnosis={},
        timings={},
        provenance=origin.provenance(moment.started, now(), moment.device),
        failure=Failure(
            stage=stage,
            reason=_printable(reason, MAX_REASON),
            log_tail=[_printable(line, MAX_LINE) for line in log_tail[-LOG_LINES:]],
        ),
    )


def _printable(text: str, limit: int) -> str:
    """The text as UTF-8 can hold it, without the folders of this machine and its user, cut where it is too long."""
    clean = text.encode("utf-8", errors="backslashreplace").decode()
    for folder, shown in ((CHECKOUT, ""), (Path.home(), "~/")):
        clean = clean.replace(f"{folder}{os.sep}", shown)
    return clean if len(clean) <= limit else f"{clean[:limit]} … ({len(clean)} characters)"


def _common(plan: GroupPlan, sources: Mapping[str, str | None]) -> dict[str, Any]:
    spec = plan.spec
    return {
        "engine": spec.engine,
        "engine_version": spec.engine_version,
        "variant": spec.variant,
        "team_reward": spec.team_reward,
        "protocol_settings": _settings(plan),
        "augmenter": plan.augmenter.as_recorded(spec, sources.get("augmented")),
        "learner": plan.learner.as_recorded(spec, sources.get("policy")),
    }


def _settings(plan: GroupPlan) -> dict[str, Any]:
    """The protocol's numbers; those of other families, or of models that there are none of, no record names."""
    settings, method = plan.protocol.settings(), plan.augmenter.method_class
    for name in ("dataset_episodes", "evaluation_episodes"):
        family = plan.spec.family if plan.spec.family in settings[name] else "default"
        settings[name] = {family: settings[name][family]}
    for compute in COMPUTES:
        if not (method.trains and method.compute == compute):
            del settings[compute]
    return settings


def _artefacts(plan: GroupPlan, seed: int) -> Artefacts:
    try:
        return plan.artefacts(seed)
    except UsageError:  # the behaviour policy is not shipped, so the data have no identity
        return Artefacts(dataset="")
