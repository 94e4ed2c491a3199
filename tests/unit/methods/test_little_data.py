"""Augmenters that train, on almost nothing: one transition, and battles of a single step."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.base import Budget, Run
from tasks.datasets.offline import OfflineDataset

NAMES = ("vae", "synther", "ins", "ins-no-select", "eaq")


def single(shape: str) -> OfflineDataset:
    """The first transition of the first episode, as an episode."""
    data = sample_dataset(shape).without_privileged().take([0])
    columns = {name: column[: 1 + (len(column) > data.n_steps)] for name, column in data.columns().items()}
    last = np.array([True])
    return data.replace(**{**columns, "episode_starts": np.array([0, 1]), "terminals": ~last, "truncations": last})


@pytest.mark.parametrize("shape", ["continuous", "states-and-deaths"])
@pytest.mark.parametrize("name", NAMES)
def test_one_transition_is_enough(name: str, shape: str) -> None:
    data = single(shape)
    assert (data.n_episodes, data.n_steps) == (1, 1)
    augmenter = AUGMENTERS.load(name).tiny(AUGMENTERS.entry(name).params)
    augmenter.fit(data, Run(seeds=(0,)))
    found = augmenter.generate(data, Run(seeds=(0,), budget=Budget(amount=6)))
    found.validate()
    assert found.n_steps >= 6
    assert found.lengths.max() == 1
    seen = np.ones(found.observations.shape[:2], dtype=np.bool_) if found.alive is None else found.alive
    low, high = data.observations.min(axis=(0, 1)) - 1e-3, data.observations.max(axis=(0, 1)) + 1e-3
    inside = (found.observations >= low) & (found.observations <= high)
    assert inside[seen].all()
    assert found.team_rewards() == pytest.approx(np.full(found.n_steps, data.team_rewards()[0]), abs=1e-4)
