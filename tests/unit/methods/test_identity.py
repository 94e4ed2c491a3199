"""What of a config says which method it is."""

from dataclasses import dataclass

import pytest

from benchmark.checks import sample_spec
from benchmark.choices import choose_learner
from methods.base import added, identity_of
from methods.learners.omar import OMAR


def test_a_field_that_came_later_counts_only_where_it_is_used() -> None:
    @dataclass(frozen=True)
    class Config:
        low: float = 0.8
        twice: bool = added(False)

    assert identity_of(Config()) == {"low": 0.8}
    assert identity_of(Config(twice=True)) == {"low": 0.8, "twice": True}


def test_published_results_of_bc_are_still_those_of_bc() -> None:
    """`double_softmax` came after them."""
    spec = sample_spec("discrete")
    assert "double_softmax" not in choose_learner("bc").identity(spec)["config"]
    assert choose_learner("bc[double_softmax=true]").identity(spec)["config"]["double_softmax"] is True
    assert choose_learner("bc").config()["double_softmax"] is False


def test_a_change_of_one_form_leaves_results_of_the_other_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = choose_learner("cql")
    before = {kind: choice.identity(sample_spec(kind)) for kind in ("continuous", "discrete")}
    monkeypatch.setattr(OMAR.continuous, "version", OMAR.continuous.version + 1)
    assert choice.identity(sample_spec("discrete")) == before["discrete"]
    moved = choice.identity(sample_spec("continuous"))
    assert moved == {**before["continuous"], "version": before["continuous"]["version"] + 1}
    monkeypatch.setattr(OMAR, "version", OMAR.version + 1)
    assert choice.identity(sample_spec("discrete"))["version"] == before["discrete"]["version"] + 1
