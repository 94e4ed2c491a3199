"""Generated transitions in the hands of learners: memoryless ones take them, those that need episodes say so."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.checks import sample_dataset
from methods.augmenters.synther import SynthER
from methods.base import Budget, Run, UnsupportedError
from methods.learners import LEARNERS
from tasks.datasets.offline import OfflineDataset, concatenate


def generated(shape: str) -> tuple[OfflineDataset, OfflineDataset]:
    data = sample_dataset(shape).without_privileged()
    augmenter = SynthER.tiny()
    augmenter.fit(data, Run(seeds=(0,)))
    return data, augmenter.generate(data, Run(seeds=(0,)))


CONTINUOUS, DISCRETE = generated("continuous"), generated("discrete")


def fit(name: str, data: OfflineDataset, original: OfflineDataset, **params: Any) -> None:
    learner = LEARNERS.load(name).tiny({**LEARNERS.entry(name).params, **params})
    policy = learner.fit([data], Run(seeds=(0,), budget=Budget(updates=3, batch_size=4), original=original))
    assert not policy.diverged(0)


@pytest.mark.parametrize("name", ["bc", "td3bc", "omar", "cql", "cfcql", "bcq", "omiga", "icq"])
def test_memoryless_learners_take_transitions_alone_or_beside_the_data(name: str) -> None:
    data, synthetic = CONTINUOUS
    fit(name, synthetic, data)
    fit(name, concatenate([data, synthetic]), data)


OF_CHOICES = ["bc", "td3bc", "omar", "cql", "cfcql", "bcq", "omiga", "icq", "qmix-cql", "qmix-bcq"]


@pytest.mark.parametrize("name", OF_CHOICES)
def test_so_do_those_of_discrete_actions_without_memory(name: str) -> None:
    data, synthetic = DISCRETE
    fit(name, synthetic, data, memory="none")


@pytest.mark.parametrize("name", OF_CHOICES)
def test_with_memory_they_refuse_transitions_and_take_them_beside_episodes(name: str) -> None:
    data, synthetic = DISCRETE
    with pytest.raises(UnsupportedError, match="single transitions"):
        fit(name, synthetic, data, memory="gru")
    fit(name, concatenate([data, synthetic]), data, memory="gru")


def test_no_learner_is_forgotten_here() -> None:
    ours = {name for name in LEARNERS.names() if LEARNERS.entry(name).package == "augmarl" and "@" not in name}
    assert ours == {*OF_CHOICES, "bc50"}


def test_the_best_half_of_transitions_is_no_half_of_episodes() -> None:
    data, synthetic = CONTINUOUS
    with pytest.raises(UnsupportedError, match="no episode has a return"):
        fit("bc50", synthetic, data)
