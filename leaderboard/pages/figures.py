"""Figures as SVG text that can stand inside a page: no fixed colours for text, no clock, no random ids."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from leaderboard.scores import is_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"  # replaced by the page's text colour, light or dark
_COLOURS = ("#3b82c4", "#d9822b", "#2a9d6f", "#c2609e", "#8a63d2", "#1f9aa8", "#d1495b", "#9a7b4f")
_CONTROL_COLOURS = {
    "original": "#8a8f98",
    "duplicate": "#b59a3c",
    "noise": "#6f7fbf",
    "noise-s4rl": "#7f6fae",
    "more-real-data": "#5aa05a",
}
_SETTINGS: Any = {  # matplotlib types these with a literal of every key it has
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def colours(augmenters: Sequence[str]) -> dict[str, str]:
    """A colour for each augmenter, readable on light and dark ground; controls keep theirs on every page."""
    contestants = [name for name in augmenters if not is_control(name)]
    chosen = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(contestants)}
    controls = {name: _CONTROL_COLOURS[name.partition("[")[0]] for name in augmenters if is_control(name)}
    return {**chosen, **controls}


def line_styles(augmenters: Sequence[str]) -> dict[str, str]:
    """A line for each augmenter: dashed for controls, dotted where the colours begin again."""
    contestants = [name for name in augmenters if not is_control(name)]
    lines = {name: ("-", ":", "-.")[index // len(_COLOURS) % 3] for index, name in enumerate(contestants)}
    return {name: lines.get(name, "--") for name in augmenters}


@contextmanager
def figure(size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `size` inches and its axes row by row, outside pyplot's global state."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        fig = Figure(figsize=size, layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False)
        yield fig, list(axes.flat)


def as_svg(fig: Figure, name: str, description: str) -> Markup:
    """The figure as an <svg> element. `name` keeps its ids apart from other figures of the page."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-').replace(_INK, "currentColor")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(description), svg, count=1, flags=re.DOTALL)
    return Markup(svg)


def _opening(description: str) -> str:
    label = str(escape(description)).replace("\\", "")
    return (
        r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" viewBox="\1" '
        f'aria-label="{label}">'
    )
