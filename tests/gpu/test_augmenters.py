"""Augmenters that train on a GPU: what they fit and generate is made as on the CPU.

`pytest -m gpu`; AUGMARL_TEST_DEVICE=cpu tries the tests themselves.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.base import Arrays, Budget, Run
from tasks.datasets.offline import OfflineDataset

DEVICE = os.environ.get("AUGMARL_TEST_DEVICE", "cuda")
CLASSES: dict[type[Any], str] = {}  # and the first of the names of each
for _name in AUGMENTERS.names():
    if AUGMENTERS.load(_name).trains:
        CLASSES.setdefault(AUGMENTERS.load(_name), _name)

pytestmark = pytest.mark.gpu


def fit_and_generate(name: str, data: OfflineDataset, device: str) -> tuple[Arrays, OfflineDataset]:
    run = Run(seeds=(3,), device=device, budget=Budget(amount=90))
    augmenter = AUGMENTERS.load(name).tiny(AUGMENTERS.entry(name).params)
    seen = data if augmenter.privileged else data.without_privileged()
    augmenter.fit(seen, run)
    return augmenter.state(), augmenter.generate(seen, run)


@pytest.mark.parametrize("shape", ["continuous", "states-and-deaths"])
@pytest.mark.parametrize("name", CLASSES.values())
def test_an_augmenter_fits_and_generates_on_the_device(name: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("BASE_URL", "API_KEY"):  # with an endpoint, codi would ask it for labels
        monkeypatch.delenv(f"AUGMARL_LLM_{key}", raising=False)
    data = sample_dataset(shape)
    if reason := AUGMENTERS.load(name).unsupported(data.spec):
        pytest.skip(reason)
    (here, on_cpu), (there, on_device) = (fit_and_generate(name, data, device) for device in ("cpu", DEVICE))
    assert here.keys() == there.keys()
    for key, array in there.items():
        assert array.shape == here[key].shape or "diagnosis" in key, key  # a text, whose numbers differ
        assert not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all(), key
    ours, theirs = on_cpu.columns(), on_device.columns()
    assert ours.keys() == theirs.keys()
    for key, column in theirs.items():
        assert (column.dtype, column.shape[1:]) == (ours[key].dtype, ours[key].shape[1:]), key
        assert not np.issubdtype(column.dtype, np.floating) or np.isfinite(column).all(), key
    assert on_device.n_steps >= 90
    # The noise is the CPU's; rounding may move a prediction of an end, or a rank, past its threshold.
    assert abs(on_device.n_episodes - on_cpu.n_episodes) <= 1 + 0.2 * on_cpu.n_episodes
