"""The leaderboard of a board: one table for every choice of the filters, profiles and cost; CSV and JSON beside it."""

from __future__ import annotations

import json

import numpy as np
from markupsafe import Markup

from leaderboard import statistics
from leaderboard.pages.context import BoardSite, Scalar, estimate_text, number
from leaderboard.pages.figures import as_svg, colours, figure, line_styles
from leaderboard.ranking import Ranking, Row, resamplings
from leaderboard.scores import Selection, score_matrix
from leaderboard.statistics import Estimate

# key, heading, what it means
COLUMNS = (
    ("augmenter", "Augmenter", "Controls are marked"),
    ("tier", "Tier", "Methods whose lift intervals do not separate from the tier's leader share the tier"),
    ("lift", "Lift over original", "IQM of the paired differences to `original`: same cell, same seed"),
    ("plot", "95% interval", "Of the lift; the vertical line is `original`"),
    ("n", "n", "Independent replicates: augmented sets, each with its own learner seed"),
    ("iqm", "IQM", "Interquartile mean of the normalised score: 0 random policy, 100 expert"),
    ("improvement", "P(improvement)", "Probability that a run scores more than one of `original`"),
    ("median", "Median", "Median over cells of the mean score"),
    ("mean", "Mean", "Mean score"),
    ("gap", "Optimality gap", "Mean shortfall to the expert's 100; smaller is better"),
    ("runs", "Runs", "Records in this selection, and how many ended without a policy"),
    ("cost", "Cost (s)", "Mean seconds of fitting and generating, per augmented set"),
)


def publish(site: BoardSite) -> None:
    """Writes `index.html`, `leaderboard.csv` and `leaderboard.json` of a board."""
    views = {_view_key(selection): view(ranking) for selection, ranking in site.rankings.items()}
    cells = site.board.cells
    site.render(
        "ranking.html.jinja",
        "index.html",
        columns=COLUMNS,
        default=view(site.overall),
        views=views,
        filters={axis: sorted({str(getattr(cell, axis)) for cell in cells}) for axis in ("task", "dataset", "learner")},
        profile=profile_figure(site),
        cost=cost_figure(site),
    )
    flat = [flat_row(ranking, row) for ranking in site.rankings.values() for row in ranking.rows]
    site.site.write_csv(site.path("leaderboard.csv"), flat)
    notes = {"/".join(part or "all" for part in s.key): r.grid.notes for s, r in site.rankings.items() if r.grid.notes}
    site.site.write_json(site.path("leaderboard.json"), {"board": site.board.key.title, "rows": flat, "notes": notes})


def view(ranking: Ranking) -> dict[str, object]:
    """A ranking as the page shows it: for each row its cells as [value to sort by, text], and the plot in percent."""
    bounds = [
        bound
        for row in ranking.rows
        if row.lift
        for bound in (row.lift.value, row.lift.low, row.lift.high)
        if bound is not None
    ]
    low, high = min([0.0, *bounds]), max([0.0, *bounds])
    span = (high - low) or 1.0

    def percent(value: float) -> float:
        return round(4 + 92 * (value - low) / span, 2)

    return {
        "rows": [_shown(row, percent(0.0), [percent(v) for v in _bar(row.lift)]) for row in ranking.rows],
        "notes": ranking.grid.notes,
        "cells": len(ranking.grid.cells),
        "seeds": len(ranking.grid.seeds),
    }


def flat_row(ranking: Ranking, row: Row) -> dict[str, Scalar]:
    """A row of the CSV and JSON files; `all` stands for every task, dataset or learner."""
    task, dataset, learner = (part or "all" for part in ranking.selection.key)
    flat: dict[str, Scalar] = {
        "task": task,
        "dataset": dataset,
        "learner": learner,
        "augmenter": row.augmenter,
        "control": row.control,
        "tier": row.tier,
        "n": row.n,
        "cells": len(ranking.grid.cells),
        "runs": row.runs,
        "without_policy": row.without_policy,
    }
    for name in ("lift", "mean_lift", "iqm", "median", "mean", "optimality_gap", "improvement"):
        estimate: Estimate | None = getattr(row, name)
        flat[name] = estimate.value if estimate else None
        flat[f"{name}_low"] = estimate.low if estimate else None
        flat[f"{name}_high"] = estimate.high if estimate else None
    flat["cost_seconds"] = row.cost_seconds
    flat["not_ranked"] = row.not_ranked
    return flat


