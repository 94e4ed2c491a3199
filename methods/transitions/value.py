"""The value of joint observations that INS selects by: V(o) by temporal differences (INS, Eq. 8)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSettings:
    """INS gives none of these numbers but the use of a target network; all are inferred."""

    hidden: int = 256
    learning_rate: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005  # how far the target network moves with each update


class JointValue(nn.Module):
    """V of the normalised observations of all agents side by side, R replicas, with a target network.

    Values are in the units of rewards, `scale` of which a unit of the network is.
    """

    scale: Tensor

    def __init__(self, layout: TokenLayout, hidden: int, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self._parts = layout.parts()
        size = layout.spec.n_agents * layout.spec.obs_dim
        self.online = StackedMLP((size, hidden, hidden, 1), generators)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.register_buffer("scale", torch.ones(len(generators)))

    def observed(self, tokens: Tensor, which: str) -> Tensor:
        """Tokens (R, B, T, F) -> (R, B, N · D), `which` of "observations" and "next_observations"."""
        return tokens[..., self._parts[which]].flatten(2)

    def forward(self, tokens: Tensor) -> Tensor:
        """V(o) of normalised tokens (R, B, T, F): (R, B), in the units of rewards."""
        value: Tensor = self.online(self.observed(tokens, "observations"))[..., 0]
        return value * self.scale[:, None]


class ValueObjective:
    """(r + γ (1 − e) V̄(o') − V(o))², in units of the rewards' deviation; a time limit is no end.

    Args:
        value: R replicas.
        settings: γ and τ.
        tokens: (S, T, F) normalised.
        rewards: (S,) of the team.
        terminals: (S,) true ends, whether tokens have them or not.
        taught: R, the steps that each replica draws from.
        batch_size: transitions an update.
    """

    copies = 1

    def __init__(
        self,
        value: JointValue,
        settings: ValueSettings,
        tokens: Tensor,
        rewards: NDArray[np.float32],
        terminals: NDArray[np.bool_],
        taught: Sequence[NDArray[np.int64]],
        batch_size: int,
    ) -> None:
        deviation = float(np.std(rewards, dtype=np.float64))
        scale = deviation if deviation > 1e-6 else 1.0
        value.scale.fill_(scale)
        self.module, self._value, self._settings = value, value, settings
        self._tokens, self._taught, self._batch = tokens, taught, batch_size
        self._rewards = torch.from_numpy((rewards / scale).astype(np.float32)).to(tokens.device)
        self._goes_on = torch.from_numpy(~terminals).to(tokens.device)

    def draw(self, generator: np.random.Generator, replica: int) -> tuple[NDArray[Any], ...]:
        """Steps (B,)."""
        return (rows_of(self._taught, generator, replica, self._batch),)

    def losses(self, rows: Tensor) -> Tensor:
        """(R,)."""
        tokens = self._tokens.index_select(0, rows.flatten()).view(*rows.shape, *self._tokens.shape[1:])
        value = self._value.online(self._value.observed(tokens, "observations"))[..., 0]  # (R, B)
        with torch.no_grad():
            following = self._value.target(self._value.observed(tokens, "next_observations"))[..., 0]
            target = self._rewards[rows] + self._settings.gamma * self._goes_on[rows] * following
        losses: Tensor = (target - value).square().mean(dim=1)
        return losses

    @torch.no_grad()
    def after_update(self) -> None:
        """The target network follows."""
        pairs = zip(self._value.target.parameters(), self._value.online.parameters(), strict=True)
        for target, online in pairs:
            target.lerp_(online, self._settings.tau)
