"""Which of torch's two float32 matrix products a CPU should use, decided by a check instead of by its name.

`torch.set_float32_matmul_precision("medium")` hands products on a CPU to oneDNN, which on some processors is two to
three times as fast as the default BLAS (on others a tenth) and, without hardware for narrower formats, exactly as
accurate. Where such hardware exists, the same setting may mean bfloat16 inside. Hence the check.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ROWS, _CHANNELS = 192, 512  # of the network's own order of magnitude
_ACCURACY = 2.0  # times the error of "highest" that "medium" may have; bfloat16 inside would be thousands of times


@functools.cache
def _decide() -> tuple[tuple[str, Any], ...]:
    """The measured errors and the setting that follows; taken once in a process.

    Speed is not asked: on a busy machine the answer would differ from run to run, and with it the last bits of a fit.
    """
    generator = np.random.Generator(np.random.Philox(0))
    x, weight, of_y = (
        torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
        for shape in ((_ROWS, _CHANNELS), (_CHANNELS, _CHANNELS), (_ROWS, _CHANNELS))
    )

    def products() -> list[Tensor]:
        return [x @ weight, of_y @ weight.mT, x.mT @ of_y]  # a layer, and its two gradients

    exact = [a.double() @ b.double() for a, b in ((x, weight), (of_y, weight.mT), (x.mT, of_y))]
    errors = {}
    before = torch.get_float32_matmul_precision()
    try:
        for setting in ("highest", "medium"):
            torch.set_float32_matmul_precision(setting)
            errors[setting] = max(_error(found, true) for found, true in zip(products(), exact, strict=True))
    finally:
        torch.set_float32_matmul_precision(before)
    accurate = errors["medium"] <= _ACCURACY * errors["highest"]
    return (
        ("matmul", "medium" if accurate else "highest"),
        ("accurate", accurate),
        ("error_highest", errors["highest"]),
        ("error_medium", errors["medium"]),
    )


def _error(found: Tensor, true: Tensor) -> float:
    """The largest error in units of the root mean square of the true values."""
    return float((found.double() - true).abs().max() / true.square().mean().sqrt())


def use_fast_matmul() -> dict[str, Any]:
    """Sets float32 products on CPUs to "medium" where that is accurate, for the rest of the process.

    Returns:
        For a record: `matmul` ("highest" or "medium"), whether "medium" is `accurate`, and the largest relative errors
        against float64 of both settings.
    """
    decision = dict(_decide())
    torch.set_float32_matmul_precision(decision["matmul"])
    return decision


@contextlib.contextmanager
def fast_matmul() -> Iterator[dict[str, Any]]:
    """`use_fast_matmul` within a block; afterwards the setting is what it was."""
    before = torch.get_float32_matmul_precision()
    try:
        yield use_fast_matmul()
    finally:
        torch.set_float32_matmul_precision(before)
