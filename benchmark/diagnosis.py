"""What methods tell about themselves, as plain JSON: for cards, notes of artefacts and run records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.common.errors import MethodError

MAX_ENTRIES, MAX_TEXT = 32, 200
"""Of a list and of a text in a run record; the card has the whole."""


def plain(diagnosis: object, owner: str) -> dict[str, Any]:
    """A diagnosis as JSON values; a number that is not finite becomes null.

    Raises:
        MethodError: for what is no mapping with texts as keys, or holds a value that JSON does not know; it names
            the owner and the place.
    """
    if not isinstance(diagnosis, Mapping):
        raise MethodError(f"{owner}: `diagnosis` returned a {type(diagnosis).__name__}, expected a dict.")
    converted: dict[str, Any] = _plain(diagnosis, f"{owner}: `diagnosis`")
    return converted


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both together, mappings entry by entry; where they contradict each other the second counts."""
    both = dict(first)
    for name, value in second.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def compact(diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    """The diagnosis without long lists and with long texts cut, for a run record."""
    short: dict[str, Any] = {}
    for name, value in diagnosis.items():
        if isinstance(value, Mapping):
            short[name] = compact(value)
        elif isinstance(value, str):
            short[name] = value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]} … ({len(value)} characters)"
        elif not isinstance(value, list) or len(value) <= MAX_ENTRIES:
            short[name] = value
    return short


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.generic | np.ndarray) or type(value).__module__ == "torch":
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise MethodError(f"{where} has the key {key!r}, a {type(key).__name__}. Use texts as keys.")
        return {key: _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    raise MethodError(
        f"{where} is a {type(value).__name__}, which JSON does not know. Use numbers, texts, lists, dicts."
    )
