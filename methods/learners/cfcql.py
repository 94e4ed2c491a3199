"""`cfcql`: counterfactual conservative Q-learning for continuous actions (Shao et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.independent_td3 import IndependentTD3Config, Sizes
from methods.algorithms.joint import joint_state, state_size, team_reward, unit_actions
from methods.algorithms.training import Losses, descend
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run, require
from methods.data.batches import TransitionBatch, joint_transitions
from methods.networks.agents import MLPAgent
from methods.networks.behaviour_vae import BehaviourVAE
from methods.networks.critics import TwinCritics, pushed_up, standardised, twin_values
from methods.networks.stacked import perceptron
from methods.objectives.conservative import gaussian_log_density, uniform_log_density
from methods.objectives.counterfactual import (
    counterfactual_actions,
    counterfactual_actor_loss,
    divergence_weights,
    weighted_push,
)
from methods.objectives.td3 import smoothed, td3_target
from tasks.common.selector import Scalar
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

WEIGHTS = ("uniform", "behaviour")
_POLICY_SIGMA = 0.2  # of the policies whose distance from the behaviour is measured (CFCQL's repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class CFCQLConfig(IndependentTD3Config):
    """CFCQL's repository for continuous actions stands on OMAR's, with the same sizes but for a rate of 1e-3 in MPE.

    It tunes α by task and data quality; data without such a label, and augmented ones, have no value there.
    """

    conservatism: float = 1.0  # α, fixed for all data (inferred; CFCQL: 0.1 to 5)
    cql_samples: int = 10  # K of each agent; CFCQL's repository
    target_noise: float = 0.05  # σ of the actions in targets; the same
    ca_ratio: int = 5  # steps of the critic a step of the actors; the same
    output_penalty: float = 1e-3  # on mean π(o)² of each agent; the same
    batch_norm: bool = True  # critics see actions standardised within their batch; the same
    weights: str = "uniform"  # w = 1/N; or "behaviour", by distance from a model of the data; the same
    temperature: float = -1.0  # τ of weights=behaviour; the same: a softmin with cf_tau=1
    behaviour_updates: int = 100_000  # of the model of the data, before `updates` begin; the same
    behaviour_batch_size: int = 256  # transitions; the same
    behaviour_learning_rate: float = 1e-4  # the same
    behaviour_hidden: int = 750  # the same
    behaviour_samples: int = 20  # L of the estimate of ln β; the same

    def __post_init__(self) -> None:
        IndependentTD3Config.__post_init__(self)
        for name in ("conservatism", "target_noise", "output_penalty"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), "cfcql", f"{name}={value}", "a finite number, 0 or more")
        for name in ("cql_samples", "ca_ratio", "behaviour_batch_size", "behaviour_hidden", "behaviour_samples"):
            require(getattr(self, name) >= 1, "cfcql", f"{name}={getattr(self, name)}", "1 or more")
        require(self.behaviour_updates >= 0, "cfcql", f"behaviour_updates={self.behaviour_updates}", "0 or more")
        require(isinstance(self.batch_norm, bool), "cfcql", f"batch_norm={self.batch_norm}", "true or false")
        require(self.weights in WEIGHTS, "cfcql", f"weights={self.weights}", " or ".join(WEIGHTS))
        require(abs(self.temperature) < float("inf"), "cfcql", f"temperature={self.temperature}", "a finite number")
        rate = self.behaviour_learning_rate
        require(0 < rate < float("inf"), "cfcql", f"behaviour_learning_rate={rate}", "a finite number above 0")

    def sizes(self, spec: TaskSpec) -> Sizes:
        """All fields decided for one task."""
        sizes = IndependentTD3Config.sizes(self, spec)
        if self.learning_rate is None and spec.family != "mamujoco":
            return replace(sizes, learning_rate=1e-3)  # CFCQL's repository; for its `simple_spread` alone 0.01
        return sizes


class CFCQL(TransitionLearner[CFCQLConfig]):
    """One critic of the team, kept down where a single agent leaves the data and the others stay with it.

    y = r + γ (1 − e) min_k Q̄^k(s', clip(π̄(o') + ξ)), ξ ~ N(0, 0.05²), r the team's reward by the task's rule;
    L_Q = Σ_k mean (Q^k − y)² + α mean [Σ_i w_i logsumexp_j (Q^k(s, a_{−i}, a_i^j) − log p) − Q^k(s, a)];
    L_π = −mean_{b,i} Q^1(s, a_{−i}, π_i(o_i)) + 1e-3 Σ_i mean π_i². `updates` counts steps of the critic: the first of
    every `ca_ratio` comes with a step of the actors, the last with one of the targets.
    """

    Config = CFCQLConfig
    version = 1
    name: ClassVar[str] = "cfcql"

    @classmethod
    def tiny(cls, params: Mapping[str, Scalar] | None = None) -> CFCQL:
        """A heavier output penalty: behind batch normalisation a shift of all actions has no other gradient.

        Out of rounding errors Adam would make steps of full length.
        """
        return cls.from_params({"output_penalty": 0.1, **(params or {})})

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """Its form for discrete actions is not built."""
        return "built for continuous actions only so far" if spec.action.discrete else None

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's, or those of the family."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> MLPAgent:
        """One actor an agent, weights of the last layer in U(±3e-3) (OMAR's repository)."""
        agent = MLPAgent(spec, self.config.sizes(spec).hidden, False, generators)
        agent.shrink_last_layer(3e-3)
        return agent

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> CFCQLTrainer:
        """Reports `critic_loss`, `actor_loss` and `q`, the mean Q^1 of recorded actions.

        With weights=behaviour the model of the data is trained here.
        """
        spec, replicas = data[0].spec, range(len(data))
        agent = self.new_agent(spec, [run.generator("cfcql/actor", r) for r in replicas]).to(run.device)
        if self.config.normalise:
            agent.scaler.fit(data, run.original)
        state, joint = state_size(spec.n_agents, spec.obs_dim, spec.state_dim), spec.n_agents * spec.action.size
        own = [run.generator("cfcql/critics", r) for r in replicas]
        critics = TwinCritics((state, joint, self.config.sizes(spec).hidden), own, copies=1).to(run.device)
        noise = [run.generator("cfcql/noise", r) for r in replicas]
        trainer = CFCQLTrainer(self.config, spec, agent, critics, noise)
        if self.config.weights == "behaviour":
            own = [run.generator("cfcql/behaviour", r) for r in replicas]
            vae = BehaviourVAE((state, joint, self.config.behaviour_hidden), own).to(run.device)
            trainer.fit_behaviour(vae, data, run)
        return trainer


@dataclass(frozen=True, slots=True)
class _Views:
    """A batch as the team sees it: observations (R, B, N, D) scaled, states (R, B, K), actions (R, B, N, A) in
    [−1, 1], the team's rewards (R, B), terminals (R, B).
    """

    observations: Tensor
    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    next_states: Tensor
    terminals: Tensor


class CFCQLTrainer:
    """Actors, the critics of the team, their targets, and where the penalties are weighed a model of the data.

    Args:
        config: its settings.
        spec: the task.
        agent: the actors, on the device.
        critics: twin critics, one pair a replica.
        generators: R, of all noise.
    """

    def __init__(
        self,
        config: CFCQLConfig,
        spec: TaskSpec,
        agent: MLPAgent,
        critics: TwinCritics,
        generators: Sequence[np.random.Generator],
    ) -> None:
        self.agent, self._config, self._spec = agent, config, spec
        self.vae: BehaviourVAE | None = None  # see `fit_behaviour`
        self._generators, self._sizes, self._done = generators, config.sizes(spec), 0
        self.actor_parameters: list[Tensor] = list(agent.net.parameters())
        self.critic_parameters: list[Tensor] = list(critics.parameters())
        self.target_actor = [p.detach().clone() for p in self.actor_parameters]
        self.target_critic = [p.detach().clone() for p in self.critic_parameters]
        rate = self._sizes.learning_rate
        self._critic_adam = torch.optim.Adam(self.critic_parameters, lr=rate, fused=True)
        self._actor_adam = torch.optim.Adam(self.actor_parameters, lr=rate, fused=True)

    def update(self, batch: TransitionBatch) -> Losses:
        """A step of the critic; with the first of every `ca_ratio` one of the actors, after the last the targets."""
        config, replicas, first = self._config, len(self._generators), self._done % self._config.ca_ratio == 0
        seen = self.views(batch)
        loss, q = self.critic_losses(seen)
        descend(self._critic_adam, self.critic_parameters, loss, replicas, config.max_grad_norm)
        told = {"critic_loss": loss.detach(), "q": q.detach()}
        if first:
            loss = self.actor_losses(seen)
            groups = replicas * self._spec.n_agents  # every actor is clipped on its own
            descend(self._actor_adam, self.actor_parameters, loss, groups, config.max_grad_norm)
            told["actor_loss"] = loss.detach()
        self._done += 1
        if self._done % config.ca_ratio == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self.target_actor, self.actor_parameters, self._sizes.polyak)
                torch._foreach_lerp_(self.target_critic, self.critic_parameters, self._sizes.polyak)
        return told

    def critic_losses(self, seen: _Views) -> tuple[Tensor, Tensor]:
        """(R,) L_Q, and (R,) the mean of Q^1(s, a)."""
        config = self._config
        with torch.no_grad():
            action = self._act(self.target_actor, seen.next_observations)  # (R, B, N, A)
            if config.target_noise > 0:
                action = smoothed(action, config.target_noise * self._normal(*action.shape[1:]), float("inf"))
            next_q = twin_values(
                self.target_critic, seen.next_states, self._seen(action.flatten(2), (1,)).unsqueeze(2)
            ).squeeze(-1)
            target = td3_target(seen.rewards, seen.terminals, next_q, config.discount)  # (R, B)
        q = twin_values(
            self.critic_parameters, seen.states, self._seen(seen.actions.flatten(2), (1,)).unsqueeze(2)
        ).squeeze(-1)
        losses = (q - target).square().mean(dim=-1).sum(dim=0)  # of (2, R, B)
        if config.conservatism > 0:
            losses = losses + config.conservatism * (self._pushed(seen) - q.mean(dim=-1).sum(dim=0))
        return losses, q[0].mean(dim=-1)

    def _pushed(self, seen: _Views) -> Tensor:
        """(R,) Σ_k mean Σ_i w_i logsumexp_j (Q^k(s, a_{−i}, a_i^j) − log p)."""
        _, batch, n, size = seen.actions.shape
        log_density = uniform_log_density(size)
        candidates = self._uniform(batch, n, self._config.cql_samples, size)  # (R, B, N, K, A)
        joint = counterfactual_actions(seen.actions, candidates)  # (R, B, N, K, N · A)
        joint = self._seen(joint, (1, 3)).flatten(1, 2)  # (R, B · N, K, N · A), each agent's by themselves
        states = seen.states.repeat_interleave(n, dim=1)  # (R, B · N, S)
        if self._config.weights == "uniform":  # then a mean over batch and agents
            density = joint.new_full((1, 1, 1), log_density)
            return pushed_up(self.critic_parameters, states, joint, density)
        q = twin_values(self.critic_parameters, states, joint)  # (2, R, B · N, K)
        return weighted_push(q.view(2, -1, batch, n, q.shape[-1]), log_density, self.behaviour_weights(seen))

    @torch.no_grad()
    def behaviour_weights(self, seen: _Views) -> Tensor:
        """(R, B, N) by ln N(π_i; π_i, 0.2²) − ln β_i(π_i | s)."""
        assert self.vae is not None
        policy = self._act(self.actor_parameters, seen.observations)  # (R, B, N, A)
        noise = self._normal(self._config.behaviour_samples, policy.shape[1], self.vae.latent)  # (R, L, B, Z)
        log_behaviour = self.vae.log_likelihoods(seen.states, policy, noise.transpose(0, 1))  # (R, B, N)
        log_policy = gaussian_log_density(torch.zeros_like(policy), _POLICY_SIGMA)
        return divergence_weights(log_policy - log_behaviour, self._config.temperature)

    def actor_losses(self, seen: _Views) -> Tensor:
        """(R,) L_π."""
        policy = self._act(self.actor_parameters, seen.observations)  # (R, B, N, A)
        joint = counterfactual_actions(seen.actions, policy.unsqueeze(3)).squeeze(3)  # (R, B, N, N · A)
        joint = self._seen(joint, (1,))
        fixed = [p.detach() for p in self.critic_parameters]
        q = twin_values(fixed, seen.states, joint, first=True)[0]  # (R, B, N)
        return counterfactual_actor_loss(q, policy, self._config.output_penalty)

    def fit_behaviour(self, vae: BehaviourVAE, data: Sequence[OfflineDataset], run: Run) -> None:
        """Trains the model of the data, which stays as it is from then on."""
        config, replicas = self._config, range(len(data))
        adam = torch.optim.Adam(vae.parameters(), lr=config.behaviour_learning_rate, fused=True)
        batches = joint_transitions(
            data,
            [run.generator("cfcql/behaviour-batches", r) for r in replicas],
            batch_size=config.behaviour_batch_size,
            updates=config.behaviour_updates,
            device=run.device,
        )
        parameters: list[Tensor] = list(vae.parameters())
        for done, batch in enumerate(batches, start=1):
            seen = self.views(batch)
            loss = vae.loss(seen.states, seen.actions.flatten(2), self._normal(seen.states.shape[1], vae.latent))
            descend(adam, parameters, loss, len(replicas), 0.0)
            if done % 200 == 0 or done == config.behaviour_updates:
                run.report(done, config.behaviour_updates, f"behaviour_loss {loss.detach().nanmean():.4g}")
        self.vae = vae.requires_grad_(False)

    def views(self, batch: TransitionBatch) -> _Views:
        """The batch, scaled and joined."""
        seen, following = self.agent.scaler(batch.observations), self.agent.scaler(batch.next_observations)
        return _Views(
            seen,
            joint_state(seen, batch.states),
            unit_actions(batch.actions, self._spec.action),
            team_reward(batch.rewards, self._spec.team_reward),
            following,
            joint_state(following, batch.next_states),
            batch.terminals,
        )

    def _act(self, parameters: Sequence[Tensor], observations: Tensor) -> Tensor:
        """π(o) in [−1, 1] of scaled observations (R, B, N, D): (R, B, N, A)."""
        replicas, batch, n, _ = observations.shape
        raw = perceptron(parameters, observations.transpose(1, 2).flatten(0, 1))  # (R · N, B, A)
        return raw.tanh().view(replicas, n, batch, -1).transpose(1, 2)

    def _seen(self, actions: Tensor, batch: tuple[int, ...]) -> Tensor:
        """Joint actions as the critics get them; `batch` are the axes of the batch."""
        return standardised(actions, batch) if self._config.batch_norm else actions

    def _normal(self, *shape: int) -> Tensor:
        """Standard normal values (R, *shape), those of replica r from generator r."""
        drawn = np.stack([g.standard_normal(shape, dtype=np.float32) for g in self._generators])
        return torch.from_numpy(drawn).to(self.actor_parameters[0])  # device and precision

    def _uniform(self, *shape: int) -> Tensor:
        """Values in U(−1, 1), (R, *shape), those of replica r from generator r."""
        drawn = np.stack([g.random(shape, dtype=np.float32) for g in self._generators])
        return torch.from_numpy(drawn).to(self.actor_parameters[0]).mul_(2).sub_(1)
