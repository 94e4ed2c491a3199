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
_SMAC = "tasks.smac.task:make_task"
TASKS.add("smac/3m", _SMAC, "3 marines against 3")
TASKS.add("smac/8m", _SMAC, "8 marines against 8")
TASKS.add("smac/12m", _SMAC, "12 marines against 12 (MADiTS)")
TASKS.add("smac/25m", _SMAC, "25 marines against 25")
TASKS.add("smac/5m_vs_6m", _SMAC, "5 marines against 6")
TASKS.add("smac/2s3z", _SMAC, "2 stalkers and 3 zealots against the same")
TASKS.add("smac/3s5z_vs_3s6z", _SMAC, "3 stalkers and 5 zealots against one zealot more")
TASKS.add("smac/2m_vs_1z", _SMAC, "2 marines against a zealot that strikes twice, as in the game")
TASKS.add("smac/2c_vs_64zg", _SMAC, "2 colossi against 64 zerglings, in StarCraft II alone (MASTARS)")
for _race in ("terran", "zerg", "protoss"):
    TASKS.add(f"smacv2/{_race}_5_vs_5", _SMAC, f"5 {_race} units, drawn anew every episode, against the same")
    TASKS.add(f"smacv2/{_race}_3_vs_3", _SMAC, f"3 {_race} units, drawn anew every episode, against the same")
TASKS.add("smacv2/zerg_3_vs_4", _SMAC, "3 zerg units, drawn anew every episode, against them and one more (CODI)")
_ROBOT = "tasks.mamujoco.task:make_task"
TASKS.add("mamujoco/4ant", _ROBOT, "an ant, one agent a leg (MADiTS)")
TASKS.add("mamujoco/2ant", _ROBOT, "an ant, two legs an agent")
TASKS.add("mamujoco/2halfcheetah", _ROBOT, "a half-cheetah, one agent a leg")

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
