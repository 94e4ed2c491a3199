"""QMIX, learned from a replay of transitions (Rashid et al. 2018), for behaviour policies without memory.

One network serves all agents and sees each one's number. Needs transitions, not an environment: whoever runs the
environment calls `act` and `update`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.networks.mixers import QMixer
from methods.networks.stacked import StackedMLP, perceptron
from methods.objectives.q_learning import td_loss, td_target


@dataclass(frozen=True, slots=True, kw_only=True)
class QMIXConfig:
    """PyMARL's settings where they fit agents without memory; the others are starting values, not yet tuned."""

    hidden: int = 128  # inferred; PyMARL: a GRU of 64
    mixing_embed: int = 32  # PyMARL
    hypernet_hidden: int = 64  # PyMARL
    learning_rate: float = 1e-3  # inferred; PyMARL: RMSprop at 5e-4
    discount: float = 0.99  # PyMARL
    polyak: float = 0.01  # inferred; PyMARL copies the networks every 200 episodes
    gradient_clip: float = 10.0  # PyMARL, L2 norm over everything


class JointTransitions(NamedTuple):
    """A batch of steps of a team: (B, ...) each. `terminals` are true ends; rewards are the team's."""

    observations: Tensor  # (B, N, D)
    states: Tensor  # (B, K)
    actions: Tensor  # (B, N) int64
    rewards: Tensor  # (B,)
    terminals: Tensor  # (B,) bool
    next_observations: Tensor  # (B, N, D)
    next_states: Tensor  # (B, K)
    next_available: Tensor  # (B, N, A) bool


class QMIX:
    """The learner's state: the agents' network, the mixer, their targets and the optimiser.

    Args:
        config: sizes and rates.
        sizes: N, D, K and A.
        weights: of the initial networks.
    """

    def __init__(self, config: QMIXConfig, sizes: tuple[int, int, int, int], weights: np.random.Generator) -> None:
        self.config = config
        self._n, obs_dim, state_dim, actions = sizes
        h = config.hidden
        self.actors: list[Tensor] = list(StackedMLP((obs_dim + self._n, h, h, actions), [weights]).parameters())
        mixing = (state_dim, self._n, config.mixing_embed, config.hypernet_hidden)
        self._mixer, self._target_mixer = QMixer(*mixing, [weights]), QMixer(*mixing, [weights])
        self._target_mixer.load_state_dict(self._mixer.state_dict())
        self._target_mixer.requires_grad_(False)
        self._target_actors = [parameter.detach().clone() for parameter in self.actors]
        self._parameters = [*self.actors, *self._mixer.parameters()]
        self._targets = [*self._target_actors, *self._target_mixer.parameters()]
        self._adam = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def act(self, observations: Tensor, available: Tensor) -> Tensor:
        """Greedy available actions (B, N) of observations (B, N, D)."""
        return self._values(self.actors, observations).masked_fill(~available, -torch.inf).argmax(dim=-1)

    def update(self, batch: JointTransitions) -> None:
        """One step on the squared TD error of the team's value, and one of all targets towards their networks."""
        self._adam.zero_grad()
        self.loss(batch).backward()  # type: ignore[no-untyped-call]  # as torch has it
        torch.nn.utils.clip_grad_norm_(self._parameters, self.config.gradient_clip)
        self._adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, [p.detach() for p in self._parameters], self.config.polyak)

    def loss(self, batch: JointTransitions) -> Tensor:
        """½ mean (Q_tot(s, a) − y)², y by double Q-learning."""
        chosen = self._values(self.actors, batch.observations).gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        total = self._mixer(batch.states[None]).total(chosen[None])  # (1, B)
        with torch.no_grad():
            best = self.act(batch.next_observations, batch.next_available)
            value = self._values(self._target_actors, batch.next_observations).gather(-1, best.unsqueeze(-1))
            next_total = self._target_mixer(batch.next_states[None]).total(value.squeeze(-1)[None])
            target = td_target(batch.rewards[None], batch.terminals[None], next_total, self.config.discount)
        return td_loss(total, target, torch.ones_like(total, dtype=torch.bool)).sum()

    def _values(self, network: Sequence[Tensor], observations: Tensor) -> Tensor:
        """Q_i(o_i, ·) of every agent: (B, N, D) -> (B, N, A)."""
        numbers = torch.eye(self._n).expand(len(observations), -1, -1)
        x = torch.cat([observations, numbers], dim=-1)  # (B, N, D + N)
        values = perceptron(network, x.flatten(0, 1)[None])[0]  # (B · N, A)
        return values.view(len(observations), self._n, -1)
