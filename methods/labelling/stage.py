"""CODI's first stage: an oracle labels some windows, a network learns it, and every window gets a label vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import Run
from methods.data.windows import WindowIndex
from methods.labelling.credit_rule import CreditRule
from methods.labelling.features import kind_of
from methods.labelling.heuristic import HeuristicOracle
from methods.labelling.labeller import Labeller, LabellerSettings, fit_labeller
from methods.labelling.language_model import LanguageModelOracle
from methods.labelling.oracle import UNDECIDED, Oracle
from methods.labelling.privileged import PrivilegedOracle
from methods.labelling.windows import label_windows

_AT_ONCE = 4_096  # windows gathered at a time; memory alone


@dataclass(frozen=True, slots=True, kw_only=True)
class LabellingSettings:
    """Who labels, how much, and what the label vectors are.

    Attributes:
        oracle: resolved, see `oracle.ORACLES`. model: of the oracle `llm`.
        share, max_labels: of the windows, and at most, are shown to the oracle.
        max_tokens: of the oracle `llm`.
        hard: z is one-hot at the labeller's first choice in place of its probabilities.
        max_updates: of every network that is trained here; None: as many as it asks for.
        labeller: the network.
    """

    oracle: str
    model: str = ""
    share: float = 0.1
    max_labels: int = 5_000
    max_tokens: int = 20_000_000
    hard: bool = False
    max_updates: int | None = None
    labeller: LabellerSettings = field(default_factory=LabellerSettings)


def make_oracle(settings: LabellingSettings, index: WindowIndex, run: Run, replica: int = 0) -> Oracle:
    """The oracle of these settings for these data.

    Raises:
        UsageError: if it cannot work here; the message names the others.
    """
    spec = index.data.spec
    if settings.oracle == "llm":
        return LanguageModelOracle(spec, settings.model, settings.max_tokens, run.logger)
    if settings.oracle == "privileged":
        return PrivilegedOracle()
    if kind_of(spec) != "general":
        return HeuristicOracle(spec)
    generator = run.generator("labelling/credit", replica)
    return HeuristicOracle(spec, CreditRule.fit(index, generator, run.device, run.report, settings.max_updates))


def quality_labels(
    settings: LabellingSettings, index: WindowIndex, run: Run, replica: int = 0
) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Label vectors z of all W windows, (W, N), rows summing to 1, and what the labelling tells.

    Where nothing was learned, because one agent is alone or the oracle sees no difference anywhere, all entries are
    1 / N.

    Raises:
        UsageError: if the oracle cannot work.
    """
    spec = index.data.spec
    if spec.n_agents == 1:
        return np.ones((len(index), 1), dtype=np.float32), {"oracle": settings.oracle, "shown": 0, "decided": 0}
    chosen = _subset(settings, len(index), run.generator("labelling/subset", replica))
    oracle = make_oracle(settings, index, run, replica)
    shown = label_windows(index, chosen)
    answers = oracle.label(shown, run.report)
    decided = np.flatnonzero(answers != UNDECIDED)
    told: dict[str, Any] = {"oracle": settings.oracle, "shown": len(chosen), "decided": len(decided), **oracle.report()}

    if not len(decided):
        run.logger.warning("%s: the %s oracle decided for no window; no label tells anything.", spec.id, oracle.name)
        return np.full((len(index), spec.n_agents), 1 / spec.n_agents, dtype=np.float32), told
    generator = run.generator("labelling/labeller", replica)
    labeller = fit_labeller(
        settings.labeller,
        spec,
        shown.take(decided),
        answers[decided],
        generator,
        run.device,
        run.report,
        max_updates=settings.max_updates,
    )
    z = _all_labels(labeller, index, run)
    told["labeller"] = labeller.diagnosis
    told["mean_label"] = z.mean(axis=0, dtype=np.float64).round(4).tolist()
    told["mean_largest"] = round(float(z.max(axis=1).mean(dtype=np.float64)), 4)
    return (np.eye(spec.n_agents, dtype=np.float32)[z.argmax(axis=1)] if settings.hard else z), told


def privileged_labels(index: WindowIndex, run: Run) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    """Label vectors z of all W windows from the hidden column: 1 for every agent that acts most like an expert, else 0.

    With a single expert this is the paper's one-hot vector; two equal experts have a 1 each (inferred).

    Raises:
        UsageError: if the data lack the column.
    """
    oracle, parts = PrivilegedOracle(), []
    for first in range(0, len(index), _AT_ONCE):
        run.report(first, len(index), "privileged labels")
        windows = np.arange(first, min(first + _AT_ONCE, len(index)))
        parts.append(oracle.best_agents(label_windows(index, windows)))
    best = np.concatenate(parts)
    told = {"oracle": "privileged", "shown": len(best), "decided": int((best.sum(axis=1) == 1).sum())}
    z = best.astype(np.float32)
    return z, {**told, "mean_label": z.mean(axis=0, dtype=np.float64).round(4).tolist()}


def _subset(settings: LabellingSettings, n_windows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The windows that the oracle sees, in random order: the first ones are asked first where a budget ends early."""
    size = min(max(1, ceil(settings.share * n_windows)), settings.max_labels, n_windows)
    return generator.choice(n_windows, size=size, replace=False)


def _all_labels(labeller: Labeller, index: WindowIndex, run: Run) -> NDArray[np.float32]:
    """(W, N)."""
    parts = []
    for first in range(0, len(index), _AT_ONCE):
        run.report(first, len(index), "labels of all windows")
        windows = np.arange(first, min(first + _AT_ONCE, len(index)))
        parts.append(labeller.predict(label_windows(index, windows)))
    return np.concatenate(parts)
