"""Independent TD3 for offline data: every agent has an actor and twin critics of its own (OMAR, Sec. 4.1.1).

All agents of all replicas are stacked, group g = r · N + i, and learn in one program. Actions are those of the task
mapped to [−1, 1]. What learners differ in, they override: `critic_penalty`, `actor_losses`, the class attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.reward_units import HasRewardScale
from methods.algorithms.team import Team, Views, views
from methods.algorithms.training import Losses, Parts, descend
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run
from methods.data.batches import TransitionBatch
from methods.networks.agents import MLPAgent
from methods.networks.critics import TwinCritics
from methods.objectives.td3 import smoothed, td3_target
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The fields of a config that may differ by kind of task, all decided."""

    hidden: int
    learning_rate: float
    polyak: float
    batch_size: int
    max_grad_norm: float
    normalise: bool


PARTICLES = Sizes(
    hidden=64,  # OMAR, App. B.1
    learning_rate=0.01,  # OMAR, App. B.1
    polyak=0.01,  # OMAR, App. B.1
    batch_size=1024,  # OMAR, App. B.1
    max_grad_norm=0.5,  # OMAR's repository: L2 norm of one agent's actor, and of its critics
    normalise=True,  # z-score of observations by the original data (TD3+BC's repository); OMAR: batch norm
)
LOCOMOTION = replace(
    PARTICLES,
    hidden=256,  # OMAR's repository, HalfCheetah; TD3+BC's repository
    learning_rate=3e-4,  # the same
    polyak=0.005,  # the same
    batch_size=256,  # the same
)


class TD3Config(HasRewardScale, Protocol):
    """What a learner of this kind reads of its config, whatever else that holds."""

    @property
    def updates(self) -> int:
        """Unless the protocol sets it."""

    @property
    def discount(self) -> float:
        """γ."""

    def sizes(self, spec: TaskSpec) -> Sizes:
        """All fields decided for one task."""


def decided(config: TD3Config, spec: TaskSpec) -> Sizes:
    """The values of a config that has all fields of `Sizes`, and where they are None those of the task's family."""
    own = {field.name: getattr(config, field.name) for field in fields(Sizes)}
    preset = LOCOMOTION if spec.family == "mamujoco" else PARTICLES
    return replace(preset, **{name: value for name, value in own.items() if value is not None})


ConfigT = TypeVar("ConfigT", bound=TD3Config)


class IndependentTD3(TransitionLearner[ConfigT], ABC):
    """A learner with decentralised deterministic actors and twin critics.

    Attributes:
        policy_delay: critic updates an actor update.
        target_noise, target_noise_clip: of the actions in targets; 0: none.
        small_actor: whether the weights of the actor's last layer start in U(±3e-3) (OMAR's repository).
    """

    policy_delay: ClassVar[int] = 1
    target_noise: ClassVar[float] = 0.0
    target_noise_clip: ClassVar[float] = 0.5
    small_actor: ClassVar[bool] = False

    def critic_penalty(self, team: Team, seen: Views, recorded_q: Tensor) -> Tensor | None:
        """(G,) what is added to the squared TD errors, summed over the twins; `recorded_q` (2, G, B) of the data."""
        return None

    @abstractmethod
    def actor_losses(self, team: Team, seen: Views) -> Tensor:
        """(G,) the loss of each actor."""

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's, or those of the family."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> MLPAgent:
        """One actor an agent."""
        agent = MLPAgent(spec, self.config.sizes(spec).hidden, False, generators)
        if self.small_actor:
            agent.shrink_last_layer(3e-3)
        return agent

    def new_team(self, data: Sequence[OfflineDataset], run: Run) -> Team:
        """Networks before the first update, those of replica r drawn from `run.seeds[r]` alone."""
        spec, replicas = data[0].spec, range(len(data))
        sizes = self.config.sizes(spec)
        agent = self.new_agent(spec, [run.generator(f"{self.name}/actor", r) for r in replicas]).to(run.device)
        if sizes.normalise:
            agent.scaler.fit(data, run.original)
        critics = TwinCritics(
            (spec.obs_dim, spec.action.size, sizes.hidden),
            [run.generator(f"{self.name}/critics", r) for r in replicas],
            spec.n_agents,
        ).to(run.device)
        noise = [run.generator(f"{self.name}/noise", r) for r in replicas]
        return Team(agent, critics, noise, batch_norm=self.batch_norm)

    @property
    def batch_norm(self) -> bool:
        """Whether critics see actions standardised within their batch."""
        return False

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> TD3Trainer:
        """A team and its optimisers. Reports `critic_loss`, `actor_loss` and `q`, the mean Q^1 of recorded actions."""
        spec = data[0].spec
        return TD3Trainer(self, self.new_team(data, run), self.config.sizes(spec), spec.action)


