"""Twin values of joint observations, trained on the current episodes of a pass (MBTS' repository, Value_net.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays
from methods.journal import to_array
from methods.networks.stacked import StackedMLP


class TwinValues(nn.Module):
    """V¹ and V² of G teams: o -> H -> H -> 1, as `mean + scale · network` (inferred: rewards of any size).

    Args:
        features: X.
        hidden: H.
        generators: of the initial weights, one a replica.
        mean, scale: of the values in the task's units.
    """

    def __init__(
        self, features: int, hidden: int, generators: Sequence[np.random.Generator], mean: float, scale: float
    ) -> None:
        super().__init__()
        self.net = StackedMLP((features, hidden, hidden, 1), generators, 2)
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        """(G, B, X) -> (G, 2, B)."""
        groups, batch, features = x.shape
        twice = x[:, None].expand(groups, 2, batch, features).flatten(0, 1)
        raw: Tensor = self.net(twice)[..., 0]
        return self.mean + self.scale * raw.view(groups, 2, batch)


def twin_value_losses(values: Tensor, target: Tensor, scale: float) -> Tensor:
    """Mean squares of (V − target) / scale, summed over the twins: (G, 2, B), (G, B) -> (G,)."""
    return ((values - target[:, None]) / scale).square().mean(dim=-1).sum(dim=-1)


class SlowTwin:
    """Target weights that follow: v ← (1 − τ) v + τ w after every update."""

    def __init__(self, module: nn.Module, target: nn.Module, rate: float) -> None:
        self._own, self._slow, self._rate = list(module.parameters()), dict(target.named_parameters()), rate
        target.load_state_dict(module.state_dict())
        target.requires_grad_(False)

    @torch.no_grad()
    def after(self, done: int) -> bool:
        """One step."""
        for slow, own in zip(self._slow.values(), self._own, strict=True):
            slow.lerp_(own, self._rate)
        return False

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The target's weights."""
        return {name: to_array(p) for name, p in self._slow.items()}

    @torch.no_grad()
    def load(self, arrays: Arrays) -> None:
        """Takes them back."""
        for name, slow in self._slow.items():
            slow.copy_(torch.from_numpy(np.array(arrays[name])))
