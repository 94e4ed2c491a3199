"""OMAR and MA-CQL for discrete actions, where the best available action by Q needs no search."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.joint import joint_state, state_size
from methods.algorithms.replica_adam import ReplicaAdam
from methods.algorithms.sequence_learner import Agent, SequenceLearner, shared_agent, unrolled
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.base import Run
from methods.data.sequences import SequenceBatch
from methods.learners.omar.config import DISCRETE, OMARConfig
from methods.networks.dueling import DuelingTwins
from methods.networks.heads import greedy_choice
from methods.objectives.cloning import masked_mean
from methods.objectives.discrete_actor import imitation_loss, policy_gradient_loss
from methods.objectives.discrete_critic import conservative_gap, twin_td_loss
from methods.objectives.returns import lambda_return
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class DiscreteOMAR(SequenceLearner[OMARConfig]):
    """Conservative critics of single agents that see the state; actors by policy gradient, drawn to the best action.

    L_Q = Σ_k ⟨(Q^k(a) − G)²⟩ + α_cql Σ_k ⟨log Σ_a' exp Q^k(a') − Q^k(a)⟩, a' available, G = min_k G^k with G^k the
    λ-return of r_i and Q̄^k(â'), â' the best available action by the target actor;
    L_π = −(1 − τ) ⟨A log π_ε(a)⟩ − τ ⟨log π(â)⟩, A = Q^1(a) − Σ_a' π_ε(a') Q^1(a'), π_ε = (1 − ε) π + ε / n, â the best
    of n available actions by Q^1.

    OMAR says of its discrete form only that it has Gumbel-softmax actors. This is what OffPyMARL and CFCQL's repository
    make of it, with unavailable actions and padding left out, twins that share nothing, and one step of the critics a
    batch. They give every agent the team's reward; here it is the agent's own, as in the continuous form: where a task
    has one reward for all, that is the same. Their ε falls with the updates; without any, L_π has no lower bound.
    """

    Config = OMARConfig
    version = 1
    name: ClassVar[str] = "omar"

    def recurrent(self, spec: TaskSpec) -> bool:
        """As the config says."""
        return self.config.memory == "gru"

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's, or those of the kind of sequence."""
        return self.config.updates, self.config.settings().batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """PyMARL's agent with its last action among the inputs; without memory a ReLU layer in place of the GRU."""
        return shared_agent(spec, self.config.settings().hidden, self.config.memory, generators, last_action=True)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> DiscreteOMARTrainer:
        """Reports `critic_loss`, `actor_loss`, `cql_gap` and `q`; see the trainer."""
        spec, config, replicas = data[0].spec, self.config, range(len(data))
        agent = self.new_agent(spec, [run.generator("omar/actor", r) for r in replicas])
        if config.settings().normalise:
            agent.scaler.fit(data, run.original)
        k = state_size(spec.n_agents, spec.obs_dim, spec.state_dim)
        critics = DuelingTwins(
            (k, spec.obs_dim, config.critic_hidden),
            spec.n_agents,
            spec.action.size,
            [run.generator("omar/critics", r) for r in replicas],
        )
        return DiscreteOMARTrainer(config, agent.to(run.device), critics.to(run.device))


class View(NamedTuple):
    """A batch as critics and actors see it: states (R, T + 1, B, K) and observations (R, T + 1, B, N, D), both scaled;
    available (R, T + 1, B, N, A); actions (R, T, B, N); valid (R, T, B).
    """

    states: Tensor
    observations: Tensor
    available: Tensor
    actions: Tensor
    valid: Tensor


class CriticLosses(NamedTuple):
    """Of each replica (R,): what the critics lower, the mean gap of a twin, and the mean Q^1 of recorded actions."""

    loss: Tensor
    gap: Tensor
    q: Tensor


class DiscreteOMARTrainer:
    """Actors, twin critics, their targets and their optimisers.

    Args:
        config: its settings.
        agent: the actors, on the device.
        critics: twin critics, on the device.
    """

    def __init__(self, config: OMARConfig, agent: Agent, critics: DuelingTwins) -> None:
        self.agent, self.critics = agent, critics
        self.target_agent = copy.deepcopy(agent).requires_grad_(False)
        self.target_critics = copy.deepcopy(critics).requires_grad_(False)
        self._config, self._settings, self._weights = config, config.settings(), config.weights(DISCRETE)
        self._of_actor, self._of_critics = list(agent.parameters()), list(critics.parameters())
        rate, replicas = self._settings.learning_rate, agent.scaler.mean.shape[0]
        self.actor_adam = torch.optim.Adam(self._of_actor, lr=rate, fused=True)
        self._by_step = ReplicaAdam(self._of_critics, replicas, rate) if config.per_timestep_updates else None
        self.critic_adams: tuple[torch.optim.Optimizer, ...] = (
            (torch.optim.Adam(self._of_critics, lr=rate, fused=True),) if self._by_step is None else self._by_step.adams
        )
        self.done = 0

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The actors."""
        return (self.agent,)

    def parts(self) -> Parts:
        """See `Trainer`; updates draw nothing."""
        tensors = named_tensors(
            agent=self.agent,
            critics=self.critics,
            target_agent=self.target_agent,
            target_critics=self.target_critics,
        )
        return Parts(tensors, (self.actor_adam, *self.critic_adams))

    def update(self, batch: SequenceBatch) -> Losses:
        """Critics, then actors by the critics as they are now; every `target_every`-th time the targets are copies.

        `critic_loss`, `cql_gap` and `q` are those before the critics' step, or their means over the steps of a batch.
        """
        seen = self.view(batch)
        told = self._improve_critics(seen, self.targets(batch, seen))
        of_actor = self.actor_loss(batch, seen)
        descend(self.actor_adam, self._of_actor, of_actor, len(of_actor), self._settings.max_grad_norm)
        self.done += 1
        if self.done % self._config.target_every == 0:
            self.target_agent.load_state_dict(self.agent.state_dict())
            self.target_critics.load_state_dict(self.critics.state_dict())
        return {
            "critic_loss": told.loss,
            "actor_loss": of_actor.detach(),
            "cql_gap": told.gap,
            "q": told.q,
        }

    def view(self, batch: SequenceBatch) -> View:
        """The batch, scaled."""
        assert batch.available is not None
        scaled: Tensor = self.agent.scaler(batch.observations)
        return View(joint_state(scaled, batch.states), scaled, batch.available, batch.actions, batch.valid)

    @torch.no_grad()
    def targets(self, batch: SequenceBatch, seen: View) -> Tensor:
        """(R, T, B, N) G."""
        logits = unrolled(self.target_agent, batch.observations, batch.last_actions)[:, 1:]
        best = greedy_choice(logits, seen.available[:, 1:])  # (R, T, B, N)
        next_q = taken(self.target_critics(seen.states[:, 1:], seen.observations[:, 1:]), best)  # (2, R, T, B, N)
        terminal, valid = batch.terminals.unsqueeze(-1), batch.valid.unsqueeze(-1)  # (R, T, B, 1)
        discount, trace = self._config.discount, self._config.trace
        returns = [lambda_return(batch.rewards, terminal, q, valid, discount, trace) for q in next_q.unbind()]
        return torch.minimum(*returns)

    def critic_losses(self, seen: View, target: Tensor, steps: slice) -> CriticLosses:
        """Of some steps of the batch, each mean over the valid ones among them; `target` (R, T, B, N) of all."""
        q = self.critics(seen.states[:, :-1][:, steps], seen.observations[:, :-1][:, steps])  # (2, R, T', B, N, A)
        valid, available = seen.valid[:, steps], seen.available[:, :-1][:, steps]
        recorded = taken(q, seen.actions[:, steps])  # (2, R, T', B, N)
        loss = twin_td_loss(recorded, target[:, steps], valid)
        gap = conservative_gap(q, recorded, available, valid)
        if self._weights.conservatism > 0:
            loss = loss + self._weights.conservatism * gap
        return CriticLosses(loss, gap.detach() / 2, masked_mean(recorded[0].detach().mean(dim=-1), valid))

    def actor_loss(self, batch: SequenceBatch, seen: View) -> Tensor:
        """(R,) L_π."""
        logits = unrolled(self.agent, batch.observations, batch.last_actions)[:, :-1]  # (R, T, B, N, A)
        available, tau = seen.available[:, :-1], self._weights.tau
        q = self.critics.first(seen.states[:, :-1], seen.observations[:, :-1])  # (R, T, B, N, A)
        exploration = self._config.exploration
        loss = (1 - tau) * policy_gradient_loss(logits, q, seen.actions, available, seen.valid, exploration)
        return loss + tau * imitation_loss(logits, q, available, seen.valid) if tau > 0 else loss

    def _improve_critics(self, seen: View, target: Tensor) -> CriticLosses:
        """One step of Adam on the batch, or one on each of its time steps in turn, of replicas that have valid data."""
        max_norm = self._settings.max_grad_norm
        if self._by_step is None:
            told = self.critic_losses(seen, target, slice(None))
            descend(self.critic_adams[0], self._of_critics, told.loss, len(target), max_norm)
            return told._replace(loss=told.loss.detach())
        counts = seen.valid.sum(dim=2)  # (R, T)
        moving, share = (counts > 0).tolist(), counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        total = CriticLosses(*target.new_zeros(len(CriticLosses._fields), len(target)).unbind())
        for t in range(target.shape[1]):
            told = self.critic_losses(seen, target, slice(t, t + 1))
            self._by_step.step(told.loss, [of_replica[t] for of_replica in moving], max_norm)
            total = CriticLosses(*(sum_ + share[:, t] * x.detach() for sum_, x in zip(total, told, strict=True)))
        return total


def taken(q: Tensor, actions: Tensor) -> Tensor:
    """Q^k(a_i) of both twins: (2, R, ..., N, A), (R, ..., N) -> (2, R, ..., N)."""
    return q.gather(-1, actions.expand(2, *actions.shape).unsqueeze(-1)).squeeze(-1)
