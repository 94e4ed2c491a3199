"""Numbers of every registered method, kept beside its version: a change that moves them cannot forget to raise it.

`GOLDEN=write python -m pytest tests/contract/test_golden.py` adds the numbers of new methods and new versions and drops
those that are gone. It leaves all others as they are: what moved under an old version stays an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmark.checks import sample_dataset
from benchmark.checks.sample_data import sample_spec
from methods.augmenters import AUGMENTERS
from methods.base import Budget, Run
from methods.learners import LEARNERS

FILE = Path(__file__).with_name("golden.json")
VARIANTS = {"noise[emit=transitions]": ("noise", {"emit": "transitions"}), "bc[memory=gru]": ("bc", {"memory": "gru"})}
SHAPES = ("continuous", "discrete")
# What other processors and versions of torch make of the same sums; Adam turns small ones into steps of equal length.
TOLERANCE = {
    "augmenter": {"rtol": 1e-5, "atol": 1e-6},
    "trained augmenter": {"rtol": 1e-2, "atol": 1e-3},
    "learner": {"rtol": 1e-3, "atol": 1e-4},
}

Numbers = dict[str, list[float]]


def numbers_of(arrays: Mapping[str, NDArray[Any]]) -> Numbers:
    """Of each array its size, mean and a random projection, which sees order and every entry."""
    found = {}
    for name, array in sorted(arrays.items()):
        flat = np.asarray(array, dtype=np.float64).ravel()
        weights = np.random.default_rng(flat.size).normal(size=flat.size) / max(1.0, np.sqrt(flat.size))
        found[name] = [float(flat.size), float(flat.mean()) if flat.size else 0.0, float(flat @ weights)]
    return found


def augmented(name: str, params: Mapping[str, Any], shape: str) -> Numbers:
    method, entry = AUGMENTERS.load(name), AUGMENTERS.entry(name)
    data, extra = sample_dataset(shape), sample_dataset(shape, episodes=40, seed=1)
    torch.set_num_threads(1)
    augmenter = method.tiny({**entry.params, **params})
    run = Run(
        seeds=(7,),
        budget=Budget(amount=data.n_steps),
        extra_data=extra.without_privileged() if method.needs_extra_data else None,
    )
    shown = data if method.privileged else data.without_privileged()
    augmenter.fit(shown, run)
    return numbers_of(augmenter.generate(shown, run).columns())


def learned(name: str, params: Mapping[str, Any], shape: str) -> Numbers:
    torch.set_num_threads(1)
    learner = LEARNERS.load(name).tiny({**LEARNERS.entry(name).params, **params})
    data = [sample_dataset(shape, seed=seed).without_privileged() for seed in range(2)]
    policy = learner.fit(data, Run(seeds=(3, 4), budget=Budget(updates=20, batch_size=8)))
    return numbers_of({f"{r}.{key}": np.array(value) for r in range(2) for key, value in policy.state(r).items()})


def cases() -> dict[str, tuple[str, str, dict[str, Any], str]]:
    """What is measured, by its name in the file, which holds the version."""
    found = {}
    for kind, table in (("augmenter", AUGMENTERS), ("learner", LEARNERS)):
        ours = [name for name in table.names() if table.entry(name).package == "augmarl"]
        named: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in ours}
        named |= {text: (name, params) for text, (name, params) in VARIANTS.items() if name in ours}
        for text, (name, params) in named.items():
            method = table.load(name)
            for shape in SHAPES:
                spec = sample_spec(shape)
                if method.unsupported(spec) is None:
                    found[f"{kind} {text} version {method.version_on(spec)} on {shape}"] = (kind, name, params, shape)
    return found


CASES = cases()


def tolerance(key: str) -> dict[str, float]:
    kind, name, _, _ = CASES[key]
    trained = kind == "augmenter" and AUGMENTERS.load(name).trains
    return TOLERANCE["trained augmenter" if trained else kind]


def measure(key: str) -> Numbers:
    kind, name, params, shape = CASES[key]
    return (augmented if kind == "augmenter" else learned)(name, params, shape)


@pytest.mark.parametrize("key", CASES)
def test_numbers_move_only_with_the_version(key: str) -> None:
    golden: dict[str, Numbers] = json.loads(FILE.read_text())
    assert key in golden, f"No golden numbers of {key!r}. Write them: see the top of this file."
    found = measure(key)
    assert found.keys() == golden[key].keys()
    for array, numbers in golden[key].items():
        message = f"{array!r} of {key} has moved. Raise `version` and write the golden numbers anew, or undo the change"
        np.testing.assert_allclose(found[array], numbers, **tolerance(key), err_msg=message)


def test_nothing_golden_is_left_of_methods_or_versions_that_are_gone() -> None:
    assert sorted(json.loads(FILE.read_text())) == sorted(CASES)


if os.environ.get("GOLDEN") == "write":
    kept: dict[str, Numbers] = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.write_text(json.dumps({key: kept.get(key) or measure(key) for key in sorted(CASES)}, indent=1) + "\n")
