"""SynthER's denoiser, G of them side by side (SynthER's repository, denoiser_network.py and resmlp_denoiser.gin)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import silu

from methods.networks.embeddings import FourierFeatures
from methods.networks.stacked import StackedLinear

_EMBEDDED = 128  # of the token and of the noise level; SynthER's repository
_LAYERS = 6  # residual ones; same
_FREQUENCIES = 8  # same


class ResidualMLP(nn.Module):
    """Linear to 128 plus the embedded noise level; Linear to W; six times x + Linear(ReLU(x)); ReLU; Linear.

    Args:
        n_in: features of an input, conditions included.
        n_out: features of an output.
        width: W.
        generators: of the initial weights, one a replica.
        copies: groups a replica, G = R · copies.
    """

    def __init__(
        self, n_in: int, n_out: int, width: int, generators: Sequence[np.random.Generator], copies: int = 1
    ) -> None:
        super().__init__()

        def linear(before: int, after: int) -> StackedLinear:
            return StackedLinear(before, after, generators, copies)

        self.features = FourierFeatures(_FREQUENCIES, generators, copies)
        self.level_in = linear(self.features.size, _EMBEDDED)
        self.level_out = linear(_EMBEDDED, _EMBEDDED)
        self.token = linear(n_in, _EMBEDDED)
        self.widen = linear(_EMBEDDED, width)
        self.residual = nn.ModuleList(linear(width, width) for _ in range(_LAYERS))
        self.out = linear(width, n_out)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Inputs (G, M, in) and noise levels (G, M) -> (G, M, out)."""
        level = self.level_out(silu(self.level_in(self.features(c_noise))))  # (G, M, 128)
        x = self.widen(self.token(x) + level)  # (G, M, W)
        for layer in self.residual:
            x = x + layer(x.relu())
        out: Tensor = self.out(x.relu())
        return out
