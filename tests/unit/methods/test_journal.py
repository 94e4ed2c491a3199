"""Optimiser steps, random states and checkpoints of long fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from methods.base import Run
from methods.diffusion.stacked_adam import StackedAdam
from methods.journal import Journal, pack_generators, restore_generators
from tasks.common.seeding import make_generator
from tests.unit.checkpoints import Memory


def test_a_stage_goes_on_beside_the_results_of_finished_ones() -> None:
    memory = Memory()
    first = Journal(Run(seeds=(0,), checkpoint=memory), 10)
    first.save("one", {"at": np.array(3)})
    assert Journal(Run(seeds=(0,), checkpoint=memory), 10).resumed("one") == {"at": 3}
    first.finish("one", {"weights": np.array([1.0])})
    first.save("two", {"at": np.array(5)})
    later = Journal(Run(seeds=(0,), checkpoint=memory), 10)
    assert later.result("one") == {"weights": 1.0}
    assert later.resumed("two") == {"at": 5}
    assert later.resumed("one") is None
    assert later.result("two") is None


def test_without_a_place_nothing_is_kept() -> None:
    journal = Journal(Run(seeds=(0,)), 10)
    journal.finish("one", {"weights": np.array([1.0])})
    assert not journal.due()
    assert Journal(Run(seeds=(0,)), 10).result("one") is None


def test_reports_come_once_a_second(monkeypatch: Any) -> None:
    clock, told = [100.0], list[int]()
    monkeypatch.setattr("methods.journal.time.monotonic", lambda: clock[0])
    journal = Journal(Run(seeds=(0,), progress=lambda done, total, message: told.append(done)), 10)
    for done in range(6):
        journal.report(done, "")
        clock[0] += 0.4
    assert told == [0, 3]


def test_generators_go_on_where_they_were() -> None:
    generators = [make_generator("a", 1), make_generator("b", 2)]
    for generator in generators:
        generator.random(3, dtype=np.float32)  # an odd number of 32-bit words: one is left over
        generator.standard_normal(5)
    packed = pack_generators(generators)
    expected = [generator.random(4, dtype=np.float32) for generator in generators]
    fresh = [make_generator("c", 3), make_generator("d", 4)]
    restore_generators(fresh, packed)
    np.testing.assert_array_equal([generator.random(4, dtype=np.float32) for generator in fresh], expected)


def _model() -> torch.nn.Module:
    layer = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    return layer


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    model = _model()
    adam = StackedAdam(model, 0.1)
    # gradient +1 of row 0, −5 of row 1: Adam's first step is −lr · sign
    adam.step(adam.named["weight"].sum(dim=1) * torch.tensor([1.0, -5.0]))
    torch.testing.assert_close(adam.named["weight"].detach(), torch.tensor([[0.9, 1.9], [3.1, 4.1]]))
    adam.step(adam.named["weight"].sum(dim=1) * torch.tensor([1.0, -5.0]), learning_rate=0.5)
    torch.testing.assert_close(adam.named["weight"].detach(), torch.tensor([[0.4, 1.4], [3.6, 4.6]]))


def test_adam_goes_on_with_its_moments() -> None:
    def losses(adam: StackedAdam, target: float) -> torch.Tensor:
        return (adam.named["weight"] - target).square().sum(dim=1)

    whole = StackedAdam(_model(), 0.1)
    for target in (0.0, 1.0, 5.0, 2.0):
        whole.step(losses(whole, target))
    half = StackedAdam(_model(), 0.1)
    for target in (0.0, 1.0):
        half.step(losses(half, target))
    stored = half.arrays()
    half.step(losses(half, 9.0))  # what is stored does not change any more
    rest = StackedAdam(_model(), 0.1)
    rest.load(stored)
    for target in (5.0, 2.0):
        rest.step(losses(rest, target))
    assert torch.equal(rest.named["weight"], whole.named["weight"])
