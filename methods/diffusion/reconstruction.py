"""There and back: a window's encoding under the deterministic process, and what the model makes of it again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.diffusion.samplers import Sampler, make_sampler
from methods.diffusion.schedule import CosineSchedule
from tasks.datasets.views import SegmentBatch

if TYPE_CHECKING:
    from methods.diffusion.model import SegmentModel

STEPS = 20
"""Of the process in each direction, where it has as many; DIRE (Wang et al. 2023, Sec. 4). # inferred for windows"""


def reconstruction_errors(model: SegmentModel, windows: SegmentBatch) -> NDArray[np.float32]:
    """(B,) mean |x_0 − R(I(x_0))| of the normalised observations of windows inside episodes, without a condition.

    The first row is given, as in training, and does not count.

    Args:
        model: fitted to windows of as many rows.
        windows: of `model.settings.horizon` rows, all valid.
    """
    settings = model.settings
    x_0 = model.encode(windows.observations, windows.states if settings.append_state else None)  # (B, H, N, D')
    b, n = x_0.shape[0], x_0.shape[2]
    returns = torch.zeros(1, b, n, device=x_0.device)
    keep = torch.zeros(1, b, n, dtype=torch.bool, device=x_0.device)
    labels = torch.zeros(1, b, n, 2 * n, device=x_0.device) if settings.labels else None

    def denoise(x: Tensor, k: int) -> Tensor:
        x = torch.cat([x_0[:, :1], x[:, 1:]], dim=1)  # the network knows first rows clean alone
        return model.denoise(x[None], torch.full((1, b), k, device=x.device), returns, keep, labels)[0]

    rebuilt = encode_decode(denoise, CosineSchedule(settings.diffusion_steps), x_0)
    errors: NDArray[np.float32] = (x_0 - rebuilt)[:, 1:].abs().mean(dim=(1, 2, 3)).cpu().numpy()
    return errors


@torch.no_grad()
def encode_decode(denoise: Callable[[Tensor, int], Tensor], schedule: CosineSchedule, x_0: Tensor) -> Tensor:
    """R(I(x_0)): DDIM run forwards, then its deterministic reverse (MASTARS, App. G.3; Wang et al. 2023, Eq. 5-7).

        x' = √ᾱ' (x − √(1 − ᾱ) ε̂) / √ᾱ + √(1 − ᾱ') ε̂

    Forwards ε̂ = ε̂(x, k') is taken where the step arrives, as the reverse step will take it there: x itself may be
    clean, for which the network knows no k.

    Args:
        denoise: from x (...) and k to the noise in x (...), without guidance.
        schedule: of the model.
        x_0: (...) normalised.
    """
    sampler = make_sampler("ddim", schedule, min(STEPS, schedule.steps))
    return _decode(denoise, sampler, _encode(denoise, sampler, x_0))


def _encode(denoise: Callable[[Tensor, int], Tensor], sampler: Sampler, x: Tensor) -> Tensor:
    for index in reversed(range(len(sampler))):
        level, noisier = sampler.alpha_bar_after(index), sampler.alpha_bar_before(index)
        eps_hat = denoise(x, sampler.timesteps[index])
        clean = (x - math.sqrt(1 - level) * eps_hat) / math.sqrt(level)
        x = math.sqrt(noisier) * clean + math.sqrt(1 - noisier) * eps_hat
    return x


def _decode(denoise: Callable[[Tensor, int], Tensor], sampler: Sampler, x: Tensor) -> Tensor:
    memory = sampler.begin()
    for index, k in enumerate(sampler.timesteps):
        x, memory = sampler.step(index, x, denoise(x, k), None, memory)
    return x
