"""What of a config says which method it is."""

from dataclasses import dataclass

from benchmark.choices import choose_learner
from methods.base import added, identity_of


def test_a_field_that_came_later_counts_only_where_it_is_used() -> None:
    @dataclass(frozen=True)
    class Config:
        low: float = 0.8
        twice: bool = added(False)

    assert identity_of(Config()) == {"low": 0.8}
    assert identity_of(Config(twice=True)) == {"low": 0.8, "twice": True}


def test_published_results_of_bc_are_still_those_of_bc() -> None:
    """`double_softmax` came after them."""
    assert "double_softmax" not in choose_learner("bc").identity()["config"]
    assert choose_learner("bc[double_softmax=true]").identity()["config"]["double_softmax"] is True
    assert choose_learner("bc").config()["double_softmax"] is False
