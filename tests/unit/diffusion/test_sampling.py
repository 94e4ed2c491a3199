"""The sampling loop, its noise, and batches that halve themselves."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import Batches, in_batches, numpy_noise, sample
from methods.diffusion.schedule import CosineSchedule
from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator

SCHEDULE = CosineSchedule(5)


def test_noise_comes_from_the_generator() -> None:
    noise, same = (numpy_noise(make_generator("noise"), "cpu") for _ in range(2))
    first = noise((2, 3))
    assert first.dtype == torch.float32
    assert torch.equal(first, torch.from_numpy(make_generator("noise").standard_normal((2, 3), dtype="float32")))
    assert torch.equal(same((2, 3)), first)
    assert not torch.equal(noise((2, 3)), first)


def test_only_the_first_noise_is_scaled() -> None:
    # All noise is 1, so the first x is 0.5, and the second what a step with a noise of 1 makes of it.
    seen: list[Tensor] = []
    sampler = make_sampler("ddpm", SCHEDULE)

    def denoise(x: Tensor, k: int) -> Tensor:
        seen.append(x)
        return x

    sample(denoise, sampler, (3,), torch.ones)
    assert torch.equal(seen[0], torch.full((3,), 0.5))
    expected, _ = sampler.step(0, seen[0], seen[0], torch.ones(3), None)
    assert torch.equal(seen[1], expected)


def test_noise_is_drawn_for_the_whole_request() -> None:
    shapes: list[tuple[int, ...]] = []

    def noise(shape: tuple[int, ...]) -> Tensor:
        shapes.append(shape)
        return torch.zeros(shape)

    sample(lambda x, k: in_batches(torch.sin, 2, x), make_sampler("ddpm", SCHEDULE), (7, 3), noise)
    assert shapes == [(7, 3)] * 5  # the first x and four of five steps


def test_no_gradient_is_kept() -> None:
    weight = torch.ones(3, requires_grad=True)
    drawn = sample(lambda x, k: x * weight, make_sampler("ddim", SCHEDULE), (3,), torch.ones)
    assert not drawn.requires_grad
    assert not drawn.is_inference()  # heads differentiate through what they compute from it


class Hungry:
    """Adds two tensors, but runs out of memory above a number of rows."""

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error = limit, error
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, y: Tensor | None) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return x if y is None else x + y


X = torch.arange(10.0)
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_batches_halve_until_they_fit_and_say_so(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    function = Hungry(3, error)
    with caplog.at_level(logging.WARNING, "methods"):
        result = in_batches(function, 8, X, X)
    assert torch.equal(result, 2 * X)
    assert function.sizes == [8, 4, 2, 2, 2, 2, 2]
    assert [record.args[:2] for record in caplog.records if isinstance(record.args, tuple)] == [(8, 4), (4, 2)]
    assert "Out of memory with a batch of 8 rows: going on with batches of 4, same results" in caplog.text


def test_what_was_computed_is_kept() -> None:
    function = Hungry(3, MemoryError())
    batches = Batches(3)
    batches(function, X, None)
    function.limit = 2
    assert torch.equal(batches(function, X, None), X)
    assert function.sizes == [3, 3, 3, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert batches.size == 1  # remembered: the next call starts with what fits


def test_a_batch_larger_than_the_request_halves_what_was_tried() -> None:
    function = Hungry(5, MemoryError())
    in_batches(function, 1000, X, None)
    assert function.sizes == [10, 5, 5]


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(MemoryError):
        in_batches(Hungry(0, MemoryError()), 4, X, None)


def test_other_errors_are_not_swallowed() -> None:
    function = Hungry(3, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        in_batches(function, 8, X, X)
    assert function.sizes == [8]


def test_tuples_are_joined_part_by_part() -> None:
    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        return x / 2, x[:, None] * 2

    half, double = in_batches(halves, 3, X)
    assert torch.equal(half, X / 2)
    assert torch.equal(double, X[:, None] * 2)


def test_no_rows_are_one_call() -> None:
    function = Hungry(3, MemoryError())
    assert in_batches(function, 4, torch.zeros(0, 2), None).shape == (0, 2)


def test_a_batch_needs_a_row() -> None:
    with pytest.raises(UsageError, match="a batch size of 0"):
        Batches(0)
