"""The loop from noise to data, and slices of a batch that fit into memory."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from methods.base import require
from methods.diffusion.known import ClampConditioning, Conditioning, Known
from methods.diffusion.samplers import Sampler
from tasks.common.errors import is_out_of_memory

NoiseSource = Callable[[tuple[int, ...]], Tensor]
"""Standard normal values of a shape, float32; every call draws new ones, and the tensor belongs to the caller."""

_logger = logging.getLogger(__name__)
_CLAMP = ClampConditioning()

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])


def numpy_noise(generator: np.random.Generator, device: str | torch.device) -> NoiseSource:
    """Standard normal values from a numpy generator: the same on every device."""
    pinned = torch.device(device).type == "cuda"  # then the copy, and with it the next draw, overlaps with the network

    def draw(shape: tuple[int, ...]) -> Tensor:
        values = torch.empty(shape, dtype=torch.float32, pin_memory=pinned)
        generator.standard_normal(out=values.numpy(), dtype=np.float32)
        return values.to(device, non_blocking=True)

    return draw


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, int], Tensor],
    sampler: Sampler,
    shape: tuple[int, ...],
    noise: NoiseSource,
    *,
    init_noise_scale: float = 0.5,
    known: Known | None = None,
    conditioning: Conditioning = _CLAMP,
    predicts_data: bool = False,
) -> Tensor:
    """Draws data.

    Args:
        denoise: from x (`shape`) and k to the noise in x (`shape`), guidance included. It may work slice by slice: all
            noise is drawn here, for the whole request.
        sampler: the steps.
        shape: of the data; (B, H, N, D) where something is known.
        noise: a source of standard normal values.
        init_noise_scale: of the first x alone; 0.5 as in MADiff's code ("low temperature").
        known: entries that the result must have, bit for bit; None or an empty mask: none.
        conditioning: how the sampler is held to them.
        predicts_data: `denoise` gives x̂_0 in place of the noise.

    Returns:
        (`shape`), within [-1, 1] apart from known entries.
    """
    if known is not None and not known.any():
        known = None
    x, memory = noise(shape).mul_(init_noise_scale), sampler.begin()
    step = sampler.step_to_data if predicts_data else sampler.step
    path = list(range(len(sampler) + 1)) if known is None else conditioning.path(len(sampler))
    if known is not None:
        x = conditioning.after_move(x, known, sampler, 0, noise)
    for state, following in itertools.pairwise(path):
        if following > state:
            if known is not None:
                x = conditioning.before_call(x, known)
            predicted = denoise(x, sampler.timesteps[state])
            fresh = noise(shape) if sampler.needs_noise(state) else None
            x, memory = step(state, x, predicted, fresh, memory)
        else:
            kept = sampler.alpha_bar_before(following) / sampler.alpha_bar_before(state)
            x = x.mul(math.sqrt(kept)).add_(noise(shape), alpha=math.sqrt(1 - kept))
            memory = sampler.begin()
        if known is not None:
            x = conditioning.after_move(x, known, sampler, following, noise)
    return x if known is None else known.paste(x)


class Batches:
    """Runs functions over slices of a batch, and remembers how large a slice fits into memory.

    Attributes:
        size: rows a slice; halved whenever the memory does not suffice.
    """

    def __init__(self, size: int) -> None:
        """Starts with slices of `size` rows.

        Raises:
            UsageError: for less than one.
        """
        require(size >= 1, "Batches", f"a batch size of {size}", "at least 1")
        self.size = size

    def __call__(self, function: Callable[..., Result], *tensors: Tensor | None) -> Result:
        """`function(*tensors)`, computed over slices of the leading axis (B); None is passed on as None.

        Args:
            function: row b of its result, a tensor or a tuple of tensors, depends on row b of the tensors alone.
            tensors: (B, ...) each, or None.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: where a single row does not fit either.
        """
        total = next(tensor for tensor in tensors if tensor is not None).shape[0]
        parts: list[Result] = []
        start = 0
        while start < total or not parts:
            rows = slice(start, min(start + self.size, total))
            try:
                parts.append(function(*(None if tensor is None else tensor[rows] for tensor in tensors)))
                start = rows.stop
            except (MemoryError, RuntimeError) as error:
                tried = rows.stop - rows.start
                if tried <= 1 or not is_out_of_memory(error):
                    raise
                self.size = tried // 2
                message = "Out of memory with a batch of %d rows: going on with batches of %d, same results (%s)."
                _logger.warning(message, tried, self.size, str(error).partition("\n")[0])
        return _joined(parts)


def in_batches(function: Callable[..., Result], batch_size: int, *tensors: Tensor | None) -> Result:
    """`function(*tensors)` over slices of the leading axis of `batch_size` rows, fewer where memory runs out."""
    return Batches(batch_size)(function, *tensors)


def _joined(parts: list[Result]) -> Result:
    """The slices one after another, for tensors or tuples of tensors."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))
