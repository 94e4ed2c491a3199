"""What becomes of agents that die inside a generated window."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.diffusion.model import SegmentModel


@torch.no_grad()
def buried(model: SegmentModel, windows: Tensor) -> Tensor:
    """Windows (B, H, N, D') in which the rows of agents that died are those of the dead: zero in the task's units.

    From the first row on in which the model calls an agent dead. Row 0 is real and stays, as does an appended state.
    """
    if not model.has("alive"):
        return windows
    spec = model.spec
    nothing = np.zeros((1, 1, spec.n_agents, spec.obs_dim), dtype=np.float32)
    state = np.zeros((1, 1, spec.state_dim or 0), dtype=np.float32) if model.settings.append_state else None
    grave = model.encode(nothing, state)  # (1, 1, N, D')
    dead = (~model.alive(windows)).cumsum(dim=1) > 0  # (B, H, N)
    dead[:, 0] = False
    own = torch.arange(model.features, device=windows.device) < spec.obs_dim
    return torch.where(dead[..., None] & own, grave, windows)
