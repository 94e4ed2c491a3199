"""Learners: five seeds together against five one after another, one seed against plain modules and publications."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmark.choices import choose_learner
from benchmark.timing.learner_yardstick import PlainCQL, PlainRecurrentCloning
from benchmark.timing.measurements import Measurement, Side, compared, interleaved_seconds, seconds_of, summarise
from methods.base import Budget, Learner, Run
from methods.data.batches import episode_batches, joint_transitions
from methods.learners import LEARNERS
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

SEEDS = (0, 1, 2, 3, 4)
EPISODES = 400
BATCHES = (32, 256)
CLONING = (("bc", "mpe/spread", "none"), ("bc", "mpe/spread[actions=discrete]", "gru"))
CRITICS = ("td3bc", "omar", "cql", "cfcql", "omiga", "icq", "qmix-cql")
AT_LEAST = {32: 5.0, 256: 2.0}
"""Times faster that five seeds of 64 wide networks shall be together, by batch."""
SPREAD, CHOICES = "mpe/spread", "mpe/spread[actions=discrete]"


class Published(NamedTuple):
    """What a published implementation reaches on MPE spread, on one core of another such machine.

    Attributes:
        learner: ours, at the same sizes.
        task: of the batches.
        batch_size: transitions; with discrete actions episodes of 25 steps.
        rate: updates a second.
        source: whose.
    """

    learner: str
    task: str
    batch_size: int
    rate: float
    source: str


PUBLISHED = (
    Published("omar", SPREAD, 1024, 12.9, "OMAR's repository"),
    Published("cql", SPREAD, 1024, 19.0, "OMAR's repository"),
    Published("cfcql", SPREAD, 1024, 15.0, "CFCQL's repository: 3.0 rounds of five critic updates"),
    Published("omiga", SPREAD, 128, 115.0, "OMIGA's repository"),
    Published("bc", CHOICES, 32, 72.0, "OffPyMARL"),
    Published("bc", CHOICES, 32, 137.0, "OG-MARL, windows of 20 steps"),
    Published("td3bc", CHOICES, 32, 34.0, "OffPyMARL"),
    Published("omar", CHOICES, 32, 11.0, "OffPyMARL, a critic step each time step"),
    Published("cfcql[behaviour_updates=1]", CHOICES, 32, 17.0, "OffPyMARL"),
    Published("omiga@madits", CHOICES, 32, 15.0, "OffPyMARL"),
    Published("icq", CHOICES, 32, 16.0, "OffPyMARL, a critic step each time step"),
    Published("icq", CHOICES, 32, 51.0, "OG-MARL, windows of 20 steps"),
    Published("qmix-cql", CHOICES, 32, 45.0, "OffPyMARL"),
    Published("qmix-cql[window=20]", CHOICES, 32, 34.0, "OG-MARL"),
)
PUBLISHED_TARGET = 3.0


def measure(device: str) -> Iterator[Measurement]:
    """Cloning, then learners with critics, at 64 wide; then single seeds against plain modules, and as published."""
    for name, task_id, memory in CLONING:
        data = _data(task_id)
        learner = LEARNERS.load(name).from_params({"memory": memory, "hidden": 64})
        unit, updates = ("episodes", 40) if memory == "gru" else ("transitions", 400)
        for batch_size in BATCHES if memory == "none" else BATCHES[:1]:
            label = f"learner/{name} ({'recurrent' if memory == 'gru' else 'memoryless'}), batch {batch_size}"
            yield from _five_seeds(learner, data, label, f"{batch_size} {unit}", batch_size, updates, 1.0, device)
    of_task = {task: _data(task) for task in (SPREAD, CHOICES)}
    for name in CRITICS:
        learner = LEARNERS.load(name).from_params({**LEARNERS.entry(name).params, "hidden": 64})
        discrete = learner.unsupported(of_task[SPREAD].spec) is not None
        for batch_size in BATCHES[:1] if discrete else BATCHES:
            label, target = f"learner/{name}, batch {batch_size}", AT_LEAST[batch_size]
            data, unit = of_task[CHOICES if discrete else SPREAD], "episodes" if discrete else "transitions"
            yield from _five_seeds(learner, data, label, f"{batch_size} {unit}", batch_size, 40, target, device)
    yield from _against_plain(of_task, device)
    for row in PUBLISHED:
        yield from _against_published(row, of_task[row.task], device)


def _against_plain(of_task: dict[str, OfflineDataset], device: str) -> Iterator[Measurement]:
    """Updates a second of one seed, and of the same updates written the obvious way, on the same batches."""
    if device != "cpu":
        return  # the plain form stays where it is made
    updates, spread, choices = 30, of_task[SPREAD], of_task[CHOICES]

    def plain_cql() -> None:
        team = PlainCQL(spread.spec.n_agents, spread.spec.obs_dim, spread.spec.action.size)
        drawn = [np.random.default_rng(0)]
        for batch in joint_transitions([spread], drawn, batch_size=1024, updates=updates, device=device):
            team.update(batch)

    def plain_cloning() -> None:
        team = PlainRecurrentCloning(choices.spec.n_agents, choices.spec.obs_dim, choices.spec.action.size)
        drawn, every = [np.random.default_rng(0)], [np.arange(choices.n_episodes)]
        for batch in episode_batches([choices], every, drawn, batch_size=32, updates=updates, device=device):
            team.update(batch)

    cases = (
        ("cql (continuous), batch 1024", "cql", spread, 1024, plain_cql),
        ("bc (recurrent), batch 32", "bc", choices, 32, plain_cloning),
    )
    for label, name, data, batch_size, plain in cases:
        ours = _training(choose_learner(name).build(), data, batch_size, updates, device, (0,))
        yield from compared(
            f"learner/{label}, against plain modules",
            Side("one seed", ours, updates, f"sampling included, {device}"),
            Side("plain", plain, updates, "torch.nn, an agent and a time step at a time, on the same batches"),
            unit="updates",
            target=1.0,
            repetitions=3,
        )


def _against_published(row: Published, data: OfflineDataset, device: str) -> Iterator[Measurement]:
    """Updates a second of one seed at its own sizes, sampling included, and their ratio to what is published."""
    seconds = seconds_of(
        _training(choose_learner(row.learner).build(), data, row.batch_size, 30, device, (0,)), repetitions=3
    )
    rates = [30 / s for s in seconds]
    kind = "discrete" if row.task == CHOICES else "continuous"
    label = f"learner/{row.learner} ({kind}), batch {row.batch_size}, against {row.source}"
    yield summarise(f"{label}: one seed", rates, unit="updates/s", detail=f"sampling included, {device}")
    yield summarise(
        f"{label}: ratio",
        [rate / row.rate for rate in rates],
        unit="x",
        detail=f"over {row.rate} updates a second, measured elsewhere on one such core",
        target=PUBLISHED_TARGET,
    )


def _data(task_id: str) -> OfflineDataset:
    task = make_task(task_id)
    return collect(task, resolve(task, "random"), EPISODES, 0, lambda done, total, what: None)


def _training(
    learner: Learner[Any], data: OfflineDataset, batch_size: int, updates: int, device: str, seeds: tuple[int, ...]
) -> Callable[[], object]:
    run = Run(seeds=seeds, device=device, budget=Budget(updates=updates, batch_size=batch_size))
    return lambda: learner.fit([data] * len(seeds), run)


def _five_seeds(
    learner: Learner[Any],
    data: OfflineDataset,
    label: str,
    batch: str,
    batch_size: int,
    updates: int,
    target: float,
    device: str,
) -> Iterator[Measurement]:
    """Updates a second of one seed alone and of five together, and the ratio of the times for five seeds."""
    alone = [_training(learner, data, batch_size, updates, device, (seed,)) for seed in SEEDS]
    together, apart = interleaved_seconds(
        _training(learner, data, batch_size, updates, device, SEEDS),
        lambda: [train() for train in alone],
        repetitions=3,
    )
    detail = f"64 wide, {batch} a batch, {updates} updates, {device}"
    yield summarise(f"{label}: one seed", [5 * updates / s for s in apart], unit="updates/s", detail=detail)
    yield summarise(
        f"{label}: five together", [updates / s for s in together], unit="updates/s", detail="each of all five"
    )
    yield summarise(
        f"{label}: speed-up of five",
        list(np.divide(apart, together)),
        unit="x",
        detail="five one after another over five together",
        target=target,
    )
