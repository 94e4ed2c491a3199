"""What training draws: windows, noise levels, noise, and which conditions are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.data.window_tensors import DeviceWindows
from methods.data.windows import TrainingEntries
from methods.diffusion.settings import SegmentSettings

_CHUNK_UPDATES = 16  # updates whose random numbers are drawn at once
_CHUNK_VALUES = 2**24  # noise values a replica draws at once, at most


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What C updates draw: windows, turns, k (R, C, B), noise (R, C, B, H, N, D'), uniforms (R, C, B, U)."""

    windows: Tensor
    turns: Tensor
    k: Tensor
    noise: Tensor
    uniforms: Tensor


class Draws:
    """The random numbers of training, those of replica r from its generator alone."""

    def __init__(
        self,
        settings: SegmentSettings,
        windows: DeviceWindows,
        entries: Sequence[TrainingEntries],
        generators: Sequence[np.random.Generator],
    ) -> None:
        self.generators, self._entries, self._settings = generators, entries, settings
        self._shape = (settings.batch_size, settings.horizon, windows.n_agents, windows.features)
        self._uniforms = uniforms_needed(settings, windows.n_agents)
        self._device = windows.device
        self.chunk = max(1, min(_CHUNK_UPDATES, _CHUNK_VALUES // int(np.prod(self._shape))))

    def draw(self) -> Chunk:
        """The numbers of the next updates, always as many: a longer training begins as a shorter one."""
        lead = (self.chunk, self._settings.batch_size)
        noise = np.empty((len(self.generators), self.chunk, *self._shape), np.float32)
        uniforms = np.empty((len(self.generators), *lead, self._uniforms), np.float32)
        columns = []
        for r, (generator, entries) in enumerate(zip(self.generators, self._entries, strict=True)):
            drawn = generator.integers(len(entries.windows), size=lead)
            k = generator.integers(self._settings.diffusion_steps, size=lead)
            columns.append((entries.windows[drawn], entries.rotations[drawn], k))
            generator.standard_normal(dtype=np.float32, out=noise[r])
            generator.random(dtype=np.float32, out=uniforms[r])
        windows, turns, k = (np.stack(column) for column in zip(*columns, strict=True))
        return Chunk(*(torch.from_numpy(array).to(self._device) for array in (windows, turns, k, noise, uniforms)))


def uniforms_needed(settings: SegmentSettings, n_agents: int) -> int:
    """How many uniform numbers `kept_conditions` reads for a window."""
    return 2 * n_agents + 3 if settings.labels else n_agents


def kept_conditions(settings: SegmentSettings, uniforms: Tensor, n_agents: int) -> tuple[Tensor, Tensor]:
    """Which conditions training lets the network see.

    Without labels, each agent's return is dropped with probability p (`dropout_per_agent`), or that of all at once.
    With labels, return and labels are dropped together with probability p, which is the unconditional branch that
    guidance needs; otherwise the return with p and every label with p (CODI, Sec. 3.2; the joint case is inferred,
    for independent drops would show it p^(N + 1) of the time). `label_single_keep` keeps exactly one label that often.

    Args:
        settings: the rule.
        uniforms: (..., uniforms_needed) in [0, 1).
        n_agents: N.

    Returns:
        (..., N) bool, whether an agent sees the return, and (..., N) bool, whether label i is given.
    """
    p, n = settings.condition_dropout, n_agents
    if not settings.labels:
        kept = uniforms >= p
        return (kept if settings.dropout_per_agent else kept[..., :1].expand_as(kept)), torch.zeros_like(kept)
    alone, single, which = (uniforms[..., i : i + 1] for i in range(3))  # (..., 1) each
    of_returns, of_labels = uniforms[..., 3 : 3 + n], uniforms[..., 3 + n :]
    conditional, returns = alone >= p, of_returns >= p
    if not settings.dropout_per_agent:
        returns = returns[..., :1].expand_as(returns)
    one = torch.arange(n, device=uniforms.device) == (which * n).long()
    labels = torch.where(single < settings.label_single_keep, one, of_labels >= p)
    return returns & conditional, labels & conditional
