"""How long opening and sampling a dataset of a million steps takes (`make perf`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.datasets import store
from tasks.datasets.card import card_of_imported
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import segments, transitions
from tasks.registry import make_task

pytestmark = pytest.mark.perf
STEPS, LENGTH = 1_000_000, 25


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, episodes = make_task("mpe/spread").spec, STEPS // LENGTH
    generator = np.random.Generator(np.random.PCG64(0))
    columns: dict[str, Any] = {
        name: np.zeros(shape, dtype) for name, (shape, dtype) in OfflineDataset.layout(spec, episodes, STEPS).items()
    }
    for name in ("observations", "rewards", "states"):
        columns[name] = generator.random(columns[name].shape, dtype=np.float32)
    columns["truncations"][LENGTH - 1 :: LENGTH] = True
    columns["episode_starts"] = np.arange(0, STEPS + 1, LENGTH)
    needed = OfflineDataset.required_columns(spec)
    data = OfflineDataset(spec=spec, **{name: columns[name] for name in needed})
    path = tmp_path_factory.mktemp("perf") / "million.safetensors"
    store.save(data, card_of_imported(data, dataset="million", regime="none", origin="drawn"), path)
    return path


def test_open_a_million_steps(benchmark: Any, path: Path) -> None:
    data = benchmark(store.load, path)
    assert data.n_steps == STEPS


def test_sample_1024_transitions(benchmark: Any, path: Path) -> None:
    view, generator = transitions(store.load(path)), np.random.Generator(np.random.PCG64(1))
    assert len(benchmark(view.sample, 1024, generator).rewards) == 1024


def test_sample_256_segments(benchmark: Any, path: Path) -> None:
    view, generator = segments(store.load(path), 25), np.random.Generator(np.random.PCG64(1))
    assert len(benchmark(view.sample, 256, generator).rewards) == 256
