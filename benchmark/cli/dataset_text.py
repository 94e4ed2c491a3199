"""Datasets in the terminal: what `bench data inspect` and `verify` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmark.cli.options import print_rows

if TYPE_CHECKING:
    from tasks.datasets.summary import Histogram, Summary
    from tasks.datasets.verify import Finding


def print_summary(summary: Summary, path: Path) -> None:
    """What a dataset holds, as tables and bars."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{escape(summary.task)}  {escape(summary.dataset)}[/bold]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in _facts(summary):
        table.add_row(f"[dim]{label}[/dim]", escape(value))
    console.print(table)
    typer.echo(path)  # not in the table, which would cut it
    if summary.returns is not None:
        console.print("\n[bold]Team return of an episode[/bold]")
        console.print(_bars(summary.return_histogram, 12))
    if len(summary.lengths) > 1:
        console.print("\n[bold]Episode length[/bold]")
        console.print(_bars(_length_histogram(summary.lengths), 8))
    for name, histogram in zip(summary.action_names, summary.action_histograms, strict=False):
        console.print(f"\n[bold]Action {escape(name)}[/bold] (all agents)")
        console.print(_bars(histogram, 7))
    shares = {
        f"agent {i}": dict(zip(summary.action_names, use, strict=True)) for i, use in enumerate(summary.action_use)
    }
    behaviour = {f"agent {i}": mix for i, mix in enumerate(summary.behaviour_by_agent)}
    for title, rows in (("Action use", shares), ("Who acted (methods do not see it)", behaviour)):
        if rows:
            console.print(f"\n[bold]{title}[/bold]")
            console.print(_share_table(rows))


def print_ordered(summaries: Sequence[Summary]) -> None:
    """One line a dataset; a mean return with the 95% interval over episodes."""
    header = ("dataset", "mean return", "normalised", "win rate", "length", "episodes", "transitions")
    rows: list[tuple[str, ...]] = [
        (
            summary.dataset,
            _mean(summary),
            "-" if summary.normalised_mean is None else f"{summary.normalised_mean:.1f}",
            "-" if summary.win_rate is None else f"{summary.win_rate:.1%}",
            "-" if summary.mean_length is None else f"{summary.mean_length:.1f}",
            f"{summary.episodes:,}",
            f"{summary.steps:,}",
        )
        for summary in summaries
    ]
    print_rows(header, rows)


def _mean(summary: Summary) -> str:
    if summary.mean_return is None or summary.mean_interval is None:
        return "-"
    low, high = summary.mean_interval
    return f"{summary.mean_return:.2f} [{low:.2f}, {high:.2f}]"


def _facts(summary: Summary) -> list[tuple[str, str]]:
    facts = [
        ("episodes", f"{summary.episodes:,}"),
        ("transitions", f"{summary.steps:,}"),
        ("size", f"{summary.bytes / 1e6:.1f} MB"),
        ("source", summary.source if summary.seed is None else f"{summary.source}, seed {summary.seed}"),
    ]
    if summary.returns is not None:
        stats = summary.returns
        facts.append(("mean return", f"{_mean(summary)}, 95% interval over episodes"))
        facts.append(("returns", f"{stats.min:.2f} to {stats.max:.2f}, standard deviation {stats.std:.2f}"))
        facts.append(("deciles", "  ".join(f"{value:.0f}" for value in stats.deciles)))
        facts.append(("by agent", "  ".join(f"{value:.1f}" for value in summary.agent_returns)))
    if summary.normalised_mean is not None:
        facts.append(("normalised", f"{summary.normalised_mean:.1f} (random 0, expert 100)"))
    if summary.mean_length is not None:
        facts.append(("length", f"{summary.mean_length:.1f} steps, {summary.terminal_share:.0%} true ends"))
    if summary.win_rate is not None:
        facts.append(("win rate", f"{summary.win_rate:.1%}"))
    if summary.saturated is not None:
        facts.append(("actions", f"{summary.saturated:.1%} of entries at a bound"))
    return facts


def _bars(histogram: Histogram, rows: int) -> Any:
    """A histogram as lines of blocks, neighbouring bins merged to at most `rows`."""
    from rich.table import Table

    step = -(-len(histogram.counts) // rows)
    counts = [sum(histogram.counts[i : i + step]) for i in range(0, len(histogram.counts), step)]
    edges = [*histogram.edges[:-1:step], histogram.edges[-1]]
    digits = 0 if max(map(abs, edges)) >= 100 else 2
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for column in ("right", "left", "right"):
        table.add_column(justify=column)
    for i, count in enumerate(counts):
        width = 40 * count / max(1, *counts)
        bar = "█" * int(width) + ("▌" if width % 1 >= 0.5 else "▏" if count and width < 0.5 else "")
        table.add_row(f"{edges[i]:.{digits}f} to {edges[i + 1]:.{digits}f}", f"[cyan]{bar}[/cyan]", f"{count:,}")
    return table


def _length_histogram(lengths: dict[int, int]) -> Histogram:
    import numpy as np

    from tasks.datasets.summary import Histogram

    return Histogram.of(np.repeat(list(lengths), list(lengths.values())), 8)


def _share_table(rows: dict[str, dict[str, float]]) -> Any:
    from rich.table import Table

    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for name in names:
        table.add_column(name.replace("_", "-"), justify="right")
    for label, row in rows.items():
        table.add_row(label, *(f"{row.get(name, 0.0):.1%}" for name in names))
    return table


def print_findings(findings: list[Finding], path: Path) -> None:
    """What verifying found, one line a check."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    typer.echo(path)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red bold]FAILED[/red bold]"
        table.add_row(mark, finding.name, escape(finding.detail))
    console.print(table)
