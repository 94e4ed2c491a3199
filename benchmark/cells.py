"""Cells and their groups: the names on every axis of a comparison."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark.records import CellId
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.registry import Registry
from tasks.common.selector import Selector

AXES = ("task", "dataset", "augmenter", "learner")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGroup:
    """The replicates of one task, dataset, augmenter and learner: they train together and share a worker."""

    protocol: str
    task: str
    dataset: str
    augmenter: str
    learner: str
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The cell's name without its seed."""
        return f"{self.protocol}/{self.task}/{self.dataset}/{self.augmenter}/{self.learner}"

    def cell(self, seed: int) -> CellId:
        """One replicate of the group."""
        return CellId(
            protocol=self.protocol,
            task=self.task,
            dataset=self.dataset,
            augmenter=self.augmenter,
            learner=self.learner,
            seed=seed,
        )

    @property
    def cells(self) -> tuple[CellId, ...]:
        """All replicates, in the order of their seeds."""
        return tuple(self.cell(seed) for seed in self.seeds)


def parse_cell(text: str) -> CellId:
    """The cell of a name such as `quick/mpe/spread/exp/rad-s/bc/seed-0`, as records and pages print it.

    Raises:
        UsageError: if the text has another form or a name in it is unknown.
    """
    parts = text.strip("/").split("/")
    if len(parts) < 6 or not re.fullmatch(r"seed-[0-9]{1,10}", parts[-1]):
        raise UsageError(
            f"{text!r} is no cell. Expected protocol/task/dataset/augmenter/learner/seed-k, "
            "e.g. quick/mpe/spread/exp/rad-s/bc/seed-0."
        )
    protocol, *task, dataset, augmenter, learner, seed = parts
    return CellId(
        protocol=protocol,
        task=canonical("task", "/".join(task)),
        dataset=canonical("dataset", dataset),
        augmenter=canonical("augmenter", augmenter),
        learner=canonical("learner", learner),
        seed=int(seed.removeprefix("seed-")),
    )


def canonical(axis: str, text: str) -> str:
    """The canonical spelling of a selector whose name is registered.

    Raises:
        UnknownNameError: with the three nearest names.
    """
    selector = Selector.parse(text)
    names, aliases = _table(axis)
    name = aliases.get(selector.name, selector.name)
    if name not in names():
        raise UnknownNameError(axis, selector.name, names())
    return str(Selector.of(name, selector.params))


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a text is the pattern, or matches it as a glob in which brackets stand for themselves."""
    return pattern == text or fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def registry_of(axis: str) -> Registry[Any]:
    """The table of tasks, augmenters or learners."""
    if axis == "task":
        from tasks.registry import TASKS

        return TASKS
    if axis == "augmenter":
        from methods.augmenters import AUGMENTERS

        return AUGMENTERS
    from methods.learners import LEARNERS

    return LEARNERS


def _table(axis: str) -> tuple[Callable[[], tuple[str, ...]], dict[str, str]]:
    if axis == "dataset":
        from tasks.datasets.regime_table import REGIMES

        return lambda: tuple(REGIMES), {}
    from tasks.registry import ALIASES

    table = registry_of(axis)
    return lambda: (*table.names(), *table.presets()), ALIASES if axis == "task" else {}
