"""The oracle without a network: one rule a kind of task, a score for every agent of a window. # inferred

CODI asks a language model; the rules stand in for it where there is none. The kinds are told apart by names of
features and actions, see `features.kind_of`.

How near an agent is counts beside how much nearer it came: by the approach alone, an expert that stands on its landmark
already would lose to any drifting neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.labelling.features import (
    COLLISION_DISTANCE,
    CONTACT_DISTANCE,
    attack_actions,
    distances,
    kind_of,
    own_health,
)
from methods.labelling.oracle import UNDECIDED, Oracle, Progress, others_than
from methods.labelling.windows import LabelWindows
from tasks.common.errors import UsageError
from tasks.spec import TaskSpec

Scores = NDArray[np.float64]
Credit = Callable[[LabelWindows], Scores]

COLLISION_PENALTY = 0.1  # inferred; each row and each other agent
CONTACT_BONUS = 0.5  # inferred; each row in contact with the prey
FOCUS_BONUS = 0.5  # inferred; share of attacks on the team's most attacked enemy
HEALTH_PENALTY = 0.25  # inferred; health lost, as a fraction
_TIE = 1e-9


class HeuristicOracle(Oracle):
    """The agent with the highest score under the rule of the task's kind.

    Args:
        credit: scores (M, N) for tasks of no known kind; the kinds have rules of their own.

    Raises:
        UsageError: if the task is of no known kind and no `credit` is given.
    """

    name = "heuristic"

    def __init__(self, spec: TaskSpec, credit: Credit | None = None) -> None:
        self.spec, self.kind, self._credit = spec, kind_of(spec), credit
        if self.kind == "general" and credit is None:
            raise UsageError(
                f"{spec.id}: no rule tells from these features which agent plays best: "
                f"{', '.join(spec.observation_features[:6])}, … {others_than(self.name)}"
            )
        self._undecided = 0

    def label(self, windows: LabelWindows, progress: Progress) -> NDArray[np.int64]:
        """The argmax of the scores, the first of equals; undecided where all agents are alike."""
        scores = self.scores(windows)  # (M, N)
        alike = np.ptp(scores, axis=1) <= _TIE if windows.n_agents > 1 else False
        labels = np.where(alike, UNDECIDED, scores.argmax(axis=1)).astype(np.int64)
        self._undecided = int((labels == UNDECIDED).sum())
        return labels

    def report(self) -> Mapping[str, Any]:
        """The rule, and how often it saw no difference."""
        rule = self.kind if self._credit is None or self.kind != "general" else "credit"
        return {"rule": rule, "undecided": self._undecided}

    def scores(self, windows: LabelWindows) -> Scores:
        """(M, N), larger is better."""
        if self.kind == "general":
            assert self._credit is not None
            return self._credit(windows)
        rules = {"coverage": coverage_scores, "pursuit": pursuit_scores, "battle": battle_scores}
        return rules[self.kind](self.spec, windows)


def coverage_scores(spec: TaskSpec, windows: LabelWindows) -> Scores:
    """d_i(0) − d_i(end) − mean d_i − 0.1 × collisions, d_i the distance to the nearest landmark.

    A collision is another agent nearer than two radii in a row after the first.
    """
    nearest = distances(spec, windows, r"landmark_\d+").min(axis=-1)  # (M, H, N)
    others = distances(spec, windows, r"other_agent_\d+")  # (M, H, N, N - 1)
    later = windows.row_valid[:, 1:, None]  # (M, H - 1, 1)
    collisions = ((others[:, 1:] < COLLISION_DISTANCE).sum(axis=-1) * later).sum(axis=1)  # (M, N)
    score = approach(nearest, windows) - row_mean(nearest, windows) - COLLISION_PENALTY * collisions
    return np.asarray(score, dtype=np.float64)


def pursuit_scores(spec: TaskSpec, windows: LabelWindows) -> Scores:
    """d_i(0) − d_i(end) − mean d_i + 0.5 × rows in contact after the first, d_i the distance to the nearest prey."""
    nearest = distances(spec, windows, "prey").min(axis=-1)  # (M, H, N)
    touching = (nearest[:, 1:] < CONTACT_DISTANCE) & windows.row_valid[:, 1:, None]
    score = approach(nearest, windows) - row_mean(nearest, windows) + CONTACT_BONUS * touching.sum(axis=1)
    return np.asarray(score, dtype=np.float64)


def battle_scores(spec: TaskSpec, windows: LabelWindows) -> Scores:
    """Share of living steps with an attack where one is possible + 0.5 × share on the team's main target
    − 0.25 × health lost, as far as the data tell these.
    """
    attacks = attack_actions(spec)  # (A,)
    attacking = attacks[windows.actions.astype(np.int64)] & windows.step_valid[..., None]  # (M, H - 1, N)
    possible = np.broadcast_to(windows.step_valid[..., None], attacking.shape)
    if windows.alive is not None:
        possible = possible & windows.alive[:, :-1]
    if windows.available_actions is not None:
        possible = possible & (windows.available_actions[:, :-1] & attacks).any(axis=-1)
    scores = _share(attacking & possible, possible)

    aimed = np.where(attacking, windows.actions, -1)  # (M, H - 1, N)
    hits = (aimed[..., None] == np.flatnonzero(attacks)).sum(axis=1)  # (M, N, enemies)
    main = hits.sum(axis=1).argmax(axis=-1)  # (M,), the enemy that the team attacks most
    on_main = np.take_along_axis(hits, main[:, None, None], axis=-1)[..., 0]  # (M, N)
    scores += FOCUS_BONUS * on_main / np.maximum(hits.sum(axis=-1), 1)

    health = own_health(spec, windows)
    if health is not None:
        scores -= HEALTH_PENALTY * np.maximum(approach(health, windows), 0.0)
    return scores


def approach(values: NDArray[np.float32], windows: LabelWindows) -> Scores:
    """(M, H, N) -> (M, N), first row minus last row of the episode's part of the window."""
    last = values[np.arange(len(values)), np.minimum(windows.steps, values.shape[1] - 1)]
    return np.asarray(values[:, 0] - last, dtype=np.float64)


def row_mean(values: NDArray[np.float32], windows: LabelWindows) -> Scores:
    """(M, H, N) -> (M, N), mean over the rows that belong to the episode."""
    valid = windows.row_valid[..., None]
    return np.asarray((values * valid).sum(axis=1) / valid.sum(axis=1), dtype=np.float64)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Scores:
    """(M, T, N) -> (M, N), how much of `whole` is `part`; 0 where there is none of it."""
    return np.asarray(part.sum(axis=1) / np.maximum(whole.sum(axis=1), 1), dtype=np.float64)
