"""Names with parameters, `name[key=value,...]`: how tasks, datasets and methods are written everywhere.

A name may carry a preset, a named set of parameters: `name@preset[key=value,...]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tasks.common.errors import UsageError

Scalar = bool | int | float | str

_NAME = re.compile(r"[a-z0-9][a-z0-9_./-]*(@[a-z0-9][a-z0-9_-]*)?")
_SELECTOR = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<params>[^\[\]]*)\])?")
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_SAFE_VALUE = re.compile(r"[A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class Selector:
    """A name and its parameters, in one canonical spelling (keys sorted, values as Python scalars).

    Two selectors are equal exactly if their canonical text is. `Selector.parse` accepts what users write,
    e.g. `exp-m[t_imb=4]` or `mpe/spread[variant=mpe2, actions=discrete]`.
    """

    name: str
    params: Mapping[str, Scalar]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Reads `name[key=value,...]`.

        Raises:
            UsageError: if the text has another form; the message quotes the offending part.
        """
        match = _SELECTOR.fullmatch(text.strip())
        if match is None or not _NAME.fullmatch(match["name"].strip()):
            raise UsageError(f"{text!r} is not a name. Expected name or name[key=value,...], e.g. exp-m[t_imb=4].")
        params: dict[str, Scalar] = {}
        for item in filter(None, (part.strip() for part in (match["params"] or "").split(","))):
            key, separator, value = (piece.strip() for piece in item.partition("="))
            if not separator or not _KEY.fullmatch(key) or not _SAFE_VALUE.fullmatch(value):
                raise UsageError(f"{item!r} in {text!r} is not a parameter. Expected key=value, e.g. t_imb=4.")
            if key in params:
                raise UsageError(f"Parameter {key!r} is given twice in {text!r}. Give it once.")
            params[key] = parse_scalar(value)
        return cls.of(match["name"].strip(), params)

    @classmethod
    def of(cls, name: str, params: Mapping[str, Scalar] | None = None) -> Selector:
        """The selector with these parameters, keys sorted."""
        return cls(name, MappingProxyType(dict(sorted((params or {}).items()))))

    def __str__(self) -> str:
        if not self.params:
            return self.name
        return f"{self.name}[{','.join(f'{key}={format_scalar(value)}' for key, value in self.params.items())}]"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and str(self) == str(other)

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, Scalar]]]:
        return Selector.of, (self.name, dict(self.params))

    @property
    def slug(self) -> str:
        """The selector as one folder name: `mpe/spread[variant=mpe2]` -> `mpe--spread[variant=mpe2]`."""
        return str(self).replace("/", "--")


def parse_scalar(text: str) -> Scalar:
    """`true` and `false` as bool, then int, then float, else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def format_scalar(value: Scalar) -> str:
    """The inverse of `parse_scalar`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