def profile_figure(site: BoardSite) -> Markup | None:
    """Performance profiles of the whole board: the share of runs above each score."""
    ranked = [row.augmenter for row in site.overall.rows if row.not_ranked is None]
    if not ranked:
        return None
    matrices = {name: score_matrix(site.board, name, site.overall.grid) for name in sorted(ranked)}
    every = np.concatenate([matrix.scores.ravel() for matrix in matrices.values()])
    thresholds = np.linspace(np.floor(every.min()) - 1, np.ceil(every.max()) + 1, 81)
    shades, lines = colours(site.board.augmenters), line_styles(site.board.augmenters)
    with figure((7.2, 3.6)) as (fig, (axes,)):
        for name, matrix in matrices.items():
            draws, _ = resamplings(site.board, matrix)
            profile = statistics.performance_profile(matrix.scores, thresholds, draws)
            axes.plot(thresholds, [e.value for e in profile], lines[name], color=shades[name], label=name)
            if profile[0].low is not None:
                lows, highs = [e.low or 0.0 for e in profile], [e.high or 0.0 for e in profile]
                axes.fill_between(thresholds, lows, highs, color=shades[name], alpha=0.15, linewidth=0)
        axes.set(xlabel="normalised score τ", ylabel="share of runs above τ", ylim=(-0.02, 1.02))
        fig.legend(loc="outside upper left", ncols=4)
        return as_svg(fig, "profile", "Performance profiles: share of runs above each normalised score, by augmenter")


def cost_figure(site: BoardSite) -> Markup | None:
    """Lift against the seconds that fitting and generating took."""
    points = [
        (row, row.lift, row.cost_seconds) for row in site.overall.rows if row.lift and row.cost_seconds is not None
    ]
    if not points:
        return None
    shades = colours(site.board.augmenters)
    with figure((7.2, 3.6)) as (fig, (axes,)):
        for row, lift, seconds in points:
            low, high = (bound if bound is not None else lift.value for bound in (lift.low, lift.high))
            bars = [[max(lift.value - low, 0.0)], [max(high - lift.value, 0.0)]]
            axes.errorbar(
                [seconds],
                [lift.value],
                yerr=bars,
                fmt="s" if row.control else "o",
                color=shades[row.augmenter],
                capsize=3,
                label=row.augmenter,
            )
        axes.axhline(0.0, color="#8a8f98", linewidth=1, linestyle=":")
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=-0.1)
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
        axes.set(xlabel="seconds of fitting and generating, per augmented set", ylabel="lift over original")
        fig.legend(loc="outside upper left", ncols=4)
        return as_svg(fig, "cost", "Lift over original against the seconds of fitting and generating, by augmenter")


def _shown(row: Row, zero: float, bar: list[float]) -> dict[str, object]:
    texts: dict[str, tuple[float | str | None, str]] = {
        "tier": (row.tier, number(row.tier, 0)),
        "augmenter": (row.augmenter, row.augmenter),
        "lift": _pair(row.lift),
        "plot": (None, ""),
        "iqm": _pair(row.iqm),
        "improvement": _pair(row.improvement, 2),
        "median": _pair(row.median),
        "mean": _pair(row.mean),
        "gap": _pair(row.optimality_gap),
        "n": (row.n or None, str(row.n or "–")),
        "runs": (row.runs, f"{row.runs} ({row.without_policy} failed)" if row.without_policy else str(row.runs)),
        "cost": (row.cost_seconds, number(row.cost_seconds, 1)),
    }
    cells = [texts[key] for key, _, _ in COLUMNS]
    return {
        "name": row.augmenter,
        "control": row.control,
        "why": row.not_ranked,
        "cells": cells,
        "bar": bar,
        "zero": zero,
    }


def _pair(estimate: Estimate | None, digits: int = 1) -> tuple[float | None, str]:
    return (estimate.value if estimate else None, estimate_text(estimate, digits))


def _bar(lift: Estimate | None) -> list[float]:
    if lift is None:
        return []
    low, high = (bound if bound is not None else lift.value for bound in (lift.low, lift.high))
    return [low, lift.value, high]


def _view_key(selection: Selection) -> str:
    """What `JSON.stringify` makes of the three filters."""
    return json.dumps(selection.key, separators=(",", ":"), ensure_ascii=False)
