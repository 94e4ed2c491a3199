"""A method as a matrix names it, resolved: the class, its config with the overrides, and what identifies it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from benchmark.keys import canonical_json
from benchmark.records import Method
from benchmark.sources import source_digest
from methods.augmenters import AUGMENTERS
from methods.base import Augmenter, Configurable, Learner, identity_of
from methods.learners import LEARNERS
from tasks.common.errors import UsageError
from tasks.common.registry import Registry
from tasks.common.selector import Scalar, Selector
from tasks.spec import TaskSpec

MethodT = TypeVar("MethodT", bound=Configurable[Any])


@dataclass(frozen=True)
class Choice(Generic[MethodT]):
    """One augmenter or learner of a matrix.

    Attributes:
        text: canonical selector, e.g. `rad-s[low=0.5]`.
        target: `module:Class`, which identifies the code whatever the variant is called.
        params: of the variant and of the selector.
    """

    text: str
    target: str
    params: Mapping[str, Scalar]
    method_class: type[MethodT]

    def build(self) -> MethodT:
        """A fresh method with this config."""
        return self.method_class.from_params(self.params)

    @property
    def source(self) -> str:
        """The digest of the method's import closure."""
        return source_digest(self.target.partition(":")[0])

    def config(self) -> dict[str, Any]:
        """All fields of the config, as plain values."""
        return dataclasses.asdict(self.build().config)

    def identity(self, spec: TaskSpec, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """What determines the method's behaviour on a task, for keys; `without` names config fields to leave out."""
        config = {name: value for name, value in identity_of(self.build().config).items() if name not in without}
        return {"target": self.target, "version": self.method_class.version_on(spec), "config": config}

    def as_recorded(self, spec: TaskSpec, source: str | None = None) -> Method:
        """The method as records of runs on a task describe it; values that are no scalars become JSON text.

        `source` is the digest of the code that made what is recorded; None: of the code as it is now.
        """
        scalar = (bool, int, float, str, type(None))
        config = {k: v if isinstance(v, scalar) else canonical_json(v) for k, v in self.config().items()}
        version = self.method_class.version_on(spec)
        return Method(name=self.text, version=version, config=config, source_digest=source or self.source)


def choose_augmenter(text: str) -> Choice[Augmenter[Any]]:
    """The augmenter of a selector. Raises UsageError for an unknown name or parameter, or a broken plugin."""
    return _choose(AUGMENTERS, text)


def choose_learner(text: str) -> Choice[Learner[Any]]:
    """The learner of a selector. Raises UsageError for an unknown name or parameter, or a broken plugin."""
    return _choose(LEARNERS, text)


def load_method(table: Registry[type[MethodT]], name: str) -> type[MethodT]:
    """Imports a method. What its package prints goes to standard error, since standard output may be a document.

    Raises:
        UsageError: for an unknown name, or a plugin that cannot be imported or ends the program.
    """
    with contextlib.redirect_stdout(sys.stderr):
        return table.load(name)


def _choose(table: Registry[type[MethodT]], text: str) -> Choice[MethodT]:
    selector = Selector.parse(text)
    for name, value in selector.params.items():  # records and keys are JSON, which has no others
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{table.kind} {text!r}: {name}={value!r} is not a finite number.")
    entry, method_class = table.entry(selector.name), load_method(table, selector.name)
    choice = Choice(str(selector), entry.target, {**entry.params, **selector.params}, method_class)
    if not isinstance(getattr(method_class, "version", None), int):
        raise UsageError(f"{table.kind} {selector.name!r} has no whole number as `version`. Add `version = 1`.")
    try:
        choice.build()
    except UsageError as error:
        raise UsageError(f"{table.kind} {text!r}: {error}") from error
    return choice
