"""Colours and text of all drawings. Agent colours are those of Okabe and Ito, told apart with any colour vision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.datasets.draw import GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AGENTS", "GRID", "INK", "MUTED", "ORIGINAL", "RC", "SYNTHETIC", "finish", "say"]

AGENTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4B5563", "#8C6D31")
ORIGINAL, SYNTHETIC = "#8A949E", "#0072B2"

RC: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": "#b8bfc6",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
}


def finish(ax: Axes) -> None:
    """A plain panel with a light grid behind."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=GRID)
    ax.tick_params(length=3)


def say(ax: Axes, text: str) -> None:
    """One sentence where there is nothing to draw."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=MUTED, wrap=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
