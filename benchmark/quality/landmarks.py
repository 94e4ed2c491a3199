"""Cooperative navigation: landmarks left uncovered, and how much nearer the agents come to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError, Which
from tasks.scene import Scene

EPISODES = 4096
"""Episodes of each dataset that are looked at."""


def measure(subject: Subject) -> Measured:
    """`uncovered_landmarks` and `cn_score_improvement`."""
    return Measured({"uncovered_landmarks": _uncovered(subject), "cn_score_improvement": _improvement(subject)})


FAMILY = Family(("uncovered_landmarks", "cn_score_improvement"), measure)


def uncovered(scene: Scene) -> NDArray[np.int64]:
    """(M,) landmarks that no agent sees within the cover distance (MADiTS, Sec. 5.3).

    MADiTS takes this number at the end of an episode for that of underperforming agents. It does not say what covered
    means: 0.1, as the environment's own count of occupied landmarks. # inferred

    Raises:
        UndefinedError: where there is no landmark to cover.
    """
    if scene.cover_distance is None:
        raise UndefinedError("the task has no landmarks to cover")
    nearest = scene.distances_to("landmark").min(axis=1)  # (M, L)
    return np.asarray((nearest >= scene.cover_distance).sum(axis=1))


def cn_score(scene: Scene) -> NDArray[np.float64]:
    """(M,) minus the distance of an agent to its nearest landmark, averaged over agents.

    CODI (Sec. 4.3) says "the negative distance between agents and landmarks at a given step"; its prompt shows the
    oracle each agent's nearest landmark, which we take here as well. # inferred

    Raises:
        UndefinedError: where there is no landmark to cover.
    """
    if scene.cover_distance is None:
        raise UndefinedError("the CN score is defined for cooperative navigation alone")
    return np.asarray(-scene.distances_to("landmark").min(axis=2).mean(axis=1))


def coverage_score(scene: Scene) -> NDArray[np.float64]:
    """(M,) minus the distance of a landmark to its nearest agent, averaged over landmarks: two agents at one do not
    count twice.
    """
    return np.asarray(-scene.distances_to("landmark").min(axis=1).mean(axis=1))


def _uncovered(subject: Subject) -> Measurement:
    """The mean over episodes that ran their course: cut segments have no end to judge."""
    made, real = _whole(subject, "synthetic"), _whole(subject, "original")
    rows = subject.synthetic.row_starts[made + 1] - 1
    counts = uncovered(subject.scene(subject.synthetic.observations[rows]))  # refuses tasks without landmarks
    if not len(made):
        limit = subject.task.spec.episode_limit
        return Measurement.undefined(f"no synthetic episode has {limit} steps or a true end: segments have no end")
    real_rows = subject.original.row_starts[real + 1] - 1
    original = uncovered(subject.scene(subject.original.observations[real_rows])) if len(real) else None
    return Measurement(
        value=float(counts.mean()),
        original=None if original is None else float(original.mean()),
        details={"all_covered_share": float((counts == 0).mean()), "episodes": len(made)},
    )


def _improvement(subject: Subject) -> Measurement:
    """CN score of the last observation of an episode or segment minus that of its first (CODI, Fig. 3c)."""
    scores = {which: _first_and_last(subject, which) for which in ("synthetic", "original")}
    (first, last, covered), (real_first, real_last, _) = scores["synthetic"], scores["original"]
    return Measurement(
        value=last - first,
        original=real_last - real_first,
        details={
            "initial": first,
            "final": last,
            "original_initial": real_first,
            "original_final": real_last,
            "coverage_improvement": covered,
        },
    )


def _first_and_last(subject: Subject, which: Which) -> tuple[float, float, float]:
    data, episodes = subject.data(which), _sampled(subject, which, np.arange(subject.data(which).n_episodes))
    first = subject.scene(data.observations[data.row_starts[episodes]])
    last = subject.scene(data.observations[data.row_starts[episodes + 1] - 1])
    gain = coverage_score(last).mean() - coverage_score(first).mean()
    return float(cn_score(first).mean()), float(cn_score(last).mean()), float(gain)


def _whole(subject: Subject, which: Which) -> NDArray[np.int64]:
    """Episodes that reached the time limit or a true end, at most EPISODES of them."""
    data = subject.data(which)
    ended = data.terminals[data.episode_starts[1:] - 1] | (data.lengths >= data.spec.episode_limit)
    return _sampled(subject, which, np.flatnonzero(ended))


def _sampled(subject: Subject, which: Which, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(episodes) <= EPISODES:
        return episodes
    chosen = subject.generator(f"{which} episodes").choice(len(episodes), size=EPISODES, replace=False)
    return episodes[np.sort(chosen)]