class TD3Trainer:
    """One update after another: critics, then where it is due actors and targets.

    Args:
        learner: its losses, and how often actors move.
        team: what is trained.
        sizes: rates and clipping.
        action: bounds of the actions in the batches.

    Attributes:
        done: updates so far.
    """

    def __init__(self, learner: IndependentTD3[Any], team: Team, sizes: Sizes, action: ActionSpec) -> None:
        self._learner, self._team, self._action, self._replicas = learner, team, action, len(team.generators)
        self._polyak, self._max_norm, rate = sizes.polyak, sizes.max_grad_norm, sizes.learning_rate
        self._critic_adam = torch.optim.Adam(team.critic_parameters, lr=rate, fused=True)
        self._actor_adam = torch.optim.Adam(team.actor_parameters, lr=rate, fused=True)
        self.done = 0

    @property
    def agent(self) -> MLPAgent:
        """The actors."""
        return self._team.agent

    def parts(self) -> Parts:
        """See `Trainer`; updates draw noise."""
        return Parts(self._team.tensors(), (self._critic_adam, self._actor_adam), self._team.generators)

    def update(self, batch: TransitionBatch) -> Losses:
        """One critic step; every `policy_delay`-th time one of the actors, and then of all targets."""
        learner, team = self._learner, self._team
        seen = views(batch, team.agent, self._action)
        loss, q = critic_losses(learner, team, seen)
        self._step(self._critic_adam, team.critic_parameters, loss)
        told = {"critic_loss": self._by_replica(loss), "q": self._by_replica(q)}
        self.done += 1
        if self.done % learner.policy_delay == 0:
            loss = learner.actor_losses(team, seen)
            self._step(self._actor_adam, team.actor_parameters, loss)
            told["actor_loss"] = self._by_replica(loss)
            with torch.no_grad():
                for target, current in (
                    (team.target_actor, team.actor_parameters),
                    (team.target_critic, team.critic_parameters),
                ):
                    torch._foreach_lerp_(target, list(current), self._polyak)
        return told

    def _step(self, adam: torch.optim.Optimizer, parameters: Sequence[Tensor], losses: Tensor) -> None:
        descend(adam, parameters, losses, self._team.groups, self._max_norm)

    def _by_replica(self, values: Tensor) -> Tensor:
        return values.detach().view(self._replicas, -1).mean(dim=1)  # (G,) -> (R,)


def critic_losses(learner: IndependentTD3[Any], team: Team, seen: Views) -> tuple[Tensor, Tensor]:
    """(G,) Σ_k mean (Q^k(o, a) − y)² plus the learner's penalty, and (G,) the mean of Q^1(o, a)."""
    with torch.no_grad():
        action = team.target_act(seen.next_observations)  # (G, B, A)
        if learner.target_noise > 0:
            noise = learner.target_noise * team.normal(*action.shape[1:])
            action = smoothed(action, noise, learner.target_noise_clip)
        next_q = team.target_q(seen.next_observations, action)  # (2, G, B)
        target = td3_target(seen.rewards, seen.terminals, next_q, learner.config.discount)
    q = team.q(seen.observations, seen.actions.unsqueeze(2)).squeeze(-1)  # (2, G, B)
    losses = (q - target).square().mean(dim=-1).sum(dim=0)
    penalty = learner.critic_penalty(team, seen, q)
    return losses if penalty is None else losses + penalty, q[0].mean(dim=-1)
