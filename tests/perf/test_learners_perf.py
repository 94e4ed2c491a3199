"""What training five seeds together saves, and updates per second."""

from typing import Any

import pytest
import torch

from benchmark.checks import sample_dataset
from methods.base import Budget, Run
from methods.learners.bc import BC, BCConfig

SEEDS, UPDATES = 5, 100
CASES = {"mlp-32": ("continuous", 32), "mlp-256": ("continuous", 256), "gru-32": ("discrete", 32)}


@pytest.mark.perf
@pytest.mark.parametrize("how", ["together", "one-by-one"])
@pytest.mark.parametrize("case", CASES)
def test_five_seeds_of_bc(benchmark: Any, how: str, case: str) -> None:
    torch.set_num_threads(1)
    shape, batch_size = CASES[case]
    data = [sample_dataset(shape, episodes=500, seed=seed).without_privileged() for seed in range(SEEDS)]
    groups = [tuple(range(SEEDS))] if how == "together" else [(seed,) for seed in range(SEEDS)]
    budget = Budget(updates=UPDATES, batch_size=batch_size)

    def train() -> None:
        for seeds in groups:
            BC(BCConfig()).fit([data[seed] for seed in seeds], Run(seeds=seeds, budget=budget))

    benchmark.pedantic(train, rounds=3, warmup_rounds=1)
    benchmark.extra_info["seed updates per second"] = SEEDS * UPDATES / benchmark.stats.stats.min
