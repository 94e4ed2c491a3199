"""`td3bc` for discrete actions: MATD3 with Gumbel actions whose actors also clone the data (OffPyMARL, `matd3_bc`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.joint import joint_state, state_size, team_reward
from methods.algorithms.sequence_learner import Agent, SequenceLearner, shared_agent, unrolled
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.base import Run
from methods.data.sequences import SequenceBatch, step_draws
from methods.learners.td3bc.config import TD3BCConfig
from methods.networks.heads import greedy_choice
from methods.networks.joint_critic import JointTwins, joint_one_hot
from methods.objectives.cloning import masked_mean, negative_log_likelihood
from methods.objectives.counterfactual import counterfactual_actions
from methods.objectives.discrete_critic import twin_td_loss
from methods.objectives.discrete_td3 import mixed_actor_loss, normalised_actor_loss
from methods.objectives.gumbel import gumbel, straight_through
from methods.objectives.td3 import td3_target
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

POLICY_DELAY = 2  # critic steps an actor step; OffPyMARL, matd3_bc (actor_freq)


class DiscreteTD3BC(SequenceLearner[TD3BCConfig]):
    """Critics Σ_k ⟨(Q^k − y)²⟩, y = r + γ (1 − e) min_k Q̄^k(x'_i, argmax π̄(τ')); actors −λ ⟨Q^1⟩ + ⟨−log π_i(a_i)⟩.

    x_i = s ⊕ o_i ⊕ id, r the team's reward, λ = α / ⟨|Q^1|⟩ of each replica. In the actors' loss Q^1 is of actions that
    all agents sample with Gumbel noise, straight through; an agent follows the gradient of its own action alone.
    Every maximum, softmax and draw is over available actions.

    Deviations: OffPyMARL divides the likelihood by A and takes padding for data; it standardises rewards by a running
    mean, which changes what staying alive is worth. Here: a true mean over valid steps and agents, rewards as they are.
    """

    Config = TD3BCConfig
    version = 1
    name: ClassVar[str] = "td3bc"

    def recurrent(self, spec: TaskSpec) -> bool:
        """As the config says."""
        return self.config.memory == "gru"

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """(o, id) -> H -> ReLU -> GRU H -> A, one network for all agents; without memory H -> H in the GRU's place."""
        return shared_agent(spec, self.config.sizes(spec).hidden, self.config.memory, generators)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> DiscreteTD3BCTrainer:
        """Reports `critic_loss`, `actor_loss` and `q`, the mean Q^1 of recorded actions."""
        spec, replicas = data[0].spec, range(len(data))
        actor = self.new_agent(spec, [run.generator("td3bc/actor", r) for r in replicas])
        if self.config.sizes(spec).normalise:
            actor.scaler.fit(data, run.original)
        critic = JointTwins(
            (state_size(spec.n_agents, spec.obs_dim, spec.state_dim), spec.obs_dim, self.config.critic_hidden),
            spec.n_agents,
            spec.action.size,
            [run.generator("td3bc/critics", r) for r in replicas],
        )
        noise = [run.generator("td3bc/noise", r) for r in replicas]
        networks = actor.to(run.device), critic.to(run.device)
        return DiscreteTD3BCTrainer(self.config, spec, *networks, noise, self.longest(data))


class View(NamedTuple):
    """What critics see at all rows of a batch: states (R, T + 1, B, K), scaled observations (R, T + 1, B, N, D)."""

    states: Tensor
    observations: Tensor

    def now(self) -> View:
        """At the T steps."""
        return View(self.states[:, :-1], self.observations[:, :-1])

    def after(self) -> View:
        """Behind the T steps."""
        return View(self.states[:, 1:], self.observations[:, 1:])


