"""The same numbers on a GPU as on the CPU. `pytest -m gpu`; AUGMARL_TEST_DEVICE=cpu tries the tests themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark.checks import sample_dataset
from benchmark.cli.root import app
from methods.base import Budget, Run
from methods.learners import LEARNERS
from tasks.datasets.offline import OfflineDataset

DEVICE = os.environ.get("AUGMARL_TEST_DEVICE", "cuda")
TOLERANCE = 1e-4  # relative, float32

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["continuous", "discrete"])
def data(request: pytest.FixtureRequest) -> OfflineDataset:
    return sample_dataset(request.param)


@pytest.mark.parametrize("name", LEARNERS.names())
def test_a_few_updates_agree(name: str, data: OfflineDataset) -> None:
    learner = LEARNERS.load(name).from_params(LEARNERS.entry(name).params)
    states = []
    for device in ("cpu", DEVICE):
        run = Run(seeds=(0, 1), device=device, budget=Budget(updates=5, batch_size=16))
        policy = learner.fit([data, data], run)
        states.append([policy.state(replica) for replica in range(2)])
    for on_cpu, on_device in zip(*states, strict=True):
        assert on_cpu.keys() == on_device.keys()
        for key, values in on_cpu.items():
            np.testing.assert_allclose(on_device[key], values, rtol=TOLERANCE, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", LEARNERS.names())
def test_a_policy_of_one_device_acts_alike_on_another(name: str, data: OfflineDataset) -> None:
    learner = LEARNERS.load(name).from_params(LEARNERS.entry(name).params)
    trained = learner.fit([data], Run(seeds=(0,), device=DEVICE, budget=Budget(updates=5, batch_size=16)))
    moved = learner.load_policy([trained.state(0)], data.spec, "cpu")
    observations = data.observations[None, :8]  # (1, B, N, D)
    available = None if data.available_actions is None else data.available_actions[None, :8]
    there, _ = trained.act(observations, available)
    here, _ = moved.act(observations, available)
    np.testing.assert_allclose(there, here, rtol=TOLERANCE, atol=1e-5)


def test_a_whole_run_on_the_device(tmp_path: Path) -> None:
    environment = {"AUGMARL_HOME": str(tmp_path / "home"), "AUGMARL_RESULTS": str(tmp_path / "results")}
    done = CliRunner().invoke(app, ["run", "--matrix", "smoke", "--device", DEVICE, "-j", "1"], env=environment)
    assert done.exit_code == 0, done.output
    records = [json.loads(path.read_text()) for path in (tmp_path / "results").rglob("seed-*.json")]
    assert len(records) == 4
    assert {record["status"] for record in records} == {"ok"}
    assert all(record["provenance"]["device"].startswith(DEVICE) for record in records)
