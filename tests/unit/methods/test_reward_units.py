"""Learners see rewards divided by the scale of their config, and nothing else of the data changes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.algorithms.reward_units import in_units
from methods.base import Budget, Run
from methods.learners import LEARNERS

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


@pytest.mark.parametrize(("name", "kind"), FORMS)
def test_a_scale_is_worth_as_much_as_smaller_rewards(name: str, kind: str) -> None:
    data = sample_dataset(kind, episodes=6, seed=0).without_privileged()
    entry, cls = LEARNERS.entry(name), LEARNERS.load(name)
    run = Run(seeds=(0,), budget=Budget(updates=3, batch_size=4))

    def weights(scale: float, rewards: float) -> list[np.ndarray]:
        learner = cls.tiny({**entry.params, "reward_scale": scale})
        policy = learner.fit([data.replace(rewards=data.rewards / np.float32(rewards))], run)
        return [np.asarray(x) for x in policy.state(0).values()]

    scaled, smaller, plain = weights(4.0, 1.0), weights(1.0, 4.0), weights(1.0, 1.0)
    for a, b in zip(scaled, smaller, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(scaled, plain, strict=True))
