"""`bench data`: build, inspect, verify, import and export offline datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import AsJson, Home

if TYPE_CHECKING:
    from tasks.base import Task

app = typer.Typer(
    help="Build, inspect, verify, import and export offline datasets.", no_args_is_help=True, add_completion=False
)

Target = Annotated[str, typer.Argument(metavar="TASK|FILE", help="A task such as mpe/spread, or a dataset file.")]
Inspected = Annotated[
    str,
    typer.Argument(metavar="TASK|FILE|CELL", help="Or a cell, e.g. quick/mpe/spread/exp/rad-s/bc/seed-0."),
]
Dataset = Annotated[
    str | None,
    typer.Argument(metavar="DATASET", help="A dataset such as exp-m, parameters in brackets; not with a file."),
]
Episodes = Annotated[int | None, typer.Option(help="Episodes to record. Default: 2,000; medium-replay: its run's.")]
Seed = Annotated[int, typer.Option(help="Seed of the recording.")]


@app.command()
def build(
    task: Annotated[str, typer.Argument(help="A task such as mpe/spread; parameters go in brackets.")],
    dataset: Annotated[str, typer.Argument(help="A dataset such as exp; parameters go in brackets.")],
    episodes: Episodes = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Also copy data and card here (.safetensors).")] = None,
    home: Home = None,
) -> None:
    """Record a dataset, or find it in the cache, and print where it is.

    Quote names that have parameters, for the shell.
    """
    from tasks.datasets import store

    path = _obtain(task, dataset, episodes, seed, home)
    if out is not None:
        store.copy(path, out)
        path = out
    card = store.load_card(path)
    if card.returns is not None:
        typer.echo(
            f"{card.task} {card.dataset}: {card.episodes} episodes, {card.steps} transitions, "
            f"mean return {card.returns.mean:.2f} ± {card.returns.std:.2f}",
            err=True,
        )
    typer.echo(path)


@app.command()
def inspect(
    target: Inspected,
    dataset: Dataset = None,
    episodes: Episodes = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it here (PNG).")] = None,
    home: Home = None,
) -> None:
    """Show what a dataset holds: returns, episode lengths, action use, who acted. Records it where missing.

    Of augmented data, named by their file or their cell: also their quality against the original data and the
    engine, and what the generation accepted; the picture shows trajectories beside the original ones.
    """
    from benchmark import augmented
    from benchmark.cli import inspection
    from benchmark.folders import home_folder

    if dataset is None and augmented.names_cell(target):
        inspection.show_augmented(augmented.of_cell(target, home_folder(home)), plot=plot, as_json=as_json)
        return
    path = _locate(target, dataset, episodes, seed, home)
    if augmented.is_augmented(path):
        inspection.show_augmented(augmented.of_file(path), plot=plot, as_json=as_json)
    else:
        inspection.show(path, plot=plot, as_json=as_json)


@app.command()
def compare(
    task: Annotated[str, typer.Argument(help="A task such as smac/3m; parameters go in brackets.")],
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="Datasets such as good medium poor.")],
    episodes: Episodes = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Order datasets of a task by their mean return, with 95% intervals over episodes. Records those that are missing.

    Datasets whose intervals overlap are not told apart.
    """
    from benchmark.cli import inspection
    from tasks.datasets import regimes

    built = _task(task)
    for dataset in datasets:
        regimes.resolve(built, dataset)  # refuses a bad name before the others are recorded
    paths = [_obtain(task, dataset, episodes, seed, home) for dataset in datasets]
    inspection.show_ordered(paths, as_json=as_json)


