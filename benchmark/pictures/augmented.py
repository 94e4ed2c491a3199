"""One picture of augmented data: trajectories beside the original ones, returns, dynamics errors and acceptance."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.augmented import AugmentedData
from benchmark.pictures.style import INK, MUTED, ORIGINAL, RC, SYNTHETIC, finish, say
from benchmark.pictures.trajectories import Track, draw_track, extent, pairs
from benchmark.quality.landmarks import uncovered
from benchmark.quality.report import PairedHistogram
from benchmark.quality.views import mean_ade
from tasks.common.errors import UsageError
from tasks.common.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

COLUMNS = 4
"""Episodes side by side."""

_TOLD = {
    "similarity": "similarity",
    "dynamics_mse": "dynamics MSE",
    "mean_ade": "mean ADE",
    "uncovered_landmarks": "uncovered landmarks",
    "new_row_share": "new rows",
}


def draw(augmented: AugmentedData, path: Path) -> None:
    """Writes a PNG, whole or not at all; the same data give the same picture. Raises StorageError.

    Two rows of maps where the task has one, the original episodes above the synthetic ones, then one row of
    histograms.
    """
    import matplotlib as mpl  # 0.3 s, and not needed to print numbers
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    try:
        shown = pairs(augmented.task, augmented.original, augmented.synthetic, COLUMNS)
    except UsageError:
        shown = []
    with mpl.rc_context(RC):
        figure = Figure(figsize=(13, 11.2 if shown else 4.6), dpi=120, facecolor="white")
        FigureCanvasAgg(figure)
        _header(figure, augmented)
        outer = figure.add_gridspec(
            3 if shown else 1,
            1,
            height_ratios=(1, 1, 0.72) if shown else (1,),
            left=0.055,
            right=0.985,
            top=0.885 if shown else 0.74,
            bottom=0.06 if shown else 0.13,
            hspace=0.2,
        )
        _maps(figure, outer, shown)
        lower = outer[-1, 0].subgridspec(1, 3, wspace=0.24)
        axes = [figure.add_subplot(lower[0, i]) for i in range(3)]
        _returns(axes[0], augmented.quality.histograms)
        _errors(axes[1], augmented.quality.histograms)
        _acceptance(axes[2], augmented.diagnosis.get("generation", {}))
        content = io.BytesIO()
        figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def _header(figure: Figure, augmented: AugmentedData) -> None:
    height, metrics = figure.get_figheight(), augmented.quality.metrics
    title = f"{augmented.card.task}   {augmented.card.dataset}   →   {augmented.augmenter}"
    parts = [
        f"{augmented.synthetic.n_episodes:,} episodes",
        f"{augmented.synthetic.n_steps:,} transitions",
        str(augmented.card.origin),
        *(f"{label} {metrics[name].value:.3g}" for name, label in _TOLD.items() if metrics[name].value is not None),
    ]
    figure.text(0.055, 1 - 0.38 / height, title, fontsize=16, fontweight="bold")
    figure.text(0.055, 1 - 0.66 / height, "   ·   ".join(parts), fontsize=10, color=MUTED)


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
        0.055,
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


def _histogram(ax: Axes, histogram: PairedHistogram) -> None:
    from matplotlib.ticker import PercentFormatter

    edges = np.array(histogram.edges)
    for counts, colour, label, filled in (
        (histogram.original, ORIGINAL, "original", True),
        (histogram.synthetic, SYNTHETIC, "generated", False),
    ):
        share = np.array(counts) / max(1, sum(counts))
        look: dict[str, Any] = {"linewidth": 0, "fill": True, "alpha": 0.45} if filled else {"linewidth": 2}
        ax.stairs(share, edges, color=colour, label=label, **look)
    ax.set_ylim(0, ax.get_ylim()[1] * 1.12)
    ax.legend(frameon=False, fontsize=9, loc="best")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    finish(ax)


def _returns(ax: Axes, histograms: Mapping[str, PairedHistogram]) -> None:
    names = {"episode_return": "Return of an episode", "episode_reward_per_step": "Reward a step, by episode"}
    for name, title in names.items():
        if name in histograms:
            ax.set_title(title)
            _histogram(ax, histograms[name])
            ax.set_xlabel("as the data claim it")
            return
    say(ax, "no returns to compare")


def _errors(ax: Axes, histograms: Mapping[str, PairedHistogram]) -> None:
    ax.set_title("Error against the real engine")
    if "dynamics_error" not in histograms:
        say(ax, "the engine cannot be put into a recorded state")
        return
    _histogram(ax, histograms["dynamics_error"])
    ticks = range(-8, 3, 2)
    ax.set_xticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
    ax.set_xlabel("RMS error of the next observation (standard deviations)")


def _acceptance(ax: Axes, generation: Mapping[str, Any]) -> None:
    ax.set_title("Windows accepted, by position")
    rates = generation.get("acceptance_by_position") or []
    if not any(rate is not None for rate in rates):
        say(ax, "this method filters no windows" if not generation.get("windows") else "no window was seen")
        return
    known = [(position, rate) for position, rate in enumerate(rates) if rate is not None]
    ax.bar([p for p, _ in known], [r for _, r in known], width=0.86, color=SYNTHETIC, alpha=0.85)
    ax.set_ylim(0, 1.05)
    ax.set_yticks(np.linspace(0, 1, 5), ["0%", "25%", "50%", "75%", "100%"])
    rate, windows = generation.get("acceptance_rate"), generation.get("windows", 0)
    ax.set_xlabel("position in the episode" + ("" if rate is None else f"   ·   {rate:.1%} of {windows:,} in all"))
    finish(ax)
