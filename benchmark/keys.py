"""Keys of artefacts: the hash of everything that determines them, and nothing else.

A key's parts are plain JSON, kept in full beside the artefact, so that `bench explain` can say what changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

KEY_VERSION = 1
"""Raise it when the meaning of a part changes: everything cached is then computed again."""

Stage = Literal["dataset", "fit", "augmented", "policy", "evaluation"]
STAGES: tuple[Stage, ...] = ("dataset", "fit", "augmented", "policy", "evaluation")


@dataclass(frozen=True)
class Key:
    """Identity of an artefact: its stage, and the parts that determine it."""

    stage: Stage
    parts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits; equal for equal parts on every machine."""
        return hashlib.sha256(canonical_json(self.document()).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """The parts with stage and key version, as they are hashed and stored."""
        return {"key_version": KEY_VERSION, "stage": self.stage, **self.parts}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Floats keep all their digits.

    Raises:
        ValueError: for NaN and infinities, which JSON lacks.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)


def changed_parts(new: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Sentences such as `config.low: 0.8 now, 0.7 stored`, one a part that differs, in path order."""
    now, then = dict(_leaves(new)), dict(_leaves(stored))
    sentences = []
    for path in sorted(now.keys() | then.keys()):
        if path not in then:
            sentences.append(f"{path}: {_short(now[path])} now, absent in the stored one")
        elif path not in now:
            sentences.append(f"{path}: absent now, {_short(then[path])} stored")
        elif now[path] != then[path]:
            sentences.append(f"{path}: {_short(now[path])} now, {_short(then[path])} stored")
    return sentences


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not path):  # an empty part is a value: absent is another
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _short(value: Any) -> str:
    text = json.dumps(value, default=_plain)
    is_digest = isinstance(value, str) and len(value) == 64
    return f"{value[:12]}…" if is_digest else text


def _plain(value: Any) -> Any:
    """Frozen dataclasses, sets and mappings of other kinds as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} has no JSON form, so it cannot be part of a key")
