"""Digests of the source that a method runs: its module and whatever it imports of the same packages.

A digest that differs while the version does not means that numbers may have moved unannounced (`bench plan` warns).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

OWN_PACKAGES = ("tasks", "methods", "benchmark", "leaderboard")


@cache
def source_digest(module: str) -> str:
    """SHA-256 over the module's import closure within our packages and its own top-level package."""
    digest = hashlib.sha256()
    for name, path in sorted(import_closure(module).items()):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def import_closure(module: str) -> dict[str, Path]:
    """The files of a module and of all it imports, by module name, of our packages and its own top-level one.

    Read from the source without running it, so imports inside functions count too.
    """
    packages = {*OWN_PACKAGES, module.partition(".")[0]}
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        path = _file_of(name)
        if path is None:
            continue
        found[name] = path
        waiting += _imported_by(name, path)
    return found


@cache
def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):  # `from a.b import C`: a.b.C is a class, not a module
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _imported_by(module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