class DiscreteTD3BCTrainer:
    """Actors, twin critics, their targets and optimisers, the draws, and the count of updates.

    Args:
        config: its settings.
        spec: the task.
        actor: of R teams, on the device.
        critic: the same.
        generators: R, of the Gumbel noise.
        longest: R, steps of the longest sequence that a replica can meet: it draws as many numbers an update, whatever
            the others' sequences are.
    """

    def __init__(
        self,
        config: TD3BCConfig,
        spec: TaskSpec,
        actor: Agent,
        critic: JointTwins,
        generators: Sequence[np.random.Generator],
        longest: Sequence[int],
    ) -> None:
        self.actor, self.critic, self.done = actor, critic, 0
        self.target_actor = copy.deepcopy(actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(critic).requires_grad_(False)
        self._config, self._sizes, self._spec = config, config.sizes(spec), spec
        self._generators, self._longest = generators, longest
        self._of_actor: list[Tensor] = list(actor.parameters())
        self._of_critic: list[Tensor] = list(critic.parameters())
        rate = self._sizes.learning_rate
        self._critic_adam = torch.optim.Adam(self._of_critic, lr=rate, fused=True)
        self._actor_adam = torch.optim.Adam(self._of_actor, lr=rate, fused=True)

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The actors."""
        return (self.actor,)

    def parts(self) -> Parts:
        """See `Trainer`."""
        tensors = named_tensors(
            actor=self.actor, critic=self.critic, target_actor=self.target_actor, target_critic=self.target_critic
        )
        return Parts(tensors, [self._critic_adam, self._actor_adam], self._generators)

    def update(self, batch: SequenceBatch) -> Losses:
        """One critic step; every second time one of the actors, and then of all targets."""
        seen = self.view(batch)
        loss, q = self.critic_loss(batch, seen)
        self._step(self._critic_adam, self._of_critic, loss)
        told = {"critic_loss": loss, "q": q}
        self.done += 1
        if self.done % POLICY_DELAY == 0:
            loss = self.actor_loss(batch, seen)
            self._step(self._actor_adam, self._of_actor, loss)
            told["actor_loss"] = loss
            with torch.no_grad():
                for target, current in ((self.target_actor, self._of_actor), (self.target_critic, self._of_critic)):
                    moved: list[Tensor] = list(target.parameters())
                    torch._foreach_lerp_(moved, current, self._sizes.polyak)
        return told

    def view(self, batch: SequenceBatch) -> View:
        """The batch as critics see it."""
        scaled: Tensor = self.actor.scaler(batch.observations)
        return View(joint_state(scaled, batch.states), scaled)

    def critic_loss(self, batch: SequenceBatch, seen: View) -> tuple[Tensor, Tensor]:
        """(R,) Σ_k ⟨(Q^k(x_i, a) − y_i)²⟩, and (R,) ⟨Q^1(x_i, a)⟩."""
        assert batch.available is not None
        with torch.no_grad():
            logits = unrolled(self.target_actor, batch.observations)  # (R, T + 1, B, N, A)
            best = greedy_choice(logits[:, 1:], batch.available[:, 1:])  # (R, T, B, N)
            next_q = self.target_critic(*seen.after(), self._joint(best))  # (2, R, T, B, N)
            reward = team_reward(batch.rewards, self._spec.team_reward).unsqueeze(-1)  # (R, T, B, 1)
            target = td3_target(reward, batch.terminals.unsqueeze(-1), next_q, self._config.discount)  # (R, T, B, N)
        q = self.critic(*seen.now(), self._joint(batch.actions))  # (2, R, T, B, N)
        return twin_td_loss(q, target, batch.valid), masked_mean(q[0].detach().mean(dim=-1), batch.valid)

    def actor_loss(self, batch: SequenceBatch, seen: View) -> Tensor:
        """(R,) of the actors, with fresh draws."""
        assert batch.available is not None
        logits, available = unrolled(self.actor, batch.observations[:, :-1]), batch.available[:, :-1]
        sampled = straight_through(logits, available, self.noise(logits))  # (R, T, B, N, A)
        joint = counterfactual_actions(sampled.detach(), sampled.unsqueeze(-2)).squeeze(-2)  # (R, T, B, N, N · A)
        q = self.critic.first(*seen.now(), joint)  # (R, T, B, N)
        cloning = negative_log_likelihood(logits, batch.actions, available, batch.valid)
        if self._config.form == "tau":
            return mixed_actor_loss(q, cloning, batch.valid, self._config.tau)
        return normalised_actor_loss(q, cloning, batch.valid, self._config.alpha)

    def noise(self, like: Tensor) -> Tensor:
        """Gumbel values of the shape (R, T, B, N, A), the precision and the device of `like`."""
        shape = tuple(like.shape[1:])
        drawn = step_draws(
            self._generators, self._longest, shape, lambda g, s: g.standard_exponential(s, dtype=np.float32)
        )
        return gumbel(drawn).to(like)

    def _joint(self, actions: Tensor) -> Tensor:
        """(R, T, B, N) -> (R, T, B, N, N · A)."""
        return joint_one_hot(actions, self._spec.action.size, self._of_critic[0])

    def _step(self, adam: torch.optim.Optimizer, parameters: Sequence[Tensor], losses: Tensor) -> None:
        descend(adam, parameters, losses, len(losses), self._sizes.max_grad_norm)
