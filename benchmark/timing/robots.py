"""MuJoCo's robots on all cores against a loop over single environments."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmark.timing.measurements import Measurement, Side, compared
from tasks.common.errors import MissingDependencyError
from tasks.common.seeding import make_generator
from tasks.mamujoco.task import MAMuJoCoTask
from tasks.registry import make_task

TASK = "mamujoco/4ant"
NUM_ENVS, STEPS = 32, 50


def measure(device: str) -> Iterator[Measurement]:
    """Environment steps a second on one thread and on every core; `device` plays no part.

    Raises:
        MissingDependencyError: without MuJoCo.
    """
    task = make_task(TASK)
    assert isinstance(task, MAMuJoCoTask)
    if missing := task.unavailable():
        raise MissingDependencyError(f"`bench timing` of robots: {missing}.")
    from tasks.mamujoco.simulator import Simulations  # here: needs mujoco

    cores = len(os.sched_getaffinity(0))
    alone = Simulations(task.robot.environment, NUM_ENVS, threads=1)
    together = Simulations(task.robot.environment, NUM_ENVS, threads=cores)
    actions = make_generator("timing", "robots").uniform(-1, 1, (STEPS, NUM_ENVS, alone.actions))

    def run(simulations: Simulations) -> None:
        simulations.reset(0, range(NUM_ENVS))
        for joint in actions:
            simulations.step(joint)

    detail = f"{NUM_ENVS} robots, random actions, reset included"
    yield from compared(
        f"mujoco/{TASK}",
        Side(f"{cores} threads", lambda: run(together), STEPS * NUM_ENVS, detail),
        Side("loop", lambda: run(alone), STEPS * NUM_ENVS, "the same on one thread"),
        unit="steps",
        target=1.0,
    )
    together.close()
    alone.close()
