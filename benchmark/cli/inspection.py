"""What `bench data inspect` shows of a dataset, and of augmented data beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmark.cli.dataset_text import print_ordered, print_summary
from benchmark.cli.options import print_json
from tasks.common.errors import UsageError
from tasks.datasets import store
from tasks.datasets.summary import Summary, summarise
from tasks.registry import make_task

if TYPE_CHECKING:
    from benchmark.augmented import AugmentedData
    from tasks.datasets.offline import OfflineDataset


def show(path: Path, *, plot: Path | None, as_json: bool) -> None:
    """A dataset as text or JSON, and as a picture of four panels. Raises DataError if it is damaged."""
    summary = _summary_of(path)
    if plot is not None:
        from tasks.datasets.draw import draw

        draw(summary, plot)
        typer.echo(f"wrote {plot}", err=True)
    if as_json:
        typer.echo(json.dumps({**summary.document(), "path": str(path)}, indent=1))
    else:
        print_summary(summary, path)


def show_ordered(paths: Sequence[Path], *, as_json: bool) -> None:
    """Datasets of one task from the highest mean return to the lowest. Raises DataError if one is damaged."""
    summaries = map(_summary_of, paths)
    ordered = sorted(summaries, key=lambda s: -math.inf if s.mean_return is None else s.mean_return, reverse=True)
    if as_json:
        print_json([_ordered_row(summary) for summary in ordered])
    else:
        print_ordered(ordered)


def _ordered_row(summary: Summary) -> dict[str, Any]:
    names = ("task", "dataset", "seed", "episodes", "steps", "mean_return", "mean_interval", "normalised_mean")
    return {name: getattr(summary, name) for name in (*names, "win_rate", "mean_length")}


def show_augmented(augmented: AugmentedData, *, plot: Path | None, as_json: bool) -> None:
    """The same of augmented data, with their quality and what the generation told; another picture."""
    from benchmark.cli.augmented_text import document, print_augmented

    summary = _summary(augmented.synthetic, augmented.path)
    if plot is not None:
        from benchmark.pictures.augmented import draw

        draw(augmented, plot)
        typer.echo(f"wrote {plot}", err=True)
    if as_json:
        both = {**summary.document(), "path": str(augmented.path), **document(augmented)}
        typer.echo(json.dumps(both, indent=1, allow_nan=False))
    else:
        print_summary(summary, augmented.path)
        print_augmented(augmented)


def _summary_of(path: Path) -> Summary:
    store.verify_checksum(path)
    return _summary(store.load(path), path)


def _summary(data: OfflineDataset, path: Path) -> Summary:
    return summarise(_with_references(data), store.load_card(path))


def _with_references(data: OfflineDataset) -> OfflineDataset:
    """The data with the score references of its task, where that is installed and still the same."""
    try:
        spec = make_task(data.spec.id).spec
    except UsageError:
        return data
    same = (spec.engine, spec.engine_version, spec.variant) == (
        data.spec.engine,
        data.spec.engine_version,
        data.spec.variant,
    )
    return replace(data, spec=replace(data.spec, score_references=spec.score_references)) if same else data
