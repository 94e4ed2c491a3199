"""When and where a cell group runs; never what it is."""

from __future__ import annotations

from benchmark.executors.base import Executor
from tasks.common.errors import UnknownNameError

EXECUTORS = ("local", "inline")


def make_executor(name: str, workers: int) -> Executor:
    """The executor of a name. Raises UnknownNameError."""
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if name == "inline":
        from benchmark.executors.inline import InlineExecutor

        return InlineExecutor()
    from benchmark.executors.local import LocalExecutor

    return LocalExecutor(workers)
