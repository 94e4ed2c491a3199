"""The panels of the picture of augmented data: one function each, drawn where there is something to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.pictures.style import GRID, INK, MUTED, ORIGINAL, SYNTHETIC, finish
from benchmark.quality.coverage import Map, on_the_map
from benchmark.quality.report import Curve, Measurement, PairedHistogram
from benchmark.quality.subject import Subject
from tasks.common.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmark.augmented import AugmentedData

Panel = Callable[["Axes"], None]

_CLAIMED, _PAID = "as the data claim it", "as the engine pays for the same transitions"
_DISTRIBUTIONS = {  # of the report: title, what the axis shows, the metric told beside it
    "episode_return": ("Return of an episode", _CLAIMED, None),
    "episode_reward_per_step": ("Reward a step, by episode", _CLAIMED, None),
    "step_reward": ("Reward of a step", _CLAIMED, "reward_distance"),
    "oracle_reward": ("Reward of a step, in truth", _PAID, None),
    "return_to_go": ("Value: discounted return-to-go", _CLAIMED, "value_distance"),
}
_TICKS = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)]


def panels(augmented: AugmentedData) -> list[Panel]:
    """All that these data have, in the order of drawing."""
    quality = augmented.quality
    found: list[Panel] = []
    for name, (title, axis, metric) in _DISTRIBUTIONS.items():
        if name in quality.histograms:
            told = None if metric is None else quality.metrics.get(metric)
            found.append(_distribution(quality.histograms[name], title, axis, told))
    if "dynamics_error" in quality.histograms:
        found.append(_errors(quality.histograms["dynamics_error"]))
    try:
        subject = Subject(augmented.original, augmented.synthetic, augmented.task, None, quality.seed)
        found.append(_coverage(on_the_map(subject), quality.metrics))
    except UsageError:  # nothing varies, or there is nothing
        pass
    drawn, told = quality.curves.get("attention_by_inverse_distance"), quality.metrics.get("attention_correlation")
    if drawn is not None and told is not None:
        found.append(_attention(drawn, told))
    fire = quality.metrics.get("focus_fire")
    if fire is not None and fire.value is not None:
        found.append(_focus(fire))
    generation = augmented.diagnosis.get("generation", {})
    if any(rate is not None for rate in generation.get("acceptance_by_position") or []):
        found.append(_acceptance(generation))
    return found


def histogram(ax: Axes, values: PairedHistogram) -> None:
    """Shares of the original values, filled, behind those of the synthetic ones."""
    edges = np.array(values.edges)
    for counts, colour, label, filled in (
        (values.original, ORIGINAL, "original", True),
        (values.synthetic, SYNTHETIC, "generated", False),
    ):
        share = np.array(counts) / max(1, sum(counts))
        look: dict[str, Any] = {"linewidth": 0, "fill": True, "alpha": 0.45} if filled else {"linewidth": 2}
        ax.stairs(share, edges, color=colour, label=label, **look)
    ax.set_ylim(0, ax.get_ylim()[1] * 1.12)
    ax.legend(frameon=False, fontsize=9, loc="best")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    finish(ax)


def _distribution(values: PairedHistogram, title: str, axis: str, told: Measurement | None) -> Panel:
    beside = "" if told is None or told.value is None else f"   ·   distance {told.value:.2g} σ"

    def draw(ax: Axes) -> None:
        ax.set_title(title)
        histogram(ax, values)
        ax.set_xlabel(axis + beside)

    return draw


def _errors(values: PairedHistogram) -> Panel:
    def draw(ax: Axes) -> None:
        ax.set_title("Error against the real engine")
        histogram(ax, values)
        ticks = range(-8, 3, 2)
        ax.set_xticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
        ax.set_xlabel("RMS error of the next observation, in σ")

    return draw


def _coverage(shown: Map, metrics: Mapping[str, Measurement]) -> Panel:
    """The points that the metrics count, and the cells in which they count them."""

    def draw(ax: Axes) -> None:
        ax.set_title("Observations and actions")
        low, high = shown.original.min(axis=0), shown.original.max(axis=0)
        columns, rows = (np.linspace(low[axis], high[axis], shown.a_side + 1) for axis in range(2))
        ax.vlines(columns, low[1], high[1], color=GRID, linewidth=0.7, zorder=1)
        ax.hlines(rows, low[0], high[0], color=GRID, linewidth=0.7, zorder=1)
        look: dict[str, Any] = {"s": 5, "linewidths": 0}
        ax.scatter(*shown.original.T, color=ORIGINAL, alpha=0.55, label="original", zorder=2, **look)
        ax.scatter(*shown.synthetic.T, color=SYNTHETIC, alpha=0.4, label="generated", zorder=3, **look)
        every = np.concatenate([shown.original, shown.synthetic])
        ends = np.quantile(every, (0.002, 0.998), axis=0)  # a few far away must not make the rest a speck
        ends = np.stack([np.minimum(ends[0], low), np.maximum(ends[1], high)])
        margin = 0.04 * (ends[1] - ends[0]) + 1e-9
        ax.set_xlim(ends[0, 0] - margin[0], ends[1, 0] + margin[0])
        ax.set_ylim(ends[0, 1] - margin[1], ends[1, 1] + 4.5 * margin[1])
        legend = ax.legend(
            frameon=False, fontsize=9, loc="upper right", ncols=2, handletextpad=0.1, columnspacing=0.8, markerscale=2.2
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)
        ax.set_xlabel(f"two principal components, {shown.plane.explained:.0%} of the variance{_shares(metrics)}")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_color(GRID)

    return draw


def _shares(metrics: Mapping[str, Measurement]) -> str:
    named = {"covered": metrics.get("covered_share"), "inside": metrics.get("inside_share")}
    known = [f"{name} {told.value:.0%}" for name, told in named.items() if told and told.value is not None]
    return "\n" + "   ·   ".join(known) if known else ""


def _attention(values: Curve, told: Measurement) -> Panel:
    def draw(ax: Axes) -> None:
        from matplotlib.ticker import NullFormatter, NullLocator

        ax.set_title("Attention to another agent")
        ax.plot(values.x, values.y, "o-", color=SYNTHETIC, linewidth=1.6, markersize=4.5)
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ticks = [tick for tick in _TICKS if values.x[0] <= tick <= values.x[-1]]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_ylim(0, max(values.y, default=0.0) * 1.2 or 1.0)
        rank = "" if told.value is None else f"   ·   rank correlation {told.value:.2f}".replace("-", "−")
        ax.set_xlabel("1 / distance" + rank)
        ax.set_ylabel("mean weight")
        finish(ax)

    return draw


def _focus(told: Measurement) -> Panel:
    groups = {
        "attackers whose enemy\nanother attacks too": (told.original, told.value),
        "where all attack:\nall the same enemy": (
            told.details.get("original_all_on_one"),
            told.details.get("all_on_one"),
        ),
    }

    def draw(ax: Axes) -> None:
        ax.set_title("Focus fire")
        for side, (label, colour) in enumerate((("original", ORIGINAL), ("generated", SYNTHETIC))):
            bars = [(place, pair[side]) for place, pair in enumerate(groups.values())]
            known = [(place + 0.36 * (side - 0.5), float(share)) for place, share in bars if isinstance(share, float)]
            drawn = ax.bar(
                [place for place, _ in known],
                [share for _, share in known],
                width=0.34,
                color=colour,
                alpha=0.85,
                label=label,
            )
            ax.bar_label(drawn, [f"{share:.0%}" for _, share in known], fontsize=9, color=INK)
        ax.set_xlim(-0.6, len(groups) - 0.4)
        _percent(ax, 1.25)
        ax.set_xticks(range(len(groups)), list(groups))
        ax.tick_params(axis="x", length=0, colors=MUTED)
        ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
        finish(ax)

    return draw


def _acceptance(generation: Mapping[str, Any]) -> Panel:
    rates = generation["acceptance_by_position"]
    known = [(position, rate) for position, rate in enumerate(rates) if rate is not None]
    rate, windows = generation.get("acceptance_rate"), generation.get("windows", 0)

    def draw(ax: Axes) -> None:
        ax.set_title("Windows accepted, by position")
        ax.bar([p for p, _ in known], [r for _, r in known], width=0.86, color=SYNTHETIC, alpha=0.85)
        _percent(ax, 1.05)
        ax.set_xlabel("position in the episode" + ("" if rate is None else f"   ·   {rate:.1%} of {windows:,}"))
        finish(ax)

    return draw


def _percent(ax: Axes, top: float) -> None:
    ax.set_ylim(0, top)
    ax.set_yticks(np.linspace(0, 1, 5), ["0%", "25%", "50%", "75%", "100%"])
