"""The denoiser of R replicas: the temporal U-Net, its label input and DoF's agent weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from methods.networks.temporal_unet import TemporalUNet, UNetConfig, folded

Denoise = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]


def unet_config(settings: SegmentSettings, n_agents: int, features: int) -> UNetConfig:
    """The network that the settings ask for."""
    return UNetConfig(
        horizon=settings.horizon,
        features=features,
        width=settings.width,
        attention=settings.attention,
        label_size=2 * n_agents if settings.labels else 0,
        first_skip=settings.first_skip,
    )


class Denoiser(nn.Module):
    """ε̂ of R replicas.

    With `wconcat` agent i's output is multiplied by w_i / Σ_j w_j, w learned from 1 on: every agent's network learns
    about N times its target (DoF, weighted concatenation).

    The network's output is ε itself, or with `prediction=velocity` v = √ᾱ ε − √(1 − ᾱ) x_0 (Salimans & Ho 2022,
    App. D), from which ε̂ = √ᾱ v + √(1 − ᾱ) x_k. Where there is much noise, an ε̂ that is slightly off says nothing
    about x_0, for x̂_0 = (x_k − √(1 − ᾱ) ε̂) / √ᾱ; with v it is √ᾱ x_k − √(1 − ᾱ) v.
    """

    agent_weights: nn.Parameter | None

    def __init__(self, settings: SegmentSettings, unet: TemporalUNet, agent_weights: Tensor | None) -> None:
        """`agent_weights` (R, N), or None without `wconcat`."""
        super().__init__()
        self.unet = unet
        self.agent_weights = None if agent_weights is None else nn.Parameter(agent_weights)
        self._velocity = settings.prediction == "velocity"
        self._schedule = CosineSchedule(settings.diffusion_steps)

    @classmethod
    def create(
        cls, settings: SegmentSettings, n_agents: int, features: int, generators: Sequence[np.random.Generator]
    ) -> Self:
        """Freshly drawn weights, replica r's from generators[r] alone."""
        weights = torch.ones(len(generators), n_agents) if settings.wconcat else None
        return cls(settings, TemporalUNet(unet_config(settings, n_agents, features), generators), weights)

    def forward(self, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None = None) -> Tensor:
        """What training compares with `target`: (R, B, H, N, D), arguments as of `TemporalUNet.forward`."""
        return self._weighted(self.unet(x, k, returns, keep, labels))

    def target(self, clean: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        """ε, or v, of clean windows (R, B, H, N, D) with noise of the same shape at steps k (R, B)."""
        return self._schedule.diffuse(noise, k, -clean) if self._velocity else noise

    def inference(self) -> Denoise:
        """ε̂ of the weights as they are now, without gradients; see `folded`."""
        fixed = folded(self.unet)

        @torch.no_grad()
        def denoise(x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None = None) -> Tensor:
            return self.noise_of(self._weighted(fixed(x, k, returns, keep, labels)), k, x)

        return denoise

    def noise_of(self, output: Tensor, k: Tensor, x: Tensor) -> Tensor:
        """ε̂ from what the network gave for noisy windows x (R, B, H, N, D)."""
        return self._schedule.diffuse(output, k, x) if self._velocity else output

    def to(self, device: Any) -> Self:  # type: ignore[override]  # of all that torch's takes, a device alone
        """The same module, on a device."""
        self._schedule = self._schedule.to(device)
        return super().to(device)

    def _weighted(self, eps: Tensor) -> Tensor:
        if self.agent_weights is None:
            return eps
        shares = self.agent_weights / self.agent_weights.sum(dim=-1, keepdim=True)  # (R, N)
        return eps * shares[:, None, None, :, None]

    @classmethod
    def from_arrays(cls, settings: SegmentSettings, n_agents: int, features: int, arrays: Arrays) -> Self:
        """One replica with the weights that `named_parameters` names, without the replica axis."""
        named = {name.removeprefix("unet."): a for name, a in arrays.items() if name.startswith("unet.")}
        unet = TemporalUNet.from_arrays(unet_config(settings, n_agents, features), [named])
        weights = torch.from_numpy(arrays["agent_weights"][None].copy()) if settings.wconcat else None
        return cls(settings, unet, weights)


def label_inputs(z: Tensor, mask: Tensor) -> Tensor:
    """What each agent sees of the labels: (z · m, m), rolled so that its own entry comes first (inferred).

    The network treats agents alike and knows no index: without the roll, nobody could tell whom a label means.

    Args:
        z: (..., N) labels, entry i of agent i.
        mask: (..., N) bool, True where given.

    Returns:
        (..., N, 2N); agent i's row is z_i m_i, z_{i+1} m_{i+1}, ..., m_i, m_{i+1}, ...
    """
    n = z.shape[-1]
    agent = torch.arange(n, device=z.device)
    order = (agent[:, None] + agent) % n  # (N, N)
    given = mask.to(z.dtype)
    return torch.cat([(z * given)[..., order], given[..., order]], dim=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """C conditional branches and their weights: ε̂ = ε_u + Σ_c w_c (ε(R, z_c) − ε_u) (CODI, Eq. 8).

    A branch whose mask is all False is conditioned on the return alone. One branch with weight g is ordinary
    guidance: CODI without composition is one row of ones and `weights` (g,).

    Attributes:
        labels: (C, N) z_c, agent i's entry at i; the model rolls them for every agent.
        mask: (C, N) bool, True where the entry is given.
        weights: (C,) numbers.
    """

    labels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    weights: tuple[float, ...]

    def inputs(self, device: str) -> Tensor:
        """(1 + C, N, 2N) label inputs; row 0 is the unconditional branch, without labels."""
        z = torch.from_numpy(np.array(self.labels, np.float32)).to(device)
        mask = torch.from_numpy(np.array(self.mask, np.bool_)).to(device)
        of_branches = label_inputs(z, mask)
        return torch.cat([torch.zeros_like(of_branches[:1]), of_branches])
