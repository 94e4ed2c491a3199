"""MAPPO: one actor for all agents, the value of the state for the team (Yu et al. 2022), for behaviour policies.

The actor sees an agent's observation and its number; the critic sees the state, so that all agents share one advantage
a step. Needs whole episodes of its own policy, not an environment: whoever runs the environment calls `act` and
`update`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.networks.stacked import StackedMLP, perceptron
from methods.online.policy_heads import CategoricalHead, PolicyHead
from methods.online.running_scale import RunningScale


@dataclass(frozen=True, slots=True, kw_only=True)
class MAPPOConfig:
    """Settings of our measurements on SMAX (specs of Schulman et al. 2017 and Yu et al. 2022 where named)."""

    hidden: int = 128  # inferred; MAPPO: 64
    critic_hidden: int = 128  # inferred
    learning_rate: float = 1e-3  # inferred, by measurement; falls linearly to a tenth
    critic_learning_rate: float = 1e-3  # inferred; falls with it
    discount: float = 0.99  # MAPPO
    trace: float = 0.95  # MAPPO, λ of the advantages
    clip: float = 0.2  # MAPPO
    epochs: int = 4  # inferred; MAPPO: 5 to 15
    minibatches: int = 4  # inferred; MAPPO: 1
    entropy: float = 0.01  # MAPPO; falls linearly to nothing
    anneal_steps: int = 2_000_000  # inferred: environment steps until rates and entropy have fallen
    gradient_clip: float = 10.0  # MAPPO, L2 norm of each network
    normalise: bool = False  # inputs in units of what was seen so far; the first round then only tells these (inferred)


class Episodes(NamedTuple):
    """Steps of whole episodes, time first; `running` says which are steps, and not what follows an end."""

    observations: Tensor  # (T, B, N, D)
    states: Tensor  # (T + 1, B, K), with that after each step
    available: Tensor | None  # (T, B, N, A) bool; None: continuous actions
    alive: Tensor  # (T, B, N) bool
    actions: Tensor  # (T, B, N) int64, or (T, B, N, A)
    rewards: Tensor  # (T, B), the team's
    terminals: Tensor  # (T, B) bool, true ends
    running: Tensor  # (T, B) bool


def advantages(
    values: Tensor, rewards: Tensor, terminals: Tensor, running: Tensor, discount: float, trace: float
) -> Tensor:
    """Generalised advantages A_t = δ_t + γλ (1 − e_t) A_{t+1}, δ_t = r_t + γ (1 − e_t) V_{t+1} − V_t; 0 off episodes.

    A truncated episode ends the sum, and its last state keeps its value (Schulman et al. 2016).

    Args:
        values: (T + 1, B).
        rewards: (T, B).
        terminals: (T, B) bool.
        running: (T, B) bool; the last running step of an episode ends it.
        discount: γ.
        trace: λ.

    Returns:
        (T, B).
    """
    following = torch.zeros_like(rewards[0])
    found = torch.empty_like(rewards)
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * values[t + 1].masked_fill(terminals[t], 0.0) - values[t]
        following = (delta + discount * trace * following).masked_fill(~running[t], 0.0)  # so 0 behind an end
        found[t] = following
    return found


class MAPPO:
    """The learner's state: actor, critic and their optimisers.

    Args:
        config: sizes and rates.
        sizes: N, D, K and A.
        generator: of samples and minibatches.
        weights: of the initial networks.
        head: the kind of policy; None: a softmax over discrete actions.
    """

    def __init__(
        self,
        config: MAPPOConfig,
        sizes: tuple[int, int, int, int],
        generator: torch.Generator,
        weights: np.random.Generator,
        head: PolicyHead | None = None,
    ) -> None:
        self.config, self._generator, self.head = config, generator, head or CategoricalHead()
        self._n, obs_dim, state_dim, actions = sizes
        h, c = config.hidden, config.critic_hidden
        self._actor: list[Tensor] = list(StackedMLP((obs_dim + self._n, h, h, actions), [weights]).parameters())
        self.critic: list[Tensor] = list(StackedMLP((state_dim, c, c, 1), [weights]).parameters())
        self._adam = torch.optim.Adam(
            [
                {"params": [*self._actor, *self.head.parameters], "lr": config.learning_rate},
                {"params": self.critic, "lr": config.critic_learning_rate},
            ],
            eps=1e-5,
            fused=True,
        )
        self._seen, self._seen_states = RunningScale(obs_dim), RunningScale(state_dim)

    @property
    def actors(self) -> list[Tensor]:
        """The actor as a network of observations as they are."""
        weight, bias, *rest = self._actor
        return [*self._seen.folded(weight.detach(), bias.detach()), *rest]

    @torch.no_grad()
    def act(self, observations: Tensor, available: Tensor | None) -> Tensor:
        """Actions (B, N), or (B, N, A), drawn from the policy, for observations (B, N, D)."""
        return self.head.draw(self._outputs(observations), available, self._generator)

    def update(self, episodes: Episodes, env_steps: int) -> None:
        """Some epochs on the episodes of the current policy, the last of so many environment steps."""
        config = self.config
        if config.normalise and not self._seen.count:
            self._see(episodes)
            return
        left = max(0.0, 1.0 - env_steps / config.anneal_steps)
        actor, critic = self._adam.param_groups
        actor["lr"] = config.learning_rate * max(0.1, left)
        critic["lr"] = config.critic_learning_rate * max(0.1, left)
        rows = self._rows(episodes)
        for _ in range(config.epochs):
            order = torch.randperm(len(rows.targets), generator=self._generator)
            for chosen in order.chunk(config.minibatches):
                self._step(rows.take(chosen), config.entropy * left)
        if config.normalise:
            self._see(episodes)

    def policy_loss(self, rows: _Rows, entropy: float) -> Tensor:
        """−⟨min(ρ A, clip(ρ) A)⟩ − c ⟨H⟩ over living agents."""
        outputs = self._outputs(rows.observations)
        ratio = (self.head.log_probability(outputs, rows.available, rows.actions) - rows.log_probability).exp()
        gain, low, high = rows.advantages[:, None], 1.0 - self.config.clip, 1.0 + self.config.clip
        surrogate = torch.minimum(ratio * gain, ratio.clamp(low, high) * gain)
        spread = self.head.entropy(outputs, rows.available)
        return -(surrogate + entropy * spread)[rows.alive].mean()

    def value_loss(self, rows: _Rows) -> Tensor:
        """½ ⟨(V(s) − R)²⟩."""
        return 0.5 * (self._value(rows.states) - rows.targets).square().mean()

    def _step(self, rows: _Rows, entropy: float) -> None:
        self._adam.zero_grad()
        (self.policy_loss(rows, entropy) + self.value_loss(rows)).backward()  # type: ignore[no-untyped-call]  # torch's
        for network in (self._actor, self.critic):
            torch.nn.utils.clip_grad_norm_(network, self.config.gradient_clip)
        self._adam.step()

    @torch.no_grad()
    def _rows(self, episodes: Episodes) -> _Rows:
        """The steps of all episodes, one after the other, with advantages of mean 0 and deviation 1."""
        config, running = self.config, episodes.running
        values = self._value(episodes.states)  # (T + 1, B)
        gain = advantages(
            values, episodes.rewards, episodes.terminals, running, config.discount, config.trace
        )  # (T, B)
        targets = (gain + values[:-1])[running]
        observations, actions = episodes.observations[running], episodes.actions[running]
        available = None if episodes.available is None else episodes.available[running]
        gained = gain[running]
        return _Rows(
            observations=observations,
            states=episodes.states[:-1][running],
            available=available,
            alive=episodes.alive[running],
            actions=actions,
            log_probability=self.head.log_probability(self._outputs(observations), available, actions),
            advantages=(gained - gained.mean()) / (gained.std() + 1e-5),
            targets=targets,
        )

    def _value(self, states: Tensor) -> Tensor:
        """V(s): (..., K) -> (...)."""
        x = self._seen_states(states).reshape(1, -1, states.shape[-1])
        return perceptron(self.critic, x).view(states.shape[:-1])

    def _outputs(self, observations: Tensor) -> Tensor:
        """What the actor gives of o_i and i: (M, N, D) -> (M, N, A)."""
        numbers = torch.eye(self._n).expand(len(observations), -1, -1)
        x = torch.cat([self._seen(observations), numbers], dim=-1)  # (M, N, D + N)
        return perceptron(self._actor, x.flatten(0, 1)[None])[0].view(*x.shape[:2], -1)

    def _see(self, episodes: Episodes) -> None:
        self._seen.see(episodes.observations[episodes.running].flatten(0, 1))
        self._seen_states.see(episodes.states[:-1][episodes.running])


class _Rows(NamedTuple):
    """Single steps, (M, ...) each."""

    observations: Tensor  # (M, N, D)
    states: Tensor  # (M, K)
    available: Tensor | None  # (M, N, A) bool
    alive: Tensor  # (M, N) bool
    actions: Tensor  # (M, N) or (M, N, A)
    log_probability: Tensor  # (M, N), of the policy that acted
    advantages: Tensor  # (M,)
    targets: Tensor  # (M,)

    def take(self, chosen: Tensor) -> _Rows:
        """Some of the steps."""
        rest = {name: column[chosen] for name, column in self._asdict().items() if name != "available"}
        return _Rows(available=None if self.available is None else self.available[chosen], **rest)
