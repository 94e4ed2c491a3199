"""Matrices: YAML files that name the axes of a comparison, and the cells they expand to. Nothing runs here."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.cells import AXES, CellGroup, canonical, glob_matches
from benchmark.marked_yaml import Location, MarkedDocument, read_marked
from benchmark.protocols import Mix, make_protocol, with_mix
from benchmark.records import CellId
from tasks.common.errors import AugMARLError, MatrixError, NothingSelectedError, UnknownNameError, UsageError

SHIPPED = Path(__file__).parent / "matrices"
MAX_REPLICATES = 1_000
_Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Exclusion(BaseModel):
    """Cells that a matrix leaves out on purpose: globs by axis, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str = "*"
    dataset: str = "*"
    augmenter: str = "*"
    learner: str = "*"
    reason: str


class MatrixFile(BaseModel):
    """What a matrix file may say."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    summary: str = ""
    protocol: str
    mix: str | None = None
    tasks: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    augmenters: Annotated[list[str], Field(min_length=1)]
    learners: Annotated[list[str], Field(min_length=1)]
    replicates: (
        Annotated[int, Field(ge=1, le=MAX_REPLICATES)]
        | Annotated[list[_Seed], Field(min_length=1, max_length=MAX_REPLICATES)]
    )
    exclude: list[Exclusion] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A validated matrix: canonical names on every axis, and the protocol with the matrix's mix."""

    name: str
    summary: str
    protocol: str
    tasks: tuple[str, ...]
    datasets: tuple[str, ...]
    augmenters: tuple[str, ...]
    learners: tuple[str, ...]
    seeds: tuple[int, ...]
    exclusions: tuple[Exclusion, ...] = ()

    def with_protocol(self, protocol: str) -> Matrix:
        """The same matrix under another protocol."""
        return replace(self, protocol=make_protocol(protocol).name)

    def groups(self) -> list[CellGroup]:
        """All cell groups. Groups that share an augmentation stand apart, so that they do not wait for each other."""
        return [
            CellGroup(
                protocol=self.protocol, task=task, dataset=data, augmenter=augmenter, learner=learner, seeds=self.seeds
            )
            for task in self.tasks
            for data in self.datasets
            for learner in self.learners
            for augmenter in self.augmenters
        ]

    def holds(self, cell: CellId) -> bool:
        """Whether a cell is one of the matrix, its replicate included."""
        mine = (self.tasks, self.datasets, self.augmenters, self.learners, self.seeds, (self.protocol,))
        its = (cell.task, cell.dataset, cell.augmenter, cell.learner, cell.seed, cell.protocol)
        return all(value in values for value, values in zip(its, mine, strict=True))

    def exclusion_of(self, group: CellGroup) -> str | None:
        """Why the matrix leaves a group out, or None."""
        for rule in self.exclusions:
            if all(glob_matches(getattr(rule, axis), getattr(group, axis)) for axis in AXES):
                return rule.reason
        return None


def matrix_names() -> tuple[str, ...]:
    """The shipped matrices."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def matrix_path(name: str) -> Path:
    """The file of a shipped matrix, or of a path that ends in .yaml.

    Raises:
        UnknownNameError: with the three nearest names.
        UsageError: if the path does not exist.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"There is no matrix file {name!r}. Give a path that exists, or a name of `bench list`.")
        return path
    if name not in matrix_names():
        raise UnknownNameError("matrix", name, matrix_names())
    return SHIPPED / f"{name}.yaml"


def load_matrix(name: str) -> Matrix:
    """Reads and checks a matrix: its form, and every name in it. Loads no method and no engine.

    Raises:
        UsageError: naming file and line.
    """
    path = matrix_path(name)
    document = read_marked(path)
    content = _validated(document)
    seeds = content.replicates if isinstance(content.replicates, list) else list(range(content.replicates))
    axes: dict[str, tuple[str, ...]] = {"seed": tuple(map(str, seeds))}
    for axis in AXES:
        names: Sequence[str] = getattr(content, f"{axis}s")
        axes[axis] = tuple(_at(document, (f"{axis}s", i), canonical, axis, text) for i, text in enumerate(names))
    for axis, values in axes.items():
        twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if twice is not None:
            location = ("replicates",) if axis == "seed" else (f"{axis}s", values.index(twice))
            raise MatrixError(f"{document.where(location)}: {axis} {twice!r} is listed twice. List it once.")
    protocol = _at(document, ("protocol",), make_protocol, content.protocol)
    if content.mix is not None:
        protocol = with_mix(protocol, _at(document, ("mix",), Mix.parse, content.mix))
    matrix = Matrix(
        name=path.stem,
        summary=content.summary,
        protocol=protocol.name,
        tasks=axes["task"],
        datasets=axes["dataset"],
        augmenters=axes["augmenter"],
        learners=axes["learner"],
        seeds=tuple(seeds),
        exclusions=tuple(content.exclude),
    )
    for i, rule in enumerate(matrix.exclusions):
        for axis in AXES:
            glob = getattr(rule, axis)
            if not any(glob_matches(glob, value) for value in axes[axis]):  # a misspelt rule would exclude nothing
                raise MatrixError(
                    f"{document.where(('exclude', i, axis))}: {axis} {glob!r} is none of the matrix's "
                    f"{', '.join(axes[axis])}, so the rule excludes nothing. Correct or remove it."
                )
    return matrix