@app.command()
def verify(
    target: Target,
    dataset: Dataset = None,
    episodes: Episodes = None,
    seed: Seed = 0,
    task: Annotated[str | None, typer.Option(help="Check a file against this task instead of its own.")] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Check a dataset: checksum, shapes, values, flags, and recorded actions replayed in the environment."""
    import json
    from dataclasses import asdict

    from benchmark.cli.dataset_text import print_findings
    from tasks.common.errors import DataError
    from tasks.datasets import store
    from tasks.datasets.verify import verify as verify_file
    from tasks.registry import make_task

    path = _locate(target, dataset, episodes, seed, home)
    findings = verify_file(path, make_task(task or store.load_card(path).task))
    if as_json:
        typer.echo(json.dumps({"path": str(path), "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        print_findings(findings, path)
    failed = [finding.name for finding in findings if not finding.ok]
    if failed:
        raise DataError(f"{path}: {len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="FORMAT:WHERE", help="omar:FOLDER, og-marl:FOLDER, or og-marl:smac_v1/3m/Good.")
    ],
    task: Annotated[str | None, typer.Option(help="The task of the data. Default for a named vault: its own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write (.safetensors). Default: a name made here.")] = None,
    home: Home = None,
) -> None:
    """Turn foreign data into a dataset file. Formats: omar (folders of .npy files), og-marl (flashbax vaults).

    A vault that is named and not here is downloaded.
    """
    from benchmark.folders import home_folder
    from benchmark.foreign import FORMATS
    from tasks.datasets import store
    from tasks.datasets.card import card_of_imported

    kind, place = _foreign(source)
    brought = FORMATS[kind].read(place, task, home_folder(home) / "vaults")
    data = brought.data
    path = out or Path(f"{data.spec.id.replace('/', '--')}--{brought.name}.safetensors")
    card = card_of_imported(data, dataset=brought.name, regime=brought.regime, origin=brought.origin)
    store.save(data, card, path)
    typer.echo(f"{data.spec.id}: {data.n_episodes} episodes, {data.n_steps} transitions imported", err=True)
    for note in brought.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(path)


@app.command()
def export(
    target: Target,
    dataset: Dataset = None,
    *,
    to: Annotated[str, typer.Option(metavar="FORMAT:FOLDER", help="omar:FOLDER or og-marl:FOLDER, to write into.")],
    episodes: Episodes = None,
    seed: Seed = 0,
    home: Home = None,
) -> None:
    """Write a dataset in a foreign format. Formats: omar (folders of .npy files), og-marl (a flashbax vault)."""
    from benchmark.foreign import FORMATS
    from tasks.datasets import store

    kind, folder = _foreign(to)
    path = _locate(target, dataset, episodes, seed, home)
    store.verify_checksum(path)
    data = store.load(path)
    FORMATS[kind].write(data, Path(folder))
    typer.echo(f"{data.n_episodes} episodes, {data.n_steps} transitions written", err=True)
    typer.echo(folder)


# -- what the commands share -----------------------------------------------------------------------------------------


def _task(text: str) -> Task:
    from tasks.registry import make_task

    return make_task(text)


def _locate(target: str, dataset: str | None, episodes: int | None, seed: int, home: Path | None) -> Path:
    """The data file that the arguments mean, recorded if they name a dataset that is not cached."""
    from tasks.common.errors import UsageError

    if dataset is not None:
        return _obtain(target, dataset, episodes, seed, home)
    path = Path(target)
    if not path.is_file():
        raise UsageError(
            f"{target!r} is no dataset file. Give a .safetensors file, or a task and a dataset, e.g. mpe/spread exp."
        )
    return path


def _obtain(task: str, dataset: str, episodes: int | None, seed: int, home: Path | None) -> Path:
    from tasks.datasets import regimes

    built = _task(task)
    request = regimes.resolve(built, dataset)  # refuses bad names before anything is opened
    from benchmark.folders import home_folder
    from benchmark.stages.datasets import obtain_dataset

    where = home_folder(home)
    with _progress(f"{built.spec.id} {request}") as progress:
        return obtain_dataset(built.spec.id, request.text, episodes=episodes, seed=seed, home=where, progress=progress)


def _foreign(text: str) -> tuple[str, str]:
    """Format and place."""
    from benchmark.foreign import FORMATS
    from tasks.common.errors import UnknownNameError, UsageError

    kind, separator, place = text.partition(":")
    if not separator or not place:
        raise UsageError(
            f"{text!r} names no format. Expected FORMAT:WHERE, e.g. omar:simple_spread/expert/seed_0_data."
        )
    if kind not in FORMATS:
        raise UnknownNameError("dataset format", kind, FORMATS)
    return kind, place


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr where that is a terminal, else one line a quarter."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        shown = 0

        def report(done: int, total: int, message: str) -> None:
            nonlocal shown
            quarter = 4 * done // max(1, total)
            if quarter > shown:
                shown = quarter
                typer.echo(f"{title}: {done} of {total} {message}", err=True)

        yield report
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        # Nothing is shown of a dataset that was cached.
        handle = bar.add_task(title, total=None, visible=False)
        yield lambda done, total, message: bar.update(handle, completed=done, total=total, visible=True)
