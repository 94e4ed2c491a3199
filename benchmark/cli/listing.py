"""`bench list` and `bench show`: what there is. Listing loads no method and no engine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from benchmark.cli.options import AsJson, print_json, print_rows


class Kind(StrEnum):
    """What can be listed."""

    TASKS = "tasks"
    DATASETS = "datasets"
    AUGMENTERS = "augmenters"
    LEARNERS = "learners"
    MATRICES = "matrices"
    PROTOCOLS = "protocols"


class Thing(StrEnum):
    """What can be shown."""

    TASK = "task"
    DATASET = "dataset"
    AUGMENTER = "augmenter"
    LEARNER = "learner"
    MATRIX = "matrix"
    PROTOCOL = "protocol"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_json: AsJson = False,
) -> None:
    """List the names of one kind, with a line about each; of tasks also sizes, and what is missing to play them."""
    rows = _tasks() if kind is Kind.TASKS else [{"name": name, "summary": text} for name, text in summaries(kind)]
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(tuple(rows[0]), [tuple(map(_text, row.values())) for row in rows])


def show(
    kind: Annotated[Thing, typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name, with parameters if you like: rad-s\\[low=0.5].")],
    as_json: AsJson = False,
) -> None:
    """Show one thing: parameters with their defaults, what it supports, where it comes from."""
    from benchmark.descriptions import describe

    document = describe(kind.value, name)
    if as_json:
        print_json(document)
        return
    for heading, value in document.items():
        if isinstance(value, dict):
            typer.echo(f"{heading}:")
            for key, inner in value.items():
                typer.echo(f"  {key}: {_text(inner)}")
        else:
            typer.echo(f"{heading}: {_text(value)}")


def summaries(kind: Kind) -> list[tuple[str, str]]:
    """(name, summary) of everything of a kind, plugins included."""
    if kind is Kind.PROTOCOLS:
        from benchmark.protocols import PROTOCOLS

        return [(protocol.name, protocol.summary) for protocol in PROTOCOLS.values()]
    if kind is Kind.MATRICES:
        from benchmark.matrix import load_matrix, matrix_names

        return [(name, load_matrix(name).summary) for name in matrix_names()]
    if kind is Kind.DATASETS:
        from tasks.datasets.regime_table import REGIMES

        return [(regime.name, regime.summary) for regime in REGIMES.values()]
    from benchmark.cells import registry_of

    table = registry_of(kind.value.removesuffix("s"))
    return [(name, table.entry(name).summary) for name in (*table.names(), *table.presets())]


def _tasks() -> list[dict[str, Any]]:
    """Every task: its engine and sizes, and whether this machine can play it. No engine is loaded."""
    from tasks.registry import TASKS, make_task

    rows = []
    for name in TASKS.names():
        task = make_task(name)
        spec, action = task.spec, task.spec.action
        rows.append(
            {
                "name": name,
                "engine": spec.engine,
                "agents": spec.n_agents,
                "observation": spec.obs_dim,
                "state": spec.state_dim if spec.state_dim is not None else "none",
                "actions": f"{action.size} choices" if action.discrete else f"{action.size} numbers",
                "limit": spec.episode_limit,
                "here": task.unavailable() or "yes",
                "summary": TASKS.entry(name).summary,
            }
        )
    return rows


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value)
