"""CFCQL for continuous actions: a critic of the team, an actor an agent (Shao et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.joint import joint_state, state_size, team_reward, unit_actions
from methods.algorithms.training import Losses, Parts, descend, named_tensors, pretrain
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.cfcql.config import CFCQLConfig
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
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_POLICY_SIGMA = 0.2  # of the policies whose distance from the behaviour is measured (CFCQL's repository)


class ContinuousCFCQL(TransitionLearner[CFCQLConfig]):
    """One critic of the team, kept down where a single agent leaves the data and the others stay with it.

    y = r + γ (1 − e) min_k Q̄^k(s', clip(π̄(o') + ξ)), ξ ~ N(0, 0.05²), r the team's reward by the task's rule;
    L_Q = Σ_k mean (Q^k − y)² + α mean [Σ_i w_i logsumexp_j (Q^k(s, a_{−i}, a_i^j) − log p) − Q^k(s, a)];
    L_π = −mean_{b,i} Q^1(s, a_{−i}, π_i(o_i)) + 1e-3 Σ_i mean u_i², π_i = tanh u_i. `updates` counts steps
    of the critic: the first of every `ca_ratio` comes with a step of the actors, the last with one of the targets.
    """

    Config = CFCQLConfig
    version = 2
    name: ClassVar[str] = "cfcql"

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's, or those of the family."""
        return self.config.updates, self.config.settings(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> MLPAgent:
        """One actor an agent, weights of the last layer in U(±3e-3) (OMAR's repository)."""
        agent = MLPAgent(spec, self.config.settings(spec).hidden, False, generators)
        agent.shrink_last_layer(3e-3)
        return agent

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> CFCQLTrainer:
        """Reports `critic_loss`, `actor_loss` and `q`, the mean Q^1 of recorded actions.

        With weights=behaviour the model of the data is trained here.
        """
        spec, settings, replicas = data[0].spec, self.config.settings(data[0].spec), range(len(data))
        agent = self.new_agent(spec, [run.generator("cfcql/actor", r) for r in replicas]).to(run.device)
        if settings.normalise:
            agent.scaler.fit(data, run.original)
        state, joint = state_size(spec.n_agents, spec.obs_dim, spec.state_dim), spec.n_agents * spec.action.size
        own = [run.generator("cfcql/critics", r) for r in replicas]
        critics = TwinCritics((state, joint, settings.hidden), own, copies=1).to(run.device)
        noise = [run.generator("cfcql/noise", r) for r in replicas]
        trainer = CFCQLTrainer(self.config, spec, agent, critics, noise)
        if settings.weights == "behaviour":
            own = [run.generator("cfcql/behaviour", r) for r in replicas]
            vae = BehaviourVAE((state, joint, settings.behaviour_hidden), own).to(run.device)
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
        self._generators, self._settings, self.done = generators, config.settings(spec), 0
        self.actor_parameters: list[Tensor] = list(agent.net.parameters())
        self.critic_parameters: list[Tensor] = list(critics.parameters())
        self.target_actor = [p.detach().clone() for p in self.actor_parameters]
        self.target_critic = [p.detach().clone() for p in self.critic_parameters]
        rate = self._settings.learning_rate
        self._critic_adam = torch.optim.Adam(self.critic_parameters, lr=rate, fused=True)
        self._actor_adam = torch.optim.Adam(self.actor_parameters, lr=rate, fused=True)

    def update(self, batch: TransitionBatch) -> Losses:
        """A step of the critic; with the first of every `ca_ratio` one of the actors, after the last the targets."""
        config, max_grad_norm, replicas = self._config, self._settings.max_grad_norm, len(self._generators)
        first = self.done % config.ca_ratio == 0
        seen = self.views(batch)
        loss, q = self.critic_losses(seen)
        descend(self._critic_adam, self.critic_parameters, loss, replicas, max_grad_norm)
        told = {"critic_loss": loss.detach(), "q": q.detach()}
        if first:
            loss = self.actor_losses(seen)
            groups = replicas * self._spec.n_agents  # every actor is clipped on its own
            descend(self._actor_adam, self.actor_parameters, loss, groups, max_grad_norm)
            told["actor_loss"] = loss.detach()
        self.done += 1
        if self.done % config.ca_ratio == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self.target_actor, self.actor_parameters, self._settings.polyak)
                torch._foreach_lerp_(self.target_critic, self.critic_parameters, self._settings.polyak)
        return told

    def parts(self) -> Parts:
        """With the targets and all noise. The model of the data does not change any more."""
        groups = {
            "actor": self.actor_parameters,
            "critic": self.critic_parameters,
            "target_actor": self.target_actor,
            "target_critic": self.target_critic,
        }
        tensors = {f"{name}.{i}": tensor for name, group in groups.items() for i, tensor in enumerate(group)}
        return Parts(tensors, (self._critic_adam, self._actor_adam), self._generators)

    def critic_losses(self, seen: _Views) -> tuple[Tensor, Tensor]:
        """(R,) L_Q, and (R,) the mean of Q^1(s, a)."""
        config = self._config
        with torch.no_grad():
            action = self._act(self.target_actor, seen.next_observations)  # (R, B, N, A)
            if config.target_noise > 0:
                action = smoothed(action, config.target_noise * self.normal(*action.shape[1:]), float("inf"))
            next_q = twin_values(
                self.target_critic, seen.next_states, self._seen(action.flatten(2), (1,)).unsqueeze(2)
            ).squeeze(-1)
            target = td3_target(seen.rewards, seen.terminals, next_q, config.discount)  # (R, B)
        q = twin_values(
            self.critic_parameters, seen.states, self._seen(seen.actions.flatten(2), (1,)).unsqueeze(2)
        ).squeeze(-1)
        losses = (q - target).square().mean(dim=-1).sum(dim=0)  # of (2, R, B)
        conservatism = self._settings.conservatism
        if conservatism > 0:
            losses = losses + conservatism * (self._pushed(seen) - q.mean(dim=-1).sum(dim=0))
        return losses, q[0].mean(dim=-1)

    def _pushed(self, seen: _Views) -> Tensor:
        """(R,) Σ_k mean Σ_i w_i logsumexp_j (Q^k(s, a_{−i}, a_i^j) − log p)."""
        _, batch, n, size = seen.actions.shape
        log_density = uniform_log_density(size)
        candidates = self._uniform(batch, n, self._config.cql_samples, size)  # (R, B, N, K, A)
        joint = counterfactual_actions(seen.actions, candidates)  # (R, B, N, K, N · A)
        joint = self._seen(joint, (1, 3)).flatten(1, 2)  # (R, B · N, K, N · A), each agent's by themselves
        states = seen.states.repeat_interleave(n, dim=1)  # (R, B · N, S)
        if self._settings.weights == "uniform":  # then a mean over batch and agents
            density = joint.new_full((1, 1, 1), log_density)
            return pushed_up(self.critic_parameters, states, joint, density)
        q = twin_values(self.critic_parameters, states, joint)  # (2, R, B · N, K)
        return weighted_push(q.view(2, -1, batch, n, q.shape[-1]), log_density, self.behaviour_weights(seen))

    @torch.no_grad()
    def behaviour_weights(self, seen: _Views) -> Tensor:
        """(R, B, N) by ln N(π_i; π_i, 0.2²) − ln β_i(π_i | s)."""
        assert self.vae is not None
        policy = self._act(self.actor_parameters, seen.observations)  # (R, B, N, A)
        noise = self.normal(self._config.behaviour_samples, policy.shape[1], self.vae.latent)  # (R, L, B, Z)
        log_behaviour = self.vae.log_likelihoods(seen.states, policy, noise.transpose(0, 1))  # (R, B, N)
        log_policy = gaussian_log_density(torch.zeros_like(policy), _POLICY_SIGMA)
        return divergence_weights(log_policy - log_behaviour, self._settings.temperature)

    def actor_losses(self, seen: _Views) -> Tensor:
        """(R,) L_π."""
        outputs = self._outputs(self.actor_parameters, seen.observations)
        policy = outputs.tanh()  # (R, B, N, A)
        joint = counterfactual_actions(seen.actions, policy.unsqueeze(3)).squeeze(3)  # (R, B, N, N · A)
        joint = self._seen(joint, (1,))
        fixed = [p.detach() for p in self.critic_parameters]
        q = twin_values(fixed, seen.states, joint, first=True)[0]  # (R, B, N)
        penalised = outputs if self._config.penalised == "outputs" else policy
        return counterfactual_actor_loss(q, penalised, self._config.output_penalty)

    def fit_behaviour(self, vae: BehaviourVAE, data: Sequence[OfflineDataset], run: Run) -> None:
        """Trains the model of the data, which stays as it is from then on."""
        settings = self._settings
        batches = joint_transitions(
            data,
            [run.generator("cfcql/behaviour-batches", r) for r in range(len(data))],
            batch_size=settings.behaviour_batch_size,
            updates=settings.behaviour_updates,
            device=run.device,
        )
        trainer = BehaviourTrainer(vae, settings.behaviour_learning_rate, self)
        pretrain("behaviour", batches, trainer, run, settings.behaviour_updates)
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
        return self._outputs(parameters, observations).tanh()

    def _outputs(self, parameters: Sequence[Tensor], observations: Tensor) -> Tensor:
        """What the actors give before their tanh, shaped like `_act`."""
        replicas, batch, n, _ = observations.shape
        raw = perceptron(parameters, observations.transpose(1, 2).flatten(0, 1))  # (R · N, B, A)
        return raw.view(replicas, n, batch, -1).transpose(1, 2)

    def _seen(self, actions: Tensor, batch: tuple[int, ...]) -> Tensor:
        """Joint actions as the critics get them; `batch` are the axes of the batch."""
        return standardised(actions, batch) if self._config.batch_norm else actions

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values (R, *shape), those of replica r from generator r."""
        drawn = np.stack([g.standard_normal(shape, dtype=np.float32) for g in self._generators])
        return torch.from_numpy(drawn).to(self.actor_parameters[0])  # device and precision

    def _uniform(self, *shape: int) -> Tensor:
        """Values in U(−1, 1), (R, *shape), those of replica r from generator r."""
        drawn = np.stack([g.random(shape, dtype=np.float32) for g in self._generators])
        return torch.from_numpy(drawn).to(self.actor_parameters[0]).mul_(2).sub_(1)


class BehaviourTrainer:
    """Trains a model of the data.

    Args:
        vae: the model.
        learning_rate: of its Adam.
        team: whose view of batches, and whose noise, it learns from.
    """

    def __init__(self, vae: BehaviourVAE, learning_rate: float, team: CFCQLTrainer) -> None:
        self.vae, self.done, self._team = vae, 0, team
        self._parameters: list[Tensor] = list(vae.parameters())
        self._adam = torch.optim.Adam(self._parameters, lr=learning_rate, fused=True)

    def update(self, batch: TransitionBatch) -> Losses:
        """One step of Adam; `loss` is that of the VAE."""
        seen, vae = self._team.views(batch), self.vae
        loss = vae.loss(seen.states, seen.actions.flatten(2), self._team.normal(seen.states.shape[1], vae.latent))
        descend(self._adam, self._parameters, loss, len(loss), 0.0)
        self.done += 1
        return {"loss": loss}

    def parts(self) -> Parts:
        """With the noise of the team, which goes on from there."""
        return Parts(named_tensors(vae=self.vae), (self._adam,), self._team.parts().generators)
