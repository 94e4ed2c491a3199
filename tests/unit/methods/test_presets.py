"""Learners as the papers used them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.cells import canonical
from benchmark.checks import sample_dataset
from benchmark.choices import choose_learner
from methods.base import Budget, Run, UnsupportedError
from methods.learners import LEARNERS
from tasks.common.errors import UnknownNameError


@pytest.mark.parametrize("name", LEARNERS.presets())
def test_a_preset_is_a_learner_with_parameters_that_it_has(name: str) -> None:
    choice = choose_learner(name)
    base = LEARNERS.entry(name.partition("@")[0])
    config = choice.config()
    assert choice.target == base.target
    assert all(config[field] == value for field, value in {**base.params, **LEARNERS.entry(name).params}.items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bc@madits", {"double_softmax": True}),
        ("bc50@codi", {"keep_fraction": 0.5}),
        ("cql@ins", {"tau": 0.0, "discount": 0.95, "updates": 2_001}),
        ("td3bc@mastars[discount=0.9]", {"form": "tau", "discount": 0.9}),
        ("qmix-cql@eaq", {"conservatism": 1.0, "cql_samples": 10, "cql_actions": "all", "window": 20}),
    ],
)
def test_what_the_papers_say(name: str, expected: dict[str, Any]) -> None:
    assert expected.items() <= choose_learner(name).config().items()


def test_a_matrix_may_name_presets() -> None:
    assert canonical("learner", "omar@mastars[tau=0.50]") == "omar@mastars[tau=0.5]"
    with pytest.raises(UnknownNameError, match="omar@mastars"):
        canonical("learner", "omar@mastarz")


def test_a_preset_of_discrete_actions_says_so() -> None:
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4))
    for name in ("bc@madits", "omiga@madits"):
        learner = choose_learner(name).build()
        with pytest.raises(UnsupportedError, match="discrete actions"):
            learner.fit([sample_dataset("continuous").without_privileged()], run)
        learner.fit([sample_dataset("discrete").without_privileged()], run)
