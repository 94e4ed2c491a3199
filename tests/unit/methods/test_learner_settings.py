"""Settings that learners refuse: those without a meaning, and those of the form for the other kind of actions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.base import Budget, Run, UnsupportedError
from methods.learners import LEARNERS
from methods.learners.bcq.config import BCQConfig
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.icq.config import ICQConfig
from methods.learners.omar.config import OMARConfig
from methods.learners.omiga.config import OMIGAConfig
from methods.learners.qmix_bcq import QMIXBCQConfig
from methods.learners.qmix_cql import QMIXCQLConfig
from methods.learners.td3bc.config import TD3BCConfig
from tasks.common.errors import UsageError

BCQ: list[dict[str, Any]] = [
    {"hidden": 0},
    {"vae_hidden": 0},
    {"proposals": 0},
    {"target_samples": 0},
    {"learning_rate": 0.0},
    {"polyak": 0.0},
    {"discount": 1.1},
    {"perturbation": -0.1},
    {"minimum_share": 2.0},
    {"max_grad_norm": -1.0},
    {"memory": "lstm"},
    {"threshold": 1.5},
    {"target_every": 0},
    {"filter_at_eval": "no"},
    {"normalise": 3},
    {"learning_rate": "fast"},
    {"batch_size": 2.5},
]
CFCQL: list[dict[str, Any]] = [
    {"conservatism": -1.0},
    {"target_noise": math.inf},
    {"cql_samples": 0},
    {"ca_ratio": 0},
    {"temperature": math.nan},
    {"behaviour_updates": -1},
    {"behaviour_learning_rate": 0.0},
    {"learning_rate": 0.0},
    {"memory": "lstm"},
    {"trace": 1.5},
    {"td_weight": math.nan},
    {"mixer_embed": 0},
    {"target_every": 2.5},
    {"conservatism": "much"},
    {"normalise": 1},
    {"max_grad_norm": math.inf},
    {"behaviour_updates": True},
    {"polyak": 0.0},
]
ICQ: list[dict[str, Any]] = [
    {"memory": "lstm"},
    {"trace": 1.1},
    {"alpha": 0.0},
    {"beta": -1.0},
    {"polyak": 0.0},
    {"hidden": 0},
    {"target_every": 0},
    {"discount": 1.1},
    {"max_grad_norm": -1.0},
]
OMAR: list[dict[str, Any]] = [
    {"tau": "x"},
    {"tau": -0.1},
    {"tau": 2.0},
    {"conservatism": math.nan},
    {"conservatism": math.inf},
    {"learning_rate": "x"},
    {"hidden": 1.5},
    {"critic_hidden": 0},
    {"target_every": 0},
    {"trace": 1.1},
    {"memory": "lstm"},
    {"max_grad_norm": -1.0},
    {"normalise": "x"},
    {"per_timestep_updates": "x"},
    {"polyak": 0.0},
    {"exploration": 1.0},
    {"samples": 0},
    {"search_sigma": 0.0},
]
OMIGA: list[dict[str, Any]] = [
    {"alpha": 0.0},
    {"polyak": 0.0},
    {"hidden": 0},
    {"discount": 1.1},
    {"memory": "lstm"},
    {"batch_size": 0},
]
QMIX_BCQ: list[dict[str, Any]] = [{"threshold": 1.5}, {"threshold": -0.1}]
QMIX_CQL: list[dict[str, Any]] = [
    {"memory": "lstm"},
    {"reward": "sum"},
    {"hidden": 0},
    {"target_every": 0},
    {"batch_size": 0},
    {"learning_rate": 0.0},
    {"discount": 1.1},
    {"conservatism": -1.0},
    {"cql_samples": 0},
    {"cql_actions": "legal"},
]
TD3BC: list[dict[str, Any]] = [
    {"alpha": -1.0},
    {"learning_rate": 0.0},
    {"polyak": 1.5},
    {"hidden": 0},
    {"memory": "lstm"},
    {"critic_hidden": 0},
    {"max_grad_norm": -1.0},
    {"normalise": 3},
    {"learning_rate": "fast"},
    {"batch_size": 2.5},
]
WITHOUT_A_MEANING = [
    pytest.param(config, given, id=f"{config.__name__}-{name}={given[name]}")
    for config, all_given in (
        (BCQConfig, BCQ),
        (CFCQLConfig, CFCQL),
        (ICQConfig, ICQ),
        (OMARConfig, OMAR),
        (OMIGAConfig, OMIGA),
        (QMIXBCQConfig, QMIX_BCQ),
        (QMIXCQLConfig, QMIX_CQL),
        (TD3BCConfig, TD3BC),
    )
    for given in all_given
    for name in given
]
OWNERS = {QMIXBCQConfig: "qmix(-bcq)?", QMIXCQLConfig: "qmix(-cql)?"}


@pytest.mark.parametrize(("config", "given"), WITHOUT_A_MEANING)
def test_settings_without_a_meaning_are_refused(config: Any, given: dict[str, Any]) -> None:
    """And named, with the learner that they are of and with their value."""
    ((name, value),) = given.items()
    owner = OWNERS.get(config, config.__name__.removesuffix("Config").lower())
    with pytest.raises(UsageError, match=f"^{owner}: {name}={value}"):
        config(**given)


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (CFCQLConfig, {"weights": "x"}, "uniform or behaviour"),
        (OMARConfig, {"search": "x"}, "softmax or elites"),
        (OMARConfig, {"search": "elites", "elites": 11}, "2 to 10"),
        (TD3BCConfig, {"form": "x"}, "lambda or tau"),
    ],
)
def test_a_choice_tells_what_there_is_to_choose_from(config: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**given)


@pytest.mark.parametrize(
    ("name", "shape", "given"),
    [
        ("bcq", "discrete", {"proposals": 5}),
        ("bcq", "continuous", {"threshold": 0.3}),
        ("cfcql", "discrete", {"output_penalty": 0.1}),
        ("cfcql", "continuous", {"trace": 0.5}),
        ("omar", "discrete", {"polyak": 0.1}),
        ("omar", "discrete", {"search": "elites"}),
        ("omar", "discrete", {"output_penalty": 0.2}),
        ("omar", "continuous", {"trace": 0.1}),
        ("omar", "continuous", {"per_timestep_updates": True}),
        ("td3bc", "continuous", {"critic_hidden": 5}),
    ],
)
def test_settings_of_the_other_form_are_refused(name: str, shape: str, given: dict[str, Any]) -> None:
    ((field, value),) = given.items()
    learner = LEARNERS.load(name).from_params(given)
    with pytest.raises(UsageError, match=f"{field}={value} has no meaning for {shape} actions"):
        learner.fit([sample_dataset(shape).without_privileged()], Run(seeds=(0,)))


@pytest.mark.parametrize("shape", ["discrete", "continuous"])
def test_what_both_forms_of_omar_read_is_taken_by_both(shape: str) -> None:
    learner = LEARNERS.load("omar").from_params({"tau": 0.0, "conservatism": 1.0, "hidden": 4})
    run = Run(seeds=(0,), budget=Budget(updates=2, batch_size=4))
    learner.fit([sample_dataset(shape).without_privileged()], run)


@pytest.mark.parametrize("name", ["bcq", "cfcql", "omar", "td3bc"])
def test_no_memory_may_be_asked_for_where_there_is_none(name: str) -> None:
    """So that one matrix may hold tasks of both kinds of actions."""
    data, run = sample_dataset("continuous").without_privileged(), Run(seeds=(0,), budget=Budget(updates=2))
    plain, asked = (LEARNERS.load(name).tiny(given).fit([data], run) for given in ({}, {"memory": "none"}))
    for array, same in zip(plain.state(0).values(), asked.state(0).values(), strict=True):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", ["icq", "omiga"])
def test_a_memory_is_refused_where_actions_are_continuous(name: str) -> None:
    data, run = sample_dataset("continuous").without_privileged(), Run(seeds=(0,), budget=Budget(updates=1))
    with pytest.raises(UnsupportedError, match="memory=gru is for discrete actions"):
        LEARNERS.load(name).from_params({"memory": "gru"}).fit([data], run)
    LEARNERS.load(name).from_params({"memory": "none"}).fit([data], run)
