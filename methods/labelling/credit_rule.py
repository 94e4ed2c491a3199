"""Scores for tasks that no rule knows: path-integrated gradients of a learned return-to-go. # inferred

What MADiTS calls an agent's contribution (Sec. 4.2) says who plays best where the names of the features do not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.data.windows import WindowIndex
from methods.labelling.encoding import StepEncoder
from methods.labelling.labeller import Report
from methods.labelling.windows import LabelWindows, label_windows
from methods.networks.stacked import StackedMLP
from methods.synthesis.credit import path_credit

HIDDEN = 256  # as the auxiliary networks of MADiTS, App. E
UPDATES, BATCH_SIZE, LEARNING_RATE = 2_000, 1_024, 1e-3  # inferred
PATH_STEPS = 10  # MADiTS, App. E, Tab. 2


class CreditRule:
    """Σ_k Σ_{j ∈ X_i} IG_j(k) of a regression R̃(o, a) of the undiscounted return-to-go: (M, N), larger is better."""

    def __init__(self, network: StackedMLP, encoder: StepEncoder, device: str) -> None:
        self._network, self._encoder, self._device = network, encoder, device

    @classmethod
    def fit(
        cls,
        index: WindowIndex,
        generator: np.random.Generator,
        device: str,
        report: Report,
        updates: int | None = None,
    ) -> CreditRule:
        """Learns R̃ from the first step of the windows (mean squared error, Adam)."""
        data, spec = index.data, index.data.spec
        wanted = UPDATES if updates is None else min(updates, UPDATES)
        sample = label_windows(index, generator.integers(len(index), size=min(len(index), BATCH_SIZE)))
        encoder = StepEncoder.fit(spec, sample)
        features = spec.n_agents * (spec.obs_dim + spec.action.size)
        network = StackedMLP((features, HIDDEN, HIDDEN, 1), [generator]).to(device)
        returns = data.returns_to_go(1.0)
        mean, std = float(returns.mean()), float(returns.std()) + 1e-5
        optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        for update in range(wanted):
            if update % 50 == 0:
                report(update, wanted, "credit of the heuristic oracle")
            chosen = generator.integers(len(index), size=min(len(index), BATCH_SIZE))
            points = encoder.points(label_windows(index, chosen))[:, 0].to(device)  # (B, N, X)
            target = torch.from_numpy(((returns[index.first_step[chosen]] - mean) / std).astype(np.float32)).to(device)
            loss = (network(points.flatten(1)[None])[0, :, 0] - target).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return cls(network, encoder, device)

    def __call__(self, windows: LabelWindows) -> NDArray[np.float64]:
        """Scores (M, N); all equal where a window has a single step."""
        points, steps = self._encoder.points(windows), torch.from_numpy(windows.steps)
        credit = path_credit(self._value, points.to(self._device), steps.to(self._device), PATH_STEPS)  # (M, H - 1, N)
        return np.asarray(credit[:, 0].detach().cpu().numpy(), dtype=np.float64)

    def _value(self, points: Tensor) -> Tensor:
        flat = points.flatten(-2)  # (..., N · X)
        value: Tensor = self._network(flat.reshape(1, -1, flat.shape[-1])).reshape(flat.shape[:-1])
        return value
