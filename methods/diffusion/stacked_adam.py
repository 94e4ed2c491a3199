"""The optimiser of stacked networks, whose state can be stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays
from methods.journal import adam_arrays, load_adam, to_array
from methods.networks.stacked import clip_each_replica


class StackedAdam:
    """Adam on parameters (R, ...): element-wise, so that no replica touches another.

    Args:
        module: whose parameters move; those that never receive a gradient stay.
        learning_rate, betas, weight_decay: of Adam; the decay is L2.
        clip: (G, norm) for the gradients of each of G groups to have at most that norm; None: none is clipped.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        clip: tuple[int, float] | None = None,
    ) -> None:
        self.named = dict(module.named_parameters())
        self._parameters, self._clip = list(self.named.values()), clip
        self._adam = torch.optim.Adam(
            self._parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )

    def step(self, losses: Tensor, learning_rate: float | None = None) -> None:
        """One update from the losses (R,), which are summed: no replica rescales another's gradient."""
        if learning_rate is not None:
            self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.zero_grad()
        torch.autograd.backward(losses.sum())
        for parameter in self._parameters:
            # torch's fused Adam reads a gradient in memory order, whatever its strides say (torch 2.13, CPU).
            if parameter.grad is not None and not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()
        if self._clip is not None:
            clip_each_replica(self._parameters, *self._clip)
        self._adam.step()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Parameters and moments."""
        weights = {f"weights/{name}": to_array(parameter) for name, parameter in self.named.items()}
        return {**weights, **adam_arrays(self._adam, self.named)}

    def load(self, arrays: Arrays) -> None:
        """Takes what `arrays` returned."""
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(torch.from_numpy(np.array(arrays[f"weights/{name}"])))
        load_adam(self._adam, self.named, arrays)
