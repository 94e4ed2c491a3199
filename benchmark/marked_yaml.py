"""YAML with line numbers: every value knows where it stood, so that errors can say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.common.errors import MatrixError

Location = tuple[str | int, ...]

_MAX_DEPTH = 20
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class MarkedDocument:
    """A parsed document and the line of everything in it, by its path of keys and indices."""

    source: str
    value: Any
    lines: dict[Location, int]

    def where(self, location: Location) -> str:
        """`file.yaml, line 7` of a path, or of the nearest thing around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return f"{self.source}, line {self.lines.get(location, 1)}"


def read_marked(path: Path) -> MarkedDocument:
    """Parses one YAML file of plain values (no tags, aliases or duplicate keys; keys are words).

    Raises:
        MatrixError: with the line, if the file is unreadable or no YAML.
    """
    source = path.name
    try:
        node = _compose(path.read_text(encoding="utf-8"), source)
        lines: dict[Location, int] = {}
        value = None if node is None else _build(node, (), lines, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise MatrixError(f"{source}{line}: this is not YAML: {error.problem}. Fix the line and try again.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MatrixError(f"{source} cannot be read: {error}. Expected a YAML file in UTF-8.") from error
    return MarkedDocument(source, value, lines)


def _compose(text: str, source: str) -> yaml.Node | None:
    """The tree of a document, refused before it is built where it is deeper than any matrix or repeats itself."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = f"{source}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):  # a few lines of them can stand for more values than memory holds
            raise MatrixError(f"{line}: *{event.anchor} is an alias. Write the values out.")
        if depth > _MAX_DEPTH:
            raise MatrixError(f"{line}: more than {_MAX_DEPTH} levels of nesting. A matrix has three.")
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _build(node: yaml.Node, location: Location, lines: dict[Location, int], source: str) -> Any:
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        raise MatrixError(f"{source}, line {lines[location]}: the tag {node.tag!r} is not allowed. Remove it.")
    if isinstance(node, yaml.MappingNode):
        built: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise MatrixError(f"{source}, line {key_node.start_mark.line + 1}: a key must be a word.")
            if key in built:
                raise MatrixError(f"{source}, line {key_node.start_mark.line + 1}: key {key!r} is given twice.")
            built[key] = _build(value_node, (*location, key), lines, source)
            lines[(*location, key)] = key_node.start_mark.line + 1
        return built
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*location, i), lines, source) for i, child in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)  # type: ignore[no-untyped-call,unused-ignore]  # yaml has no types
    except ValueError as error:
        raise MatrixError(f"{source}, line {lines[location]}: {node.value!r} is not a value: {error}.") from error
    finally:
        loader.dispose()  # type: ignore[no-untyped-call,unused-ignore]
