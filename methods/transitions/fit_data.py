"""What the networks of one fit are trained on and judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.data.windows import Index, held_out_split, steps_of
from methods.diffusion.normalisers import StandardNormaliser
from methods.transitions.config import TransitionConfig
from methods.transitions.tokens import TokenLayout, fit_normaliser
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitData:
    """What the networks of one fit are trained on: tokens (S, T, F) normalised, on the device, and who draws which.

    `splits` are R pairs of episodes, to train on and to judge by; `taught` and `judged` their steps.
    """

    data: OfflineDataset
    layout: TokenLayout
    normaliser: StandardNormaliser
    tokens: Tensor
    splits: Sequence[tuple[Index, Index]]
    taught: Sequence[NDArray[np.int64]]
    judged: Sequence[NDArray[np.int64]]

    def alone(self, replica: int) -> FitData:
        """The same for one replica, that draws what it is judged by."""
        return replace(
            self,
            splits=self.splits[replica : replica + 1],
            taught=self.judged[replica : replica + 1],
            judged=self.judged[replica : replica + 1],
        )


def fit_data(
    config: TransitionConfig, data: OfflineDataset, run: Run, name: str, *, joint: bool, apart: bool
) -> FitData:
    """The tokens of a dataset on the device; 5% of the episodes are held out, those of replica r by its seed.

    Args:
        config: what a token has besides.
        data: original episodes.
        run: seeds and device.
        name: of the method, for random streams.
        joint: one token for the team.
        apart: statistics of each token by itself.
    """
    done = {"auto": bool(data.terminals.any()), "always": True, "never": False}[config.model_done]
    layout = TokenLayout(spec=data.spec, joint=joint, done=done, append_state=config.append_state)
    raw = layout.assemble(data, np.arange(data.n_steps))
    normaliser = fit_normaliser(layout, raw, apart=apart).to(run.device)
    splits = [held_out_split(data.n_episodes, run.generator(f"{name}/held-out", r)) for r in range(len(run.seeds))]
    taught, judged = ([steps_of(data, split[part]) for split in splits] for part in range(2))
    return FitData(
        data=data,
        layout=layout,
        normaliser=normaliser,
        tokens=normaliser.encode(torch.from_numpy(raw).to(run.device)),
        splits=splits,
        taught=taught,
        judged=judged,
    )
