"""One picture of augmented data: trajectories beside the original ones, distributions, coverage and what agents do."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.augmented import AugmentedData
from benchmark.pictures.panels import panels
from benchmark.pictures.style import INK, MUTED, RC, SYNTHETIC, say
from benchmark.pictures.trajectories import Track, draw_track, extent, pairs
from benchmark.quality.landmarks import uncovered
from benchmark.quality.views import mean_ade
from tasks.common.errors import UsageError
from tasks.common.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

COLUMNS = 4
"""Episodes side by side, and panels at most."""

_TOP, _TOP_ALONE, _MAP, _PANEL, _TITLE, _AXIS = 1.35, 0.85, 3.65, 3.1, 0.4, 0.55  # inches

_TOLD = {
    "similarity": "similarity",
    "dynamics_mse": "dynamics MSE",
    "mean_ade": "mean ADE",
    "uncovered_landmarks": "uncovered landmarks",
    "new_row_share": "new rows",
}


def draw(augmented: AugmentedData, path: Path) -> None:
    """Writes a PNG, whole or not at all; the same data give the same picture. Raises StorageError.

    Two rows of maps where the task has one, the original episodes above the synthetic ones, then the panels that
    these data have (`benchmark.pictures.panels`).
    """
    import matplotlib as mpl  # 0.3 s, and not needed to print numbers
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    try:
        shown = pairs(augmented.task, augmented.original, augmented.synthetic, COLUMNS)
    except UsageError:
        shown = []
    below = panels(augmented)
    rows = max(1, -(-len(below) // COLUMNS))
    maps = 2 * _MAP if shown else 0.0
    height = (_TOP if shown else _TOP_ALONE) + maps + rows * _PANEL
    with mpl.rc_context(RC):
        figure = Figure(figsize=(14.5, height), dpi=120, facecolor="white")
        FigureCanvasAgg(figure)
        _header(figure, augmented)
        if shown:
            _maps(figure, figure.add_gridspec(2, 1, **_place(height, _TOP, maps - 0.1), hspace=0.14), shown)
        place = _place(height, height - rows * _PANEL + _TITLE, rows * _PANEL - _TITLE - _AXIS)
        columns = max(1, -(-len(below) // rows))
        grid = figure.add_gridspec(rows, columns, **place, wspace=0.24, hspace=0.5)
        for index, panel in enumerate(below):
            panel(figure.add_subplot(grid[divmod(index, columns)]))
        if not below:
            say(figure.add_subplot(grid[0, 0]), "there is nothing to compare")
        content = io.BytesIO()
        figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def _place(height: float, top: float, size: float) -> dict[str, float]:
    """Where a block of `size` inches lies that begins `top` inches below the upper edge of the picture."""
    return {"left": 0.05, "right": 0.985, "top": 1 - top / height, "bottom": 1 - (top + size) / height}


def _header(figure: Figure, augmented: AugmentedData) -> None:
    height, metrics = figure.get_figheight(), augmented.quality.metrics
    title = f"{augmented.card.task}   {augmented.card.dataset}   →   {augmented.augmenter}"
    parts = [
        f"{augmented.synthetic.n_episodes:,} episodes",
        f"{augmented.synthetic.n_steps:,} transitions",
        str(augmented.card.origin),
        *(
            f"{label} {metrics[name].value:.3g}"
            for name, label in _TOLD.items()
            if name in metrics and metrics[name].value is not None
        ),
    ]
    figure.text(0.05, 1 - 0.38 / height, title, fontsize=16, fontweight="bold")
    figure.text(0.05, 1 - 0.66 / height, "   ·   ".join(parts), fontsize=10, color=MUTED)


def _maps(figure: Figure, outer: GridSpec, shown: Sequence[tuple[Track, Track]]) -> None:
    if not shown:
        return
    rows = [outer[row, 0].subgridspec(1, COLUMNS, wspace=0.06) for row in range(2)]
    for column, pair in enumerate(shown):
        half = extent(pair)
        for row, track in enumerate(pair):
            ax = figure.add_subplot(rows[row][0, column])
            draw_track(ax, track, half)
            ax.set_title(_caption(track), fontsize=9.5, fontweight="normal", color=INK)
            ax.spines[:].set_color("#DCE1E6")
            if column == 0:
                label, colour = (("original", MUTED), ("generated", SYNTHETIC))[row]
                ax.set_ylabel(label, fontsize=12, color=colour, fontweight="bold")
    figure.text(
        0.05,
        1 - 0.93 / figure.get_figheight(),
        "○ start   ● end   ·   strong line: by its own account   ·   light line: as the other agents see it",
        fontsize=9,
        color=MUTED,
    )


def _caption(track: Track) -> str:
    steps = len(track.scene.agents[0].position) - 1
    parts = [f"return {track.team_return:.0f}"]
    if steps != track.limit:
        parts.append(f"{steps} steps")
    elif track.scene.cover_distance is not None:
        last = int(uncovered(track.scene)[-1])
        parts.append(f"{last} uncovered")
    ade, _ = mean_ade(track.scene)
    if ade > 1e-5:
        parts.append(f"ADE {ade:.2g}")
    return "  ·  ".join(parts)
