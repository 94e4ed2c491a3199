"""Learners see rewards divided by the scale of their config, and nothing else of the data changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.checks import sample_dataset
from methods.algorithms.reward_units import in_units, reward_scale
from methods.base import Budget, Run
from methods.learners import LEARNERS
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ScoreReferences

CLONING = ("bc", "bc50")
DISCRETE_ALONE = ("qmix-cql", "qmix-bcq")
FORMS = [
    (name, kind)
    for name in LEARNERS.names()
    for kind in ("continuous", "discrete")
    if name not in CLONING and not (name in DISCRETE_ALONE and kind == "continuous")
]


def test_replicas_that_share_a_dataset_still_do() -> None:
    one, two = sample_dataset("continuous", seed=0), sample_dataset("continuous", seed=1)
    before = one.rewards.copy()
    found = in_units([one, two, one], 4.0)
    assert found[0] is found[2]
    for own, scaled in zip((one, two), found, strict=False):
        np.testing.assert_array_equal(scaled.rewards, own.rewards / np.float32(4.0))
        np.testing.assert_array_equal(scaled.observations, own.observations)
    np.testing.assert_array_equal(one.rewards, before)  # the data themselves stay
    assert in_units([one], 1.0)[0] is one


def with_expert(data: OfflineDataset, expert: float) -> OfflineDataset:
    """The same data of a task whose expert was measured."""
    references = ScoreReferences(random_return=0.0, expert_return=expert, episodes=1, seed=0, provenance="")
    return data.replace(spec=replace(data.spec, score_references=references))


def test_the_scale_is_a_steps_share_of_the_experts_return() -> None:
    data = sample_dataset("continuous")  # six steps an episode
    assert reward_scale(None, data.spec, 1.0) == 1.0  # nobody has measured its references
    assert reward_scale(None, with_expert(data, -60.0).spec, 1.0) == 10.0
    assert reward_scale(None, with_expert(data, 3.0).spec, 1.0) == 1.0
    assert reward_scale(None, with_expert(data, 3.0).spec, 0.25) == 0.5
    assert reward_scale(3.0, with_expert(data, -60.0).spec, 1.0) == 3.0


def weights(name: str, data: OfflineDataset, **params: float) -> list[NDArray[np.float32]]:
    """Of a policy after three updates."""
    learner = LEARNERS.load(name).tiny({**LEARNERS.entry(name).params, **params})
    policy = learner.fit([data], Run(seeds=(0,), budget=Budget(updates=3, batch_size=4)))
    return [np.asarray(x) for x in policy.state(0).values()]


@pytest.mark.parametrize(("name", "kind"), FORMS)
def test_a_scale_is_worth_as_much_as_smaller_rewards(name: str, kind: str) -> None:
    data = sample_dataset(kind, episodes=6, seed=0).without_privileged()
    smaller = data.replace(rewards=data.rewards / np.float32(4.0))
    scaled, plain = weights(name, data, reward_scale=4.0), weights(name, data, reward_scale=1.0)
    for a, b in zip(scaled, weights(name, smaller, reward_scale=1.0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(scaled, plain, strict=True))


@pytest.mark.parametrize(("name", "kind"), FORMS)
@pytest.mark.parametrize("share", [10.0, 0.5])
def test_left_open_the_scale_is_that_of_the_task(name: str, kind: str, share: float) -> None:
    """Never up, but for `omiga`, whose advantages are clipped."""
    data = sample_dataset(kind, episodes=6, seed=0).without_privileged()
    data = with_expert(data, share * data.spec.episode_limit)
    expected = share if share > 1 or name == "omiga" else 1.0
    for a, b in zip(weights(name, data), weights(name, data, reward_scale=expected), strict=True):
        np.testing.assert_array_equal(a, b)
