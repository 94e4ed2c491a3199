"""Scores of a run under every normalisation that is defined for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.datasets.card import ReturnStatistics
from tasks.spec import TaskSpec

CODI_MARGIN = 0.05
"""CODI's score divides by (balanced expert − dataset mean); below this share of (expert − random) it is noise."""


def scores_of(
    spec: TaskSpec,
    returns: Sequence[float],
    won: Sequence[bool] | None,
    dataset_mean_return: float | None,
    expert_data: ReturnStatistics | None,
) -> dict[str, float]:
    """Mean scores over episodes, by name. A score that is not defined here is absent.

    * `return`: the mean team return, in the environment's units.
    * `normalised`: 100 (S − random) / (expert − random), with the task's measured references.
    * `codi`: (R − R_lo) / (R_hi − R_lo), from the mean return of the dataset to that of the expert (CODI, Sec. 4.1).
    * `madits`: 100 (S − floor) / (ceil − floor), the 10th and 90th percentile of the returns in expert data
      (MADiTS, App. E; the percentiles are inferred). An expert of the same quality has about 50.
    * `win_rate`: where a win is defined.
    """
    mean = float(np.mean(returns))
    scores = {"return": mean}
    if won is not None:
        scores["win_rate"] = float(np.mean(won))
    references = spec.score_references
    if references is not None:
        span = references.expert_return - references.random_return
        scores["normalised"] = float(references.normalise(np.float64(mean)))  # type: ignore[arg-type]
        if dataset_mean_return is not None:
            room = references.expert_return - dataset_mean_return
            if room > CODI_MARGIN * span:
                scores["codi"] = (mean - dataset_mean_return) / room
    if expert_data is not None and not spec.has_win:
        floor, ceiling = expert_data.deciles[0], expert_data.deciles[-1]
        if ceiling > floor:
            scores["madits"] = 100.0 * (mean - floor) / (ceiling - floor)
    return scores