def select(groups: Sequence[CellGroup], patterns: Sequence[str]) -> list[CellGroup]:
    """The groups and seeds that match all `axis=glob` patterns; patterns of one axis are alternatives.

    Raises:
        UsageError: for a pattern of another form or an unknown axis.
        NothingSelectedError: if nothing is left, or a pattern matches nothing by itself.
    """
    by_axis: dict[str, list[str]] = {}
    for pattern in patterns:
        axis, separator, glob = pattern.partition("=")
        if not separator or not glob:
            raise UsageError(f"{pattern!r} is no selection. Expected axis=name or axis=glob, e.g. task=mpe/*.")
        if axis not in (*AXES, "seed"):
            raise UnknownNameError("axis", axis, (*AXES, "seed"))
        values = _values(groups, axis)
        if not any(glob_matches(glob, value) for value in values):
            raise NothingSelectedError(f"No cell matches {pattern!r}. The matrix has {axis}: {', '.join(values)}.")
        by_axis.setdefault(axis, []).append(glob)
    seed_globs = by_axis.pop("seed", ["*"])
    selected = []
    for group in groups:
        if all(any(glob_matches(glob, getattr(group, axis)) for glob in globs) for axis, globs in by_axis.items()):
            seeds = tuple(seed for seed in group.seeds if any(glob_matches(glob, str(seed)) for glob in seed_globs))
            if seeds:
                selected.append(replace(group, seeds=seeds))
    if not selected:
        axes = [*by_axis, "seed"]
        present = "; ".join(f"{axis}: {', '.join(_values(groups, axis))}" for axis in axes)
        raise NothingSelectedError(
            f"No cell matches {' and '.join(map(repr, patterns)) or 'the matrix'}. The matrix has {present}."
        )
    return selected


def _values(groups: Sequence[CellGroup], axis: str) -> list[str]:
    if axis == "seed":
        return [str(seed) for seed in sorted({seed for group in groups for seed in group.seeds})]
    return sorted({getattr(group, axis) for group in groups})


def _validated(document: MarkedDocument) -> MatrixFile:
    if not isinstance(document.value, dict):
        raise MatrixError(f"{document.where(())}: a matrix is a mapping with the keys {', '.join(_keys(MatrixFile))}.")
    try:
        return MatrixFile.model_validate(document.value)
    except ValidationError as error:
        # A misspelt key is also a missing one; the first tells the user what to do. Of the alternatives for a value,
        # the one that got furthest is the one that was meant.
        problem = min(error.errors(), key=lambda found: (found["type"] != "extra_forbidden", -len(found["loc"])))
        raw = tuple(
            part for part in problem["loc"] if part not in ("int", "list[int]") and "constrained" not in str(part)
        )
        raise MatrixError(f"{document.where(raw)}: {_explain(problem['type'], problem['msg'], raw)}") from error


def _explain(kind: Literal["missing", "extra_forbidden"] | str, message: str, location: Location) -> str:
    key = location[-1] if location else ""
    known = _keys(Exclusion) if location[:1] == ("exclude",) else _keys(MatrixFile)
    if kind == "extra_forbidden":
        nearest = difflib.get_close_matches(str(key), known, n=3, cutoff=0.0)
        return f"unknown key {key!r}. Did you mean {' or '.join(map(repr, nearest))}?"
    if kind == "missing":
        return (
            f"the key {key!r} is missing. A matrix needs protocol, tasks, datasets, augmenters, learners, replicates."
        )
    return f"{'.'.join(map(str, location))}: {message}."


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _at(document: MarkedDocument, location: Location, function: Any, *arguments: Any) -> Any:
    """The function's value, with file and line in front of what it raises."""
    try:
        return function(*arguments)
    except AugMARLError as error:
        raise MatrixError(f"{document.where(location)}: {error}") from error
