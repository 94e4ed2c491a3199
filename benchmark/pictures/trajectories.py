"""Trajectories of one episode on the map of its task, as MADiTS (Fig. 3) draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmark.pictures.style import AGENTS, INK, MUTED
from tasks.base import Task
from tasks.datasets.offline import OfflineDataset
from tasks.scene import Entity, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FIXED = {"landmark": "#C9CFD6", "obstacle": "#B8BFC6", "food": "#F0E442", "forest": "#E3EFE6"}
_PREY = "#111111"


@dataclass(frozen=True, slots=True)
class Track:
    """One episode or segment: its scene, one entry a time step, its return, and the task's limit of steps."""

    scene: Scene
    team_return: float
    limit: int


def track(task: Task, data: OfflineDataset, episode: int, first: int = 0, steps: int | None = None) -> Track:
    """Rows `first` .. `first + steps` of an episode, to its end at most. Raises UsageError where there is no map."""
    length = int(data.lengths[episode])
    last = length if steps is None else min(first + steps, length)
    row, step = int(data.row_starts[episode]), int(data.episode_starts[episode])
    scene = task.scene(data.observations[row + first : row + last + 1])
    team_return = data.team_rewards()[step + first : step + last].sum(dtype=np.float64)
    return Track(scene, float(team_return), task.spec.episode_limit)


def pairs(task: Task, original: OfflineDataset, synthetic: OfflineDataset, count: int) -> list[tuple[Track, Track]]:
    """Synthetic episodes, evenly spaced over the data, each behind the original one that starts most alike.

    Whole episodes are set beside whole ones; a segment beside the original steps from the most similar row on.
    """
    chosen = np.unique(np.linspace(0, synthetic.n_episodes - 1, count).round().astype(np.int64))
    starts, rows = original.row_starts[:-1], np.arange(len(original.observations))
    within = np.repeat(np.arange(original.n_episodes), original.lengths + 1)  # (S + E,) the episode of each row
    result = []
    for episode in chosen.tolist():
        steps = int(synthetic.lengths[episode])
        wanted = synthetic.observations[synthetic.row_starts[episode]]
        whole = steps >= original.spec.episode_limit
        candidates = starts if whole else rows[rows < original.row_starts[within + 1] - 1]
        difference = original.observations[candidates] - wanted  # (C, N, D)
        row = int(candidates[int((difference * difference).sum(axis=(1, 2)).argmin())])
        of = int(within[row])
        real = track(task, original, of, row - int(starts[of]), steps)
        result.append((real, track(task, synthetic, episode)))
    return result


def extent(tracks: Sequence[Track]) -> float:
    """Half the width of a square that shows all tracks, at most twice that in which episodes start."""
    half = tracks[0].scene.half_width
    points = [np.abs(e.position).max() + e.radius for t in tracks for e in t.scene.entities if len(e.position)]
    return float(min(max(half, *points) * 1.04, 2 * half))


def draw_track(ax: Axes, drawn: Track, half: float) -> None:
    """One map. Strong lines: where agents say they are. Light lines: where the others see them."""
    agent = 0
    for entity in drawn.scene.entities:
        if entity.own is not None:
            _moving(ax, entity, AGENTS[agent % len(AGENTS)], str(agent))
            agent += 1
        elif entity.kind == "prey":
            _moving(ax, entity, _PREY, "p")
        else:
            _fixed(ax, entity)
    ax.set_xlim(-half, half)
    ax.set_ylim(-half, half)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor("#FBFCFD")


def _fixed(ax: Axes, entity: Entity) -> None:
    """A disk where it is, and dots where the agents see it."""
    from matplotlib.patches import Circle

    where = np.median(entity.position, axis=0)
    colour = _FIXED.get(entity.kind, "#D0D5DA")
    edge = INK if entity.kind == "landmark" else "#9AA3AC"
    radius = entity.radius if entity.kind != "landmark" else max(entity.radius, 0.05)
    ax.add_patch(Circle((where[0], where[1]), radius, facecolor=colour, edgecolor=edge, linewidth=1.1, zorder=1))
    seen = entity.seen.reshape(-1, 2)
    away = seen[np.abs(seen - where).max(axis=1) > 0.01] if len(seen) else seen
    ax.scatter(away[:, 0], away[:, 1], s=3, color=MUTED, alpha=0.35, linewidths=0, zorder=2)


def _moving(ax: Axes, entity: Entity, colour: str, label: str) -> None:
    from matplotlib.patches import Circle

    for viewer in range(entity.seen.shape[1]):
        seen: NDArray[np.float64] = entity.seen[:, viewer]
        ax.plot(seen[:, 0], seen[:, 1], color=colour, linewidth=3.2, alpha=0.28, solid_capstyle="round", zorder=3)
    path = entity.position
    style = "-" if entity.own is not None else (0, (3, 2))
    ax.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.4, linestyle=style, zorder=4)
    ax.plot(path[:, 0], path[:, 1], ".", color=colour, markersize=2.6, zorder=4)
    ax.plot(*path[0], "o", markersize=5.5, color="white", markeredgecolor=colour, markeredgewidth=1.4, zorder=5)
    ax.add_patch(
        Circle((path[-1, 0], path[-1, 1]), entity.radius, facecolor=colour, edgecolor=colour, alpha=0.22, zorder=3)
    )
    ax.plot(*path[-1], "o", markersize=9, color=colour, markeredgecolor="white", markeredgewidth=0.8, zorder=6)
    ax.annotate(
        label, path[-1], ha="center", va="center_baseline", fontsize=7, color="white", fontweight="bold", zorder=7
    )
