"""Five seeds' policies evaluated in one batch, against one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.evaluation import evaluate
from benchmark.timing.measurements import Measurement, Side, compared
from methods.base import Budget, LearnedPolicy, Run
from methods.learners import LEARNERS
from tasks.common.errors import MissingDependencyError
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

TASKS = {"mpe/spread": 64, "smac/3m": 64}
"""Episodes a policy plays, by task."""
SEEDS = (0, 1, 2, 3, 4)
DATA_EPISODES, UPDATES = 64, 50


def measure(device: str) -> Iterator[Measurement]:
    """Episodes a second of cloned policies in the real environment.

    Raises:
        MissingDependencyError: without JaxMARL.
    """
    for name, episodes in TASKS.items():
        task = make_task(name)
        if missing := task.unavailable():
            raise MissingDependencyError(f"`bench timing` of evaluations on {name}: {missing}.")
        data = collect(task, resolve(task, "random"), DATA_EPISODES, 0, lambda *_: None)
        learner = LEARNERS.load("bc").from_params({"memory": "none"})
        run = Run(seeds=SEEDS, device=device, budget=Budget(updates=UPDATES))
        together = learner.fit([data] * len(SEEDS), run)
        alone = [learner.load_policy([together.state(r)], task.spec, device) for r in range(len(SEEDS))]

        def play(*policies: LearnedPolicy) -> None:
            for policy in policies:
                evaluate(policy, task, episodes, 0, "bc")  # noqa: B023  # called in this turn

        work = len(SEEDS) * episodes
        yield from compared(
            f"evaluation/{name}",
            Side("five together", lambda: play(together), work, f"{episodes} episodes each, {device}"),  # noqa: B023
            Side("one by one", lambda: play(*alone), work, "the same episodes"),  # noqa: B023
            unit="episodes",
            target=1.0,
        )
