"""The batched MPE core against the loop over one environment of the mpe2 library."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from benchmark.timing.measurements import Measurement, Side, compared
from tasks.common.errors import MissingDependencyError
from tasks.common.seeding import make_generator
from tasks.common.selector import Selector
from tasks.registry import make_task

NUM_ENVS = 256
TARGET = 50.0
"""Times the steps a second of mpe2's loop, at 256 environments on one core."""

LIBRARY_MODULES = {"mpe/spread": "mpe2.simple_spread_v3", "mpe/tag[prey=scripted]": "mpe2.simple_tag_v3"}
BATCHED_EPISODES, SINGLE_EPISODES = 8, 20


def measure(device: str) -> Iterator[Measurement]:
    """Environment steps a second and their ratio, uniformly random discrete actions; `device` plays no part.

    Raises:
        MissingDependencyError: without the mpe2 package.
    """
    for task_id, module in LIBRARY_MODULES.items():
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            raise MissingDependencyError("`bench timing` compares with mpe2. Install it: pip install mpe2") from error
        selector = Selector.parse(task_id)
        task = make_task(str(Selector.of(selector.name, {**selector.params, "actions": "discrete", "variant": "mpe2"})))
        limit = task.spec.episode_limit
        env = task.make_env(NUM_ENVS, seed=0)
        actions = make_generator("timing", task_id).integers(
            task.spec.action.size, size=(limit, NUM_ENVS, task.spec.n_agents)
        )

        def batched() -> None:
            for episode in range(BATCHED_EPISODES):
                env.reset(range(episode * NUM_ENVS, (episode + 1) * NUM_ENVS))  # noqa: B023  # called in this turn
                for joint_action in actions:  # noqa: B023
                    env.step(joint_action)  # noqa: B023

        single_env = library.parallel_env(max_cycles=limit)
        single_env.reset(seed=0)
        agents = list(single_env.agents)
        choices = make_generator("timing", task_id, "single").integers(5, size=(limit, len(agents)))

        def single() -> None:
            for _ in range(SINGLE_EPISODES):
                single_env.reset()  # noqa: B023
                for row in choices:  # noqa: B023
                    single_env.step(dict(zip(agents, row, strict=True)))  # noqa: B023

        detail = f"{task.spec.variant}, {NUM_ENVS} environments, resets included"
        yield from compared(
            f"engine/{selector.name}",
            Side("batched", batched, BATCHED_EPISODES * limit * NUM_ENVS, detail),
            Side("mpe2 loop", single, SINGLE_EPISODES * limit, "one parallel_env, resets included"),
            unit="steps",
            target=TARGET,
        )
