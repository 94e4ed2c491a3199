"""Diagonal Gaussians of what follows an observation, G of them side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP

_LAYERS = 4  # hidden; MBTS' repository, model_trainer.py
_LOWEST, _HIGHEST = -20.0, 2.0  # of the log standard deviation; MBTS' repository


class TransitionDensity(nn.Module):
    """o -> mean and log standard deviation of the next observation; no action goes in (MBTS, Hepburn & Montana 2022).

    Args:
        features: X of an observation.
        hidden: width of the four hidden layers.
        generators: of the initial weights, one a replica.
        members: models a replica, G = R · members.
    """

    def __init__(self, features: int, hidden: int, generators: Sequence[np.random.Generator], members: int = 1) -> None:
        super().__init__()
        self.net = StackedMLP((features, *(hidden,) * _LAYERS, 2 * features), generators, members)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(G, B, X) -> mean and log standard deviation, (G, B, X) each."""
        mean, log_std = self.net(x).chunk(2, dim=-1)
        return mean, log_std.clamp(_LOWEST, _HIGHEST)
