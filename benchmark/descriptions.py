"""What `bench show` tells: one plain document a thing, read from the code itself."""

from __future__ import annotations

import dataclasses
import inspect
import io
import tokenize
from collections.abc import Callable
from typing import Any

from benchmark.checks.sample_data import sample_spec
from benchmark.choices import Choice, choose_augmenter, choose_learner
from benchmark.matrix import load_matrix
from benchmark.protocols import make_protocol
from methods.augmenters import AUGMENTERS
from methods.base import Augmenter, Configurable
from methods.learners import LEARNERS
from tasks.common.errors import UnknownNameError
from tasks.common.registry import Registry
from tasks.common.selector import Selector
from tasks.datasets.regime_table import REGIMES
from tasks.datasets.subsample import SUBSAMPLE_PARAMS
from tasks.registry import make_task

Document = dict[str, Any]


def describe(kind: str, name: str) -> Document:
    """The description of one task, dataset, augmenter, learner, matrix or protocol.

    Raises:
        UsageError: for an unknown name or parameter.
    """
    describers: dict[str, Callable[[str], Document]] = {
        "task": _task,
        "dataset": _dataset,
        "augmenter": lambda text: _method(choose_augmenter(text), AUGMENTERS),
        "learner": lambda text: _method(choose_learner(text), LEARNERS),
        "matrix": _matrix,
        "protocol": lambda text: make_protocol(text).settings(),
    }
    return describers[kind](name)


def field_comments(config: type[Any]) -> dict[str, str]:
    """The comment behind each field of a config, which names the source of its default; "" where there is none.

    A field that a base class declares has the comment it has there.
    """
    comments = {field.name: "" for field in dataclasses.fields(config)}
    for declaring in reversed(config.__mro__):
        if dataclasses.is_dataclass(declaring):
            comments |= _own_comments(declaring)
    return comments


def _own_comments(config: type[Any]) -> dict[str, str]:
    """The comments of the fields that a class itself declares, by name."""
    try:
        source = inspect.cleandoc(inspect.getsource(config))
    except (OSError, TypeError):  # a plugin without source
        return {}
    line_comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    found = {}
    for name in config.__annotations__:
        number = next((i for i, line in enumerate(lines, 1) if line.lstrip().startswith(f"{name}:")), None)
        if number is not None:
            found[name] = line_comments.get(number, "")
    return found


def _version(method: type[Configurable[Any]]) -> str:
    """One number, or one by kind of actions."""
    found = {kind: method.version_on(sample_spec(kind)) for kind in ("continuous", "discrete")}
    first, *others = set(found.values())
    return ", ".join(f"{number} ({kind} actions)" for kind, number in found.items()) if others else str(first)


def _method(choice: Choice[Any], table: Registry[Any]) -> Document:
    method, config = choice.method_class, choice.build().config
    comments = field_comments(method.Config)
    parameters = {}
    for field in dataclasses.fields(config):
        comment = comments.get(field.name, "")
        parameters[field.name] = f"{getattr(config, field.name)!r}" + (f"  ({comment})" if comment else "")
    document: Document = {
        "name": choice.text,
        "in short": table.entry(Selector.parse(choice.text).name).summary,
        "summary": inspect.getdoc(method) or "",
        "version": _version(method),
        "code": choice.target,
        "privileged": method.privileged,
    }
    if issubclass(method, Augmenter):
        document |= {"trains": method.trains, "adds data": method.adds_data, "random": method.random}
    document["supports"] = {
        f"{kind} actions": method.unsupported(sample_spec(kind)) or "yes" for kind in ("continuous", "discrete")
    }
    return {**document, "parameters": parameters, "source digest": choice.source}


def _task(name: str) -> Document:
    task = make_task(name)
    spec = dataclasses.asdict(task.spec)
    return {**spec, "behaviour levels": list(task.behaviour_levels)}


def _dataset(name: str) -> Document:
    selector = Selector.parse(name)
    if selector.name not in REGIMES:
        raise UnknownNameError("dataset", selector.name, REGIMES)
    regime = REGIMES[selector.name]
    known = {*regime.continuous, *regime.discrete, *SUBSAMPLE_PARAMS}
    for param in selector.params:
        if param not in known:
            raise UnknownNameError(f"parameter of dataset {regime.name}", param, known)
    return {
        "name": regime.name,
        "summary": regime.summary,
        "version": regime.version,
        "policies": list(regime.levels),
        "parameters on continuous tasks": {k: dataclasses.asdict(p) for k, p in regime.continuous.items()},
        "parameters on discrete tasks": {k: dataclasses.asdict(p) for k, p in regime.discrete.items()},
        "sub-sampling": "episodes=, fraction= or transitions=; unit=transition",
        "smallest team": regime.min_agents,
    }


def _matrix(name: str) -> Document:
    matrix = load_matrix(name)
    groups = [group for group in matrix.groups() if matrix.exclusion_of(group) is None]
    return {
        "name": matrix.name,
        "summary": matrix.summary,
        "protocol": matrix.protocol,
        "tasks": list(matrix.tasks),
        "datasets": list(matrix.datasets),
        "augmenters": list(matrix.augmenters),
        "learners": list(matrix.learners),
        "replicates": list(matrix.seeds),
        "cells": sum(len(group.seeds) for group in groups),
        "excluded": [rule.model_dump() for rule in matrix.exclusions],
    }
