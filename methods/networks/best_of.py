"""BCQ's way to act: of actions that a model of the data proposes, slightly moved, the one of highest value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.networks.agents import ObservationScaler
from methods.networks.behaviour_vae import BehaviourVAE, decode
from methods.networks.critics import TwinCritics, first_values
from methods.networks.heads import stretched
from methods.networks.policy import AgentPolicy
from methods.networks.stacked import StackedMLP
from methods.objectives.batch_constrained import perturbed
from tasks.spec import TaskSpec

LATENT_LIMIT = 0.5  # latents are drawn from N(0, 1) clipped to ±0.5 (BCQ's repository)
_SLICE_VALUES = 2**24
"""Floats of one hidden layer of the decoder that are held at a time in acting."""


class BestOfAgent(nn.Module):
    """What acts for R teams: decoder, perturbation, critics and fixed latents of every agent, G = R · N.

    The latents are drawn once: the policy is then a function of the observation, before and after it was stored.

    Args:
        spec: the task.
        hidden: of the two layers of perturbation and critics.
        vae: whose decoder proposes.
        limit: Φ.
        proposals: S, of which the best is taken.
        generators: of all weights and latents, one a replica.
    """

    latents: Tensor

    def __init__(
        self,
        spec: TaskSpec,
        hidden: tuple[int, int],
        vae: BehaviourVAE,
        limit: float,
        proposals: int,
        generators: Sequence[np.random.Generator],
    ) -> None:
        super().__init__()
        n, size = spec.n_agents, spec.action.size
        self.limit, self.decoder = limit, vae.decoder
        self.scaler = ObservationScaler(len(generators), spec, shared=False)
        self.perturbation = StackedMLP((spec.obs_dim + size, *hidden, size), generators, n)
        self.critics = TwinCritics((spec.obs_dim, size, *hidden), generators, n)
        drawn = [g.standard_normal((n, proposals, vae.latent), dtype=np.float32) for g in generators]
        fixed = torch.from_numpy(np.concatenate(drawn)).clamp(-LATENT_LIMIT, LATENT_LIMIT)
        self.register_buffer("latents", fixed)  # (G, S, Z)

    def forward(self, observations: Tensor) -> Tensor:
        """The best action in [−1, 1]: observations (R, B, N, D) -> (R, B, N, A)."""
        x: Tensor = self.scaler(observations)
        replicas, batch, n = x.shape[:3]
        x = x.transpose(1, 2).flatten(0, 1)  # (G, B, D)
        width = next(self.decoder.parameters()).shape[-1]
        rows = max(1, _SLICE_VALUES // (width * self.latents.shape[0] * self.latents.shape[1]))
        parts = [self._best(x[:, start : start + rows]) for start in range(0, batch, rows)]
        best = torch.cat(parts, dim=1)  # (G, B, A)
        return best.view(replicas, n, batch, -1).transpose(1, 2)

    def _best(self, seen: Tensor) -> Tensor:
        """(G, B, D) scaled -> (G, B, A)."""
        latents = self.latents.unsqueeze(1).expand(-1, seen.shape[1], -1, -1)  # (G, B, S, Z)
        actions = propose(self.decoder, self.perturbation, seen, latents, self.limit)  # (G, B, S, A)
        q = first_values(list(self.critics.parameters()), seen, actions)  # (G, B, S)
        index = q.argmax(dim=-1)[..., None, None].expand(*q.shape[:2], 1, actions.shape[-1])
        return actions.gather(2, index).squeeze(2)


def propose(decoder: nn.Module, perturbation: nn.Module, seen: Tensor, latents: Tensor, limit: float) -> Tensor:
    """Decoded actions, moved a little, without a gradient to the decoder.

    Args:
        decoder: (o, z) -> a of G groups.
        perturbation: (o, a) -> ξ of G groups.
        seen: (G, B, D) scaled observations.
        latents: (G, B, S, Z).
        limit: Φ.

    Returns:
        (G, B, S, A).
    """
    samples = latents.shape[2]
    with torch.no_grad():
        repeated = seen.repeat_interleave(samples, dim=1)  # (G, B · S, D)
        actions = decode(decoder, repeated, latents.flatten(1, 2))  # (G, B · S, A)
    raw = perturbation(torch.cat([repeated, actions], dim=-1))
    return perturbed(actions, raw, limit).view(*latents.shape[:3], -1)


class BestOfPolicy(AgentPolicy):
    """A frozen `BestOfAgent`."""

    @torch.inference_mode()
    def act(
        self, observations: NDArray[np.float32], available_actions: NDArray[np.bool_] | None, memory: Any = None
    ) -> tuple[NDArray[np.float32] | NDArray[np.int64], Any]:
        """The best joint actions; see `LearnedPolicy.act`. There is no memory."""
        best = self._agent(torch.tensor(observations, device=self.device))  # (R, B, N, A)
        return stretched(best, self.spec.action).cpu().numpy(), None
