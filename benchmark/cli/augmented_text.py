"""Augmented data in the terminal: quality beside the original, and what the generation told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.augmented import AugmentedData


def print_augmented(augmented: AugmentedData) -> None:
    """The tables that follow those of the data themselves."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"\n[bold]Quality[/bold] (docs/quality.md)  [dim]original: {escape(augmented.card.dataset)}[/dim]")
    console.print(_quality_table(augmented))
    generation = augmented.diagnosis.get("generation")
    if generation:
        console.print("\n[bold]Generation[/bold]")
        console.print(_facts_table(_generation_facts(generation)))
        positions = generation.get("acceptance_by_position") or []
        if positions:
            console.print("\n[bold]Accepted, by position in the episode[/bold]")
            console.print(_position_bars(positions))
    fitted = _fit_facts(augmented.diagnosis)
    if fitted:
        console.print("\n[bold]Fit[/bold]")
        console.print(_facts_table(fitted))


def document(augmented: AugmentedData) -> dict[str, Any]:
    """What is printed, as JSON values."""
    return {
        "original_path": str(augmented.original_path),
        "augmenter": augmented.augmenter,
        "quality": augmented.quality.document(),
        "diagnosis": dict(augmented.diagnosis),
    }


def _quality_table(augmented: AugmentedData) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("metric")
    for name in ("synthetic", "original"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, metric in augmented.quality.metrics.items():
        note = metric.reason or "  ".join(f"{key} {_number(value)}" for key, value in metric.details.items())
        value = "–" if metric.value is None else _number(metric.value)
        table.add_row(
            name, value, "" if metric.original is None else _number(metric.original), f"[dim]{escape(note)}[/dim]"
        )
    return table


def _generation_facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("windows", f"{told.get('windows', 0):,}, accepted {told.get('accepted', 0):,}")]
    if told.get("acceptance_rate") is not None:
        facts[0] = ("windows", f"{facts[0][1]} ({told['acceptance_rate']:.1%})")
    if told.get("threshold_kind") not in (None, "none"):
        calibrated = told.get("calibrated_threshold")
        beside = (
            "" if calibrated is None or told["threshold_kind"] == "calibrated" else f", calibrated {calibrated:.4g}"
        )
        threshold = "no limit" if told.get("threshold") is None else f"{told['threshold']:.4g}"
        facts.append(("threshold", f"{threshold} ({told['threshold_kind']}){beside}"))
    if told.get("rejected"):
        facts.append(("rejected", "  ".join(f"{reason} {count:,}" for reason, count in told["rejected"].items())))
    if told.get("episodes_discarded"):
        facts.append(("episodes given up", f"{told['episodes_discarded']:,}"))
    if told.get("sampler"):
        facts.append(("sampler", "  ".join(f"{key} {value}" for key, value in told["sampler"].items())))
    if told.get("seconds"):
        facts.append(("seconds", _seconds(told["seconds"])))
    known = {"windows", "accepted", "acceptance_rate", "acceptance_by_position", "threshold", "threshold_kind",
             "calibrated_threshold", "rejected", "episodes_discarded", "sampler", "seconds"}  # fmt: skip
    return facts + _scalars({key: value for key, value in told.items() if key not in known})


def _fit_facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = _scalars(told)
    if isinstance(told.get("seconds"), Mapping):
        facts.append(("seconds", _seconds(told["seconds"])))
    return facts


def _scalars(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    plain = {key: value for key, value in told.items() if isinstance(value, int | float | str)}
    return [(key.replace("_", " "), _number(value)) for key, value in plain.items()]


def _seconds(stages: Mapping[str, float]) -> str:
    return "  ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _facts_table(facts: list[tuple[str, str]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in facts:
        table.add_row(f"[dim]{escape(label)}[/dim]", escape(value))
    return table


def _position_bars(rates: list[float | None]) -> Any:
    """One line a position; at most 25, then neighbours are left out evenly."""
    from rich.table import Table

    stride = -(-len(rates) // 25)
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for position in range(0, len(rates), stride):
        rate = rates[position]
        if rate is not None:
            table.add_row(f"{position}", f"[cyan]{'█' * round(30 * rate)}[/cyan]", f"{rate:.0%}")
    return table
