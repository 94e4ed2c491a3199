"""Methods of other packages: a package to start from, and the contract suite run on whatever is registered."""

from __future__ import annotations

import importlib.util
import keyword
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2

from benchmark.checks import Check, augmenter_checks, learner_checks
from benchmark.choices import load_method
from methods.augmenters import AUGMENTERS
from methods.learners import LEARNERS
from tasks.common.errors import AugMARLError, MethodError, UnknownNameError, UsageError
from tasks.common.files import write_bytes
from tasks.common.selector import Scalar, Selector

Kind = Literal["augmenter", "learner"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEMPLATES = {
    "pyproject.toml": "pyproject.toml.jinja",
    "README.md": "README.md.jinja",
    "{module}.py": "{kind}.py.jinja",
    "tests/test_{module}.py": "test.py.jinja",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check. `message`: why it failed or did not apply."""

    name: str
    status: Literal["ok", "skipped", "failed"]
    message: str = ""


def new_package(name: str, kind: str, out: Path) -> list[Path]:
    """Writes a small complete package that registers a working method; returns its files.

    Args:
        name: of the method and of the package, e.g. `my-augmenter`.
        kind: augmenter or learner.
        out: the folder that gets a folder `name`.

    Raises:
        UsageError: for a malformed or taken name, another kind, or a folder that exists.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no plugin kind {kind!r}. Choose one of: {', '.join(KINDS)}.")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a plugin name. Use lower-case words and digits joined by '-', e.g. my-idea.")
    if name in AUGMENTERS.names() or name in LEARNERS.names() or name == "augmarl":
        raise UsageError(f"{name!r} is taken. `bench list {kind}s` shows all names; choose another one.")
    folder, module = out / name, name.replace("-", "_")
    if folder.exists():
        raise UsageError(f"{folder} exists. Choose another name or --out, or remove it first.")
    if keyword.iskeyword(module):
        raise UsageError(f"{name!r} is a word of Python, so no module can have that name. Choose another one.")
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"A module {module!r} exists, which the new one would hide. Choose another name.")
    values = {
        "name": name,
        "kind": kind,
        "article": "an" if kind == "augmenter" else "a",
        "module": module,
        "class_name": "".join(word.capitalize() for word in name.split("-")),
    }
    written = []
    for target, template in _TEMPLATES.items():
        path = folder / target.format(**values)
        write_bytes(path, _render(template.format(**values), values).encode())
        written.append(path)
    return written


def method_checks(text: str) -> tuple[Kind, list[Check]]:
    """The contract suite of a registered method, e.g. `rad-s` or `bc[memory=none]`.

    Raises:
        UnknownNameError: if neither table has the name.
        UsageError: if its package cannot be imported, or a parameter does not exist.
        MethodError: if its class cannot be built.
    """
    selector = Selector.parse(text)
    params: dict[str, Scalar]
    make: Callable[[], Any]
    if selector.name in (*AUGMENTERS.names(), *AUGMENTERS.presets()):
        params = {**AUGMENTERS.entry(selector.name).params, **selector.params}
        augmenter = load_method(AUGMENTERS, selector.name)
        make = _builder(text, lambda: augmenter.tiny(params))
        return "augmenter", list(augmenter_checks(make, text))
    if selector.name in (*LEARNERS.names(), *LEARNERS.presets()):
        params = {**LEARNERS.entry(selector.name).params, **selector.params}
        learner = load_method(LEARNERS, selector.name)
        make = _builder(text, lambda: learner.tiny(params))
        return "learner", list(learner_checks(make, text))
    raise UnknownNameError("augmenter or learner", selector.name, [*AUGMENTERS.names(), *LEARNERS.names()])


def run_checks(checks: Sequence[Check]) -> Iterator[Result]:
    """Runs checks one after another; a check that raises is a failure, never the end."""
    for check in checks:
        try:
            reason = check.run()
        except MethodError as error:
            yield Result(check.name, "failed", str(error))
        except (Exception, SystemExit) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            yield Result(check.name, "failed", f"raised {type(error).__name__} at {place}: {error}")
        else:
            yield Result(check.name, "ok") if reason is None else Result(check.name, "skipped", reason)


def _builder(text: str, make: Callable[[], Any]) -> Callable[[], Any]:
    """`make`, after it worked once.

    Raises:
        MethodError: if it raises anything that is not ours already.
    """
    try:
        make()
    except AugMARLError:
        raise
    except Exception as error:
        raise MethodError(f"{text} could not be built: {type(error).__name__}: {error}. Check its Config.") from error
    return make


def _render(template: str, values: dict[str, str]) -> str:
    source = resources.files("benchmark").joinpath("templates", "plugin", template).read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(source).render(values)
