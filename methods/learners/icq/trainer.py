"""What MA-ICQ trains: policies, a critic with its mixer, and a target of that."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from methods.algorithms.sequence_learner import Agent
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.algorithms.weighted_cloning import policy_outputs
from methods.data.sequences import SequenceBatch
from methods.learners.icq.behaviour import ClonedBehaviour
from methods.learners.icq.config import ICQConfig
from methods.learners.icq.view import SingleSteps, View, view
from methods.networks.heads import masked_log_softmax
from methods.networks.icq_critic import ICQCritic
from methods.objectives.cloning import masked_mean
from methods.objectives.densities import log_density
from methods.objectives.icq import (
    batch_weights,
    critic_loss,
    effective_share,
    expected_value,
    policy_loss,
    q_target,
)
from tasks.spec import TaskSpec


class ICQTrainer:
    """Policy, critic with mixer, its target and two optimisers; `behaviour` stays as it is, None: none is needed."""

    def __init__(
        self,
        config: ICQConfig,
        spec: TaskSpec,
        agent: Agent,
        critic: ICQCritic,
        behaviour: ClonedBehaviour | None = None,
    ) -> None:
        self.behaviour, self.agent, self.critic, self.done = behaviour, agent, critic, 0
        self.target = copy.deepcopy(critic).requires_grad_(False)
        self._config, self._spec, self._sizes = config, spec, config.sizes(spec)
        self._of_policy, self._of_critic = list(agent.parameters()), list(critic.parameters())
        self._policy_adam = torch.optim.Adam(self._of_policy, lr=self._sizes.learning_rate, fused=True)
        self._critic_adam = torch.optim.Adam(self._of_critic, lr=self._sizes.critic_learning_rate, fused=True)

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The policies."""
        return (self.agent,)

    def parts(self) -> Parts:
        """See `Trainer`."""
        tensors = named_tensors(agent=self.agent, critic=self.critic, target=self.target)
        drawing = () if self.behaviour is None else self.behaviour.generators
        return Parts(tensors, (self._policy_adam, self._critic_adam), drawing)

    def view(self, batch: SequenceBatch) -> View:
        """See `methods.learners.icq.view`; what was done behind transitions that stand alone is drawn."""
        if self.behaviour is not None and isinstance(batch, SingleSteps):
            batch = self.behaviour.completed(batch)
        return view(batch, self.agent.scaler, self._spec)

    def critic_loss(self, seen: View) -> Tensor:
        """(R,) of critic with mixer, all known steps at once."""
        with torch.no_grad():
            next_states = seen.states[:, 1:]
            next_q = self.target.q(next_states, seen.observations[:, 1:], seen.next_actions)
            following = self.target.total(next_states, next_q)  # (R, T, B)
            y = q_target(
                seen.reward,
                seen.ends,
                following,
                batch_weights(following, seen.has_next, self._config.beta),
                seen.known,
                discount=self._config.discount,
                trace=self._config.trace,
            )
        states = seen.states[:, :-1]
        q = self.critic.q(states, seen.observations[:, :-1], seen.actions)
        return critic_loss(self.critic.total(states, q), y, seen.known)

    def policy_loss(self, batch: SequenceBatch, seen: View) -> tuple[Tensor, Tensor]:
        """(R,) of the policies, and the weights ω (R, T, B, N)."""
        raw = policy_outputs(self.agent, batch)
        states, observations = seen.states[:, :-1], seen.observations[:, :-1]
        if self._spec.action.discrete:
            assert batch.available is not None
            # A softmax over all actions, masked and renormalised, is the softmax over the available ones.
            log_all = masked_log_softmax(raw, batch.available[:, :-1])  # (R, T, B, N, A)
            log_p = log_all.gather(-1, seen.actions[..., None])[..., 0]
        else:
            log_p = log_density(self._config.density, raw, seen.actions)  # (R, T, B, N)
        with torch.no_grad():
            if self._spec.action.discrete:
                values = self.critic.values(states, observations)
                q, baseline = values.gather(-1, seen.actions[..., None])[..., 0], expected_value(values, log_all)
            else:
                q = self.critic.q(states, observations, seen.actions)
                baseline = self.critic.q(states, observations, raw[..., : self._spec.action.size].tanh())
            weights = batch_weights(q - baseline, seen.known, self._sizes.alpha)  # (R, T, B, N)
            mixture = self.critic.mixture(states)  # (R, T, B, N)
        return policy_loss(log_p, weights, mixture, seen.known), weights

    def update(self, batch: SequenceBatch) -> Losses:
        """Critic with mixer, then the target where it is due, then the policies.

        `used` is the share of steps whose target is known, `effective` that of these which ω leaves in use.
        """
        seen = self.view(batch)
        of_critic = self.critic_loss(seen)
        descend(self._critic_adam, self._of_critic, of_critic, len(of_critic), self._config.max_grad_norm)
        self.done += 1
        if self.done % self._sizes.target_every == 0:
            with torch.no_grad():
                targets: list[Tensor] = list(self.target.parameters())
                current: list[Tensor] = list(self._of_critic)
                torch._foreach_lerp_(targets, current, self._sizes.polyak)
        of_policy, weights = self.policy_loss(batch, seen)
        descend(self._policy_adam, self._of_policy, of_policy, len(of_policy), self._config.max_grad_norm)
        return {
            "critic_loss": of_critic,
            "policy_loss": of_policy,
            "used": masked_mean(seen.known.to(weights.dtype), batch.valid),
            "effective": effective_share(weights, seen.known),
        }
