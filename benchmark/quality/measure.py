"""The entry point: every metric of one set of synthetic episodes, defined or not."""

from __future__ import annotations

import logging
import time
from typing import Any

from benchmark.quality import (
    attention,
    coverage,
    credit,
    dire,
    distributions,
    focus,
    landmarks,
    novelty,
    oracle,
    returns,
    values,
    views,
)
from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Curve, Measurement, PairedHistogram, QualityReport
from benchmark.quality.subject import Subject
from methods.base import Augmenter
from tasks.base import Task
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset

_LOG = logging.getLogger(__name__)

FAMILIES: tuple[Family, ...] = (
    distributions.FAMILY,
    coverage.FAMILY,
    oracle.FAMILY,
    novelty.FAMILY,
    views.FAMILY,
    landmarks.FAMILY,
    returns.FAMILY,
    values.FAMILY,
    focus.FAMILY,
    credit.FAMILY,
    dire.FAMILY,
    attention.FAMILY,
)

METRICS: tuple[str, ...] = tuple(name for family in FAMILIES for name in family.names)
"""Every metric, in the order in which tables show them."""


def measure(
    original: OfflineDataset,
    synthetic: OfflineDataset,
    task: Task,
    augmenter: Augmenter[Any] | None = None,
    seed: int = 0,
    *,
    name: str | None = None,
) -> QualityReport:
    """Measures synthetic episodes against the original data and the real engine (docs/quality.md).

    A metric that is undefined here, or that fails, has no value and a reason; nothing is raised.

    Args:
        original: privileged columns are not looked at.
        synthetic: of the same task.
        task: its engine, if it can be restored, is the oracle.
        augmenter: fitted, for its credit, its diffusion model and its attention; None: those metrics are undefined.
        seed: of all samples drawn here.
        name: of the augmenter, for the report.
    """
    subject = Subject(original.without_privileged(), synthetic.without_privileged(), task, augmenter, seed)
    metrics: dict[str, Measurement] = {}
    histograms: dict[str, PairedHistogram] = {}
    curves: dict[str, Curve] = {}
    seconds: dict[str, float] = {}
    for family in FAMILIES:
        started = time.perf_counter()
        measured = _measured(family, subject)
        seconds[" ".join(family.names)] = round(time.perf_counter() - started, 4)
        metrics |= {metric: measured.metrics[metric] for metric in family.names}
        histograms |= measured.histograms
        curves |= measured.curves
    return QualityReport(
        task=task.spec.id,
        augmenter=name,
        seed=seed,
        metrics=metrics,
        histograms=histograms,
        curves=curves,
        wall_seconds=seconds,
    )


def _measured(family: Family, subject: Subject) -> Measured:
    if not subject.synthetic.n_steps or not subject.original.n_steps:
        return _undefined(family, "there are no transitions to compare")
    try:
        return family.measure(subject)
    except UsageError as error:
        return _undefined(family, str(error))
    except Exception as error:  # a metric must not cost a run its data
        _LOG.exception("Measuring %s failed", ", ".join(family.names))
        return _undefined(family, f"failed: {type(error).__name__}: {error}")


def _undefined(family: Family, reason: str) -> Measured:
    return Measured({name: Measurement.undefined(reason) for name in family.names})
