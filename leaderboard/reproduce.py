"""The command that runs a cell again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from benchmark.matrix import SHIPPED
from leaderboard.scores import Cell


def run_command(protocol: str, cell: Cell, augmenter: str, seeds: Sequence[int]) -> str:
    """`bench run` on a shipped matrix that has the cell; else on a matrix file that the same line writes."""
    matrix = _matrix_with(protocol, cell, augmenter)
    if matrix is not None:
        axes = {"task": cell.task, "dataset": cell.dataset, "augmenter": augmenter, "learner": cell.learner}
        only = " ".join(f"--only {shlex.quote(f'{axis}={value}')}" for axis, value in axes.items())
        return f"bench run --matrix {matrix} {only}"
    lines = [
        f"protocol: {_quoted(protocol)}",
        f"tasks: [{_quoted(cell.task)}]",
        f"datasets: [{_quoted(cell.dataset)}]",
        f"augmenters: [{_quoted(augmenter)}]",
        f"learners: [{_quoted(cell.learner)}]",
        f"replicates: [{', '.join(map(str, seeds))}]",
    ]
    return f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} > cell.yaml && bench run --matrix cell.yaml"


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _matrix_with(protocol: str, cell: Cell, augmenter: str) -> str | None:
    axes = {"tasks": cell.task, "datasets": cell.dataset, "learners": cell.learner, "augmenters": augmenter}
    for name, content in _shipped():
        if content.get("protocol") == protocol and all(value in content.get(axis, []) for axis, value in axes.items()):
            return name
    return None


@cache
def _shipped() -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The shipped matrices as written; one with a mix is left out, because its records have another protocol name."""
    contents = (
        (path.stem, yaml.safe_load(path.read_text(encoding="utf-8"))) for path in sorted(SHIPPED.glob("*.yaml"))
    )
    return tuple((name, content) for name, content in contents if isinstance(content, dict) and "mix" not in content)
