"""The table of tasks. Listing it needs no engine; a task is built when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tasks.base import Task
from tasks.common.errors import UsageError
from tasks.common.registry import Registry
from tasks.common.selector import Selector

TaskFactory = Callable[[Selector], Task]


def _check(name: str, loaded: object) -> None:
    if not callable(loaded):
        raise UsageError(f"Task {name!r} is {loaded!r}; expected a function that takes a Selector and returns a Task.")


TASKS: Registry[TaskFactory] = Registry("task", check=_check, entry_points="augmarl.tasks")
TASKS.add("mpe/spread", "tasks.mpe.task:make_task", "cooperative navigation: 3 agents cover 3 landmarks")
TASKS.add("mpe/spread-4", "tasks.mpe.task:make_task", "cooperative navigation with 4 agents and landmarks")
TASKS.add("mpe/spread-5", "tasks.mpe.task:make_task", "cooperative navigation with 5 agents and landmarks")
TASKS.add("mpe/tag", "tasks.mpe.task:make_task", "predator-prey: 3 predators hunt a faster, trained prey")
TASKS.add("mpe/world", "tasks.mpe.task:make_task", "predator-prey with food and forests, trained prey")

ALIASES = {"mpe/spread-3": "mpe/spread"}


def make_task(text: str) -> Task:
    """The task of a selector such as `mpe/spread[variant=mpe2]`; equal selectors share one object.

    Raises:
        UsageError: for an unknown name or parameter.
    """
    selector = Selector.parse(text)
    return _make_task(Selector.of(ALIASES.get(selector.name, selector.name), selector.params))


@cache
def _make_task(selector: Selector) -> Task:
    return TASKS.load(selector.name)(selector)
