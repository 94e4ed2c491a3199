"""One picture of a dataset: returns, episode lengths, action use and who acted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.common.files import write_bytes
from tasks.datasets.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e8ec"
BLUE, ORANGE = "#2a6f97", "#d1603d"
BEHAVIOUR_COLOURS = {
    "expert": "#2a6f97",
    "medium": "#8ab6cf",
    "learner": "#7a6ba8",
    "random": "#d9a441",
    "unknown": "#b8bfc6",
}
AGENT_COLOURS = ("#2a6f97", "#d1603d", "#5a8f5c", "#7a6ba8", "#d9a441", "#4b5563", "#b0527a", "#3d9a94")


def draw(summary: Summary, path: Path) -> None:
    """Writes a PNG of four panels, whole or not at all. Raises StorageError."""
    import matplotlib as mpl  # 0.3 s, and not needed to print numbers
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 10.5,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.edgecolor": "#b8bfc6",
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": INK,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 7.6), dpi=130, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        figure.subplots_adjust(left=0.075, right=0.975, top=0.845, bottom=0.085, hspace=0.42, wspace=0.2)
        figure.text(0.075, 0.945, f"{summary.task}   {summary.dataset}", fontsize=16, fontweight="bold")
        figure.text(0.075, 0.908, _subtitle(summary), fontsize=10.5, color=MUTED)
        _returns(axes[0, 0], summary)
        _lengths(axes[0, 1], summary)
        _actions(axes[1, 0], summary)
        _behaviour(axes[1, 1], summary)
        for ax in axes.flat:
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_axisbelow(True)
            ax.tick_params(length=3)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def _subtitle(summary: Summary) -> str:
    parts = [f"{summary.episodes:,} episodes", f"{summary.steps:,} transitions"]
    if summary.returns is not None:
        parts.append(f"team return {summary.returns.mean:.1f} ± {summary.returns.std:.1f}")
    if summary.normalised_mean is not None:
        parts.append(f"normalised {summary.normalised_mean:.1f}")
    if summary.win_rate is not None:
        parts.append(f"win rate {summary.win_rate:.0%}")
    parts.append(summary.source if summary.seed is None else f"{summary.source}, seed {summary.seed}")
    return "   ·   ".join(parts)


def _returns(ax: Axes, summary: Summary) -> None:
    ax.set_title("Team return of an episode")
    histogram = summary.return_histogram
    if summary.returns is None:
        _say(ax, "no episodes")
        return
    edges, low, high = np.array(histogram.edges), summary.returns.deciles[0], summary.returns.deciles[-1]
    ax.axvspan(low, high, color=ORANGE, alpha=0.10, linewidth=0, zorder=0)
    ax.bar(edges[:-1], histogram.counts, np.diff(edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.6)
    ax.axvline(summary.returns.mean, color=ORANGE, linewidth=2)
    ax.set_xlabel(f"line: mean {summary.returns.mean:.1f}   ·   shade: 10% to 90%, {low:.0f} to {high:.0f}")
    ax.set_ylabel("episodes")
    ax.grid(axis="y", color=GRID)


def _lengths(ax: Axes, summary: Summary) -> None:
    ax.set_title("Episode length")
    if not summary.lengths:
        _say(ax, "no episodes")
        return
    lengths = np.array(list(summary.lengths))
    counts = np.array(list(summary.lengths.values()))
    whole = np.arange(lengths.min(), lengths.max() + 2) - 0.5
    bins = whole if len(whole) <= 60 else np.histogram_bin_edges(lengths, 40)
    ax.hist(lengths, bins=bins.tolist(), weights=counts, color=BLUE, edgecolor="white", linewidth=0.6)
    if len(lengths) == 1:
        ax.set_xlim(0, lengths[0] * 1.25 + 1)
        ax.set_xlabel(f"transitions   ·   every episode has {lengths[0]:,}")
    else:
        ax.axvline(summary.mean_length or 0.0, color=ORANGE, linewidth=2)
        ax.set_xlabel(f"transitions   ·   line: mean {summary.mean_length:.1f}")
    ax.set_ylabel("episodes")
    ax.grid(axis="y", color=GRID)


def _actions(ax: Axes, summary: Summary) -> None:
    if summary.action_use and summary.steps:
        ax.set_title("Action use, share by agent")
        use = np.array(summary.action_use)  # (N, A)
        agents, size = use.shape
        if agents > len(AGENT_COLOURS) or size > 12:
            image = ax.imshow(use, aspect="auto", cmap="Blues", vmin=0)
            ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
            ax.set_ylabel("agent")
            ax.set_xlabel("action")
            return
        width = 0.8 / agents
        for agent in range(agents):
            positions = np.arange(size) + (agent - (agents - 1) / 2) * width
            ax.bar(positions, use[agent], width * 0.92, color=AGENT_COLOURS[agent], label=f"agent {agent}")
        slanted = {"rotation": 35.0, "ha": "right", "rotation_mode": "anchor"}
        turned: dict[str, Any] = slanted if size > 6 else {}  # or names overlap
        ax.set_xticks(range(size), [name.replace("_", "-") for name in summary.action_names], **turned)
        ax.set_ylim(0, use.max() * 1.25)
        ax.legend(frameon=False, ncols=min(agents, 4), fontsize=9.5, loc="upper left", borderaxespad=0.2)
        ax.set_ylabel("share of steps")
    elif summary.action_histograms:
        ax.set_title("Action use, all agents")
        top = 0.0
        for i, histogram in enumerate(summary.action_histograms):
            share = np.array(histogram.counts) / max(1, sum(histogram.counts))
            colour = AGENT_COLOURS[i % len(AGENT_COLOURS)]
            style, label = ("-", "--", ":", "-.")[i % 4], summary.action_names[i].replace("_", " ")
            ax.stairs(share, histogram.edges, color=colour, linewidth=2, linestyle=style, label=label)
            top = max(top, float(share.max()))
        ax.set_ylim(0, top * 1.2)  # room for the legend
        ax.legend(frameon=False, ncols=4, fontsize=9.5, loc="upper left", borderaxespad=0.2)
        ax.set_xlabel(f"value   ·   {summary.saturated:.0%} of entries at a bound")
        ax.set_ylabel("share of entries")
    else:
        ax.set_title("Action use")
        _say(ax, "no steps")
        return
    ax.grid(axis="y", color=GRID)


def _behaviour(ax: Axes, summary: Summary) -> None:
    ax.set_title("Who acted (methods do not see it)")
    if not summary.behaviour_by_agent:
        _say(ax, "not recorded")
        return
    rows = [*summary.behaviour_by_agent, summary.behaviour_mix]
    labels = [*(f"agent {agent}" for agent in range(len(rows) - 1)), "team"]
    left = np.zeros(len(rows))
    for name in summary.behaviour_mix:
        share = np.array([row.get(name, 0.0) for row in rows])
        colour = BEHAVIOUR_COLOURS.get(name, "#b8bfc6")
        ax.barh(range(len(rows)), share, left=left, height=0.68, color=colour, edgecolor="white", label=name)
        for row, (start, part) in enumerate(zip(left, share, strict=True)):
            if part > 0.07 and len(rows) < 16:
                ink = "white" if name in ("expert", "learner") else INK
                ax.text(start + part / 2, row, f"{part:.0%}", ha="center", va="center", color=ink, fontsize=10)
        left += share
    ax.set_yticks(range(len(rows)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xticks(np.linspace(0, 1, 5), ["0%", "25%", "50%", "75%", "100%"])
    ax.legend(frameon=False, ncols=4, loc="upper right", bbox_to_anchor=(1.0, -0.08), fontsize=9.5, borderaxespad=0.2)


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=MUTED, fontsize=12)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
