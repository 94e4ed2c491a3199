"""Tables of names, filled without importing what they name.

An entry is text (`package.module:Attribute`) until it is first loaded, so listing all methods needs neither torch
nor an engine. Entry points of other packages join the same table.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tasks.common.errors import AugMARLError, UnknownNameError, UsageError
from tasks.common.selector import Scalar

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One registered name: where it lives, what it is in one line, and the parameters that make the variant."""

    name: str
    target: str
    summary: str
    params: dict[str, Scalar] = field(default_factory=dict)
    package: str = "augmarl"


class Registry(Generic[T]):
    """A table of names for one kind of thing, e.g. augmenters.

    Args:
        kind: the word used in messages, e.g. "augmenter".
        check: called with (name, loaded object); raises AugMARLError if the object does not fit the contract.
        entry_points: the group through which other packages add names.
    """

    def __init__(self, kind: str, *, check: Callable[[str, Any], None], entry_points: str | None = None) -> None:
        self.kind = kind
        self._check = check
        self._group = entry_points
        self._entries: dict[str, Entry] = {}
        self._presets: dict[str, Entry] = {}
        self._plugins: dict[str, Entry] | None = None

    def add(self, name: str, target: str, summary: str, **params: Scalar) -> None:
        """Registers `target` ("package.module:Attribute") under `name`; `params` are the variant's overrides."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = Entry(name, target, summary, params)

    def preset(self, name: str, preset: str, summary: str, **params: Scalar) -> None:
        """Registers `name@preset`: `name` with `params` beside its own, e.g. as one paper used it."""
        base, full = self._entries[name], f"{name}@{preset}"
        if full in self._presets:
            raise ValueError(f"{self.kind} {full!r} is registered twice")
        self._presets[full] = Entry(full, base.target, summary, {**base.params, **params}, base.package)

    def names(self) -> tuple[str, ...]:
        """All names, ours in the order of the table, then those of plugins; without presets."""
        return tuple(self._all())

    def presets(self) -> tuple[str, ...]:
        """All `name@preset`, in the order of the table."""
        return tuple(self._presets)

    def entry(self, name: str) -> Entry:
        """The entry of a name or of a preset.

        Raises:
            UnknownNameError: with the three nearest names.
        """
        entries = {**self._all(), **self._presets}
        if name not in entries:
            raise UnknownNameError(self.kind, name, entries)
        return entries[name]

    def load(self, name: str) -> T:
        """Imports what a name stands for.

        Raises:
            UnknownNameError: with the three nearest names.
            UsageError: if a plugin cannot be imported, or is not what its table promises.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
            self._check(name, loaded)
        except AugMARLError:
            raise
        except (Exception, SystemExit) as error:
            if entry.package == "augmarl":
                raise
            raise UsageError(
                f"{self.kind} {name!r} of package {entry.package!r} could not be loaded from {entry.target!r}: "
                f"{type(error).__name__}: {error}. Fix or uninstall that package."
            ) from error
        return loaded  # type: ignore[no-any-return]  # checked just above

    def _all(self) -> dict[str, Entry]:
        if self._plugins is None:
            self._plugins = {}
            for point in importlib.metadata.entry_points(group=self._group) if self._group else ():
                package = point.dist.name if point.dist is not None else "unknown"
                if package == "augmarl":
                    continue
                if point.name in self._entries:
                    raise UsageError(
                        f"Package {package!r} registers the {self.kind} {point.name!r}, which AugMARL already has. "
                        "Uninstall that package or rename its entry point."
                    )
                self._plugins[point.name] = Entry(point.name, point.value, f"plugin of {package}", {}, package)
        return {**self._entries, **self._plugins}
