"""Does a method's credit name the agents that truly contribute? Kendall's tau against the engine's own reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError
from benchmark.quality.windows import sample_windows
from tasks.datasets.views import SegmentBatch

WINDOWS = 512
"""Windows of original data that are judged."""


def measure(subject: Subject) -> Measured:
    """`kendall_tau` of the method's credit on windows of the original data (MADiTS, App. H.5), averaged over windows.

    MADiTS correlates the ranks at every step of a segment and averages. A method's credit here is one number an agent
    and window, so the true contributions are added up over the window, and tau is taken once. Windows in which
    either side cannot tell any two agents apart have no tau. Further credit functions of the method are in the details.
    """
    augmenter = subject.augmenter
    if augmenter is None:
        raise UndefinedError("the fitted augmenter is not at hand")
    picked = transitions_alone(sample_windows(subject, "original", WINDOWS, "credit"))
    credit = augmenter.credit(subject.original, picked)
    if credit is None:
        raise UndefinedError("the method assigns no credit to agents")
    true = true_contributions(subject, picked)
    value, positive, windows = _summary(credit, true)
    details: dict[str, float | int | str | None] = {
        "positive_share": positive,
        "windows": windows,
        "horizon": picked.observations.shape[1],
    }
    for function in augmenter.credit_functions:
        other = augmenter.credit(subject.original, picked, function)
        if other is not None:
            details[f"tau_{function}"], details[f"positive_share_{function}"], _ = _summary(other, true)
    reason = None if windows else "no window ranks any two agents"
    return Measured({"kendall_tau": Measurement(value=value, reason=reason, details=details)})


def transitions_alone(windows: SegmentBatch) -> SegmentBatch:
    """The windows without the step that leaves their last row, which the true contributions do not count."""
    valid = windows.step_valid.copy()
    valid[:, -1] = False
    return replace(windows, step_valid=valid)


FAMILY = Family(("kendall_tau",), measure)


def true_contributions(subject: Subject, windows: SegmentBatch) -> NDArray[np.float64]:
    """(B, N) what each agent truly adds to the team's reward over the steps of each window.

    Raises:
        UsageError: where the task does not say what an agent contributes.
    """
    observations, actions = windows.observations[:, :-1], windows.actions[:, :-1]  # (B, H - 1, ...)
    b, h = observations.shape[:2]
    flat = subject.task.contributions(
        observations.reshape(b * h, *observations.shape[2:]), actions.reshape(b * h, *actions.shape[2:])
    )
    return np.asarray(flat.reshape(b, h, -1).sum(axis=1))


def kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b (1945) of each row of two (B, N) arrays; NaN where all values of a row are equal.

    τ = Σ_{i<j} sign(a_i - a_j) sign(b_i - b_j) / sqrt(pairs untied in a · pairs untied in b)
    """
    i, j = np.triu_indices(first.shape[1], k=1)
    a, b = np.sign(first[:, i] - first[:, j]), np.sign(second[:, i] - second[:, j])  # (B, pairs)
    untied = np.sqrt(np.abs(a).sum(axis=1) * np.abs(b).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.where(untied > 0, untied, np.nan))


def _summary(credit: NDArray[np.float32], true: NDArray[np.float64]) -> tuple[float | None, float | None, int]:
    """Mean tau, the share of windows where it is positive, and the number of windows that have one."""
    tau = kendall_tau(np.asarray(credit, dtype=np.float64), true)
    known = tau[np.isfinite(tau)]
    if not known.size:
        return None, None, 0
    return float(known.mean()), float((known > 0).mean()), int(known.size)
