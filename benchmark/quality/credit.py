"""Does a method's credit name the agents that truly contribute? Kendall's tau against the engine's own reward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError
from benchmark.quality.windows import sample_windows
from tasks.datasets.views import SegmentBatch

WINDOWS = 512
"""Windows of original data that are judged."""


def measure(subject: Subject) -> Measured:
    """`kendall_tau` of the method's credit on windows of the original data (MADiTS, App. H.5).

    MADiTS ranks agents at every step, correlates with the true ranking and averages over the steps of a segment. A
    method's credit here is one number an agent and window, so the true ranks are averaged over the steps first, and
    tau is taken once a window. Windows in which either side cannot tell any two agents apart have no tau.
    """
    if subject.augmenter is None:
        raise UndefinedError("the fitted augmenter is not at hand")
    picked = sample_windows(subject, "original", WINDOWS, "credit")
    credit = subject.augmenter.credit(subject.original, picked)
    if credit is None:
        raise UndefinedError("the method assigns no credit to agents")
    tau = kendall_tau(np.asarray(credit, dtype=np.float64), true_ranks(subject, picked))
    known = tau[np.isfinite(tau)]
    if not known.size:
        raise UndefinedError("no window ranks any two agents")
    return Measured(
        {
            "kendall_tau": Measurement(
                value=float(known.mean()),
                details={
                    "positive_share": float((known > 0).mean()),
                    "windows": int(known.size),
                    "horizon": picked.observations.shape[1],
                },
            )
        }
    )


FAMILY = Family(("kendall_tau",), measure)


def true_ranks(subject: Subject, windows: SegmentBatch) -> NDArray[np.float64]:
    """Mean rank (B, N) of every agent's true contribution over the steps of each window; N is the most.

    Raises:
        UsageError: where the task does not say what an agent contributes.
    """
    observations, actions = windows.observations[:, :-1], windows.actions[:, :-1]  # (B, H - 1, ...)
    b, h = observations.shape[:2]
    flat = subject.task.contributions(
        observations.reshape(b * h, *observations.shape[2:]), actions.reshape(b * h, *actions.shape[2:])
    )
    return np.asarray(rankdata(flat, axis=1).reshape(b, h, -1).mean(axis=1))


def kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b (1945) of each row of two (B, N) arrays; NaN where all values of a row are equal.

    τ = Σ_{i<j} sign(a_i - a_j) sign(b_i - b_j) / sqrt(pairs untied in a · pairs untied in b)
    """
    i, j = np.triu_indices(first.shape[1], k=1)
    a, b = np.sign(first[:, i] - first[:, j]), np.sign(second[:, i] - second[:, j])  # (B, pairs)
    untied = np.sqrt(np.abs(a).sum(axis=1) * np.abs(b).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=1) / np.where(untied > 0, untied, np.nan))
