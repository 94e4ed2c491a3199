"""What OMIGA trains: policies, Q_i and V_i with their mixer, and targets of these."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.algorithms.joint import joint_state, state_size, team_reward, unit_actions
from methods.algorithms.sequence_learner import Agent
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.algorithms.weighted_cloning import policy_outputs
from methods.data.sequences import SequenceBatch
from methods.learners.omiga.config import OMIGAConfig
from methods.networks.agents import with_agent_id
from methods.networks.heads import masked_log_softmax
from methods.networks.mixers import LinearMixer
from methods.networks.stacked import StackedMLP
from methods.objectives.cloning import masked_mean
from methods.objectives.densities import log_density
from methods.objectives.omiga import (
    Mixture,
    at_limit,
    policy_loss,
    q_loss,
    q_target,
    scaled_advantage,
    value_loss,
)
from tasks.spec import TaskSpec


class Values(nn.Module):
    """Q_i, V_i and the mixer of R teams. Inputs of Q_i and V_i are what `seen` makes, (R, ..., N, F)."""

    def __init__(self, spec: TaskSpec, config: OMIGAConfig, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.discrete, a, h = spec.action.discrete, spec.action.size, config.hidden
        n_in = spec.obs_dim + (a if config.memory == "gru" else 0) + spec.n_agents
        self.q_net = StackedMLP((n_in, h, h, a) if self.discrete else (n_in + a, h, h, 1), generators)
        self.v_net = StackedMLP((n_in, h, h, 1), generators)
        k = state_size(spec.n_agents, spec.obs_dim, spec.state_dim)
        self.mixer = LinearMixer(k, config.mixer_hidden, spec.n_agents, generators, relu=config.mixer_relu)
        self.n_actions = a

    def seen(self, observations: Tensor, last_actions: Tensor | None) -> Tensor:
        """o_i ⊕ id, or where there is a memory o_i ⊕ last action ⊕ id: scaled (R, ..., N, D) -> (R, ..., N, F)."""
        if last_actions is None:
            return with_agent_id(observations)
        one_hot = torch.eye(self.n_actions + 1, self.n_actions, device=observations.device)  # A, none yet, is zero
        return with_agent_id(torch.cat([observations, one_hot[last_actions]], dim=-1))

    def q(self, seen: Tensor, actions: Tensor) -> Tensor:
        """Q_i of actions (R, ..., N) or in [−1, 1] (R, ..., N, A) -> (R, ..., N)."""
        if self.discrete:
            return _each(self.q_net, seen).gather(-1, actions[..., None])[..., 0]
        return _each(self.q_net, torch.cat([seen, actions], dim=-1))[..., 0]

    def v(self, seen: Tensor) -> Tensor:
        """V_i: (R, ..., N)."""
        return _each(self.v_net, seen)[..., 0]

    def mixture(self, states: Tensor) -> Mixture:
        """Weights (R, ..., N) and bias (R, ...) at (R, ..., K)."""
        weights, bias = self.mixer(states.flatten(1, -2))  # (R, M, N), (R, M)
        return Mixture(weights.view(*states.shape[:-1], -1), bias.view(states.shape[:-1]))


def _each(net: StackedMLP, x: Tensor) -> Tensor:
    """One network for all agents: (R, ..., N, F) -> (R, ..., N, out)."""
    y: Tensor = net(x.flatten(1, -2))  # (R, M · N, out)
    return y.view(*x.shape[:-1], -1)


class OMIGATrainer:
    """Policy, values, their targets and three optimisers."""

    def __init__(self, config: OMIGAConfig, spec: TaskSpec, agent: Agent, values: Values) -> None:
        self.agent, self.values, self.done = agent, values, 0
        self.target = copy.deepcopy(values).requires_grad_(False)
        self._config, self._spec = config, spec
        self._groups = [
            list(agent.parameters()),
            [*values.q_net.parameters(), *values.mixer.parameters()],
            list(values.v_net.parameters()),
        ]
        self._adams = [torch.optim.Adam(group, lr=config.learning_rate, fused=True) for group in self._groups]

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The policies."""
        return (self.agent,)

    def parts(self) -> Parts:
        """See `Trainer`."""
        return Parts(named_tensors(agent=self.agent, values=self.values, target=self.target), self._adams)

    def losses(self, batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of policy, Q with mixer, and V, from one set of weights, and the share of z that is clipped; (R,) each."""
        config, action = self._config, self._spec.action
        observations = self.agent.scaler(batch.observations)  # (R, T + 1, B, N, D)
        states, seen = joint_state(observations, batch.states), self.values.seen(observations, batch.last_actions)
        actions = batch.actions if action.discrete else unit_actions(batch.actions, action)
        with torch.no_grad():
            reward = team_reward(batch.rewards, self._spec.team_reward)
            mixture = self.target.mixture(states)
            weights, following = mixture.weights[:, :-1], Mixture(mixture.weights[:, 1:], mixture.bias[:, 1:])
            y = q_target(reward, batch.terminals, self.target.v(seen[:, 1:]), following, config.discount)
            q_bar = self.target.q(seen[:, :-1], actions)
        total = self.values.mixture(states[:, :-1]).total(self.values.q(seen[:, :-1], actions))  # (R, T, B)
        v = self.values.v(seen[:, :-1])  # (R, T, B, N)
        z = scaled_advantage(q_bar, v, weights, config.alpha)
        return (
            policy_loss(z, self._log_p(batch, actions), batch.valid),
            q_loss(total, y, batch.valid),
            value_loss(z, v, weights, config.alpha, batch.valid),
            masked_mean(at_limit(z).to(z.dtype).mean(dim=-1), batch.valid),
        )

    def _log_p(self, batch: SequenceBatch, actions: Tensor) -> Tensor:
        """(R, T, B, N) log π_i(a_i)."""
        raw = policy_outputs(self.agent, batch)
        if not self._spec.action.discrete:
            return log_density(self._config.density_of(self._spec), raw, actions)
        assert batch.available is not None
        return masked_log_softmax(raw, batch.available[:, :-1]).gather(-1, actions[..., None])[..., 0]

    def update(self, batch: SequenceBatch) -> Losses:
        """Policy, Q with mixer, V, then the targets."""
        *losses, clipped = self.losses(batch)
        for loss, group, adam in zip(losses, self._groups, self._adams, strict=True):  # no loss reads another's group
            descend(adam, group, loss, len(loss), self._config.max_grad_norm)
        with torch.no_grad():
            targets: list[Tensor] = list(self.target.parameters())
            current: list[Tensor] = list(self.values.parameters())
            torch._foreach_lerp_(targets, current, self._config.polyak)
        self.done += 1
        return {"policy_loss": losses[0], "q_loss": losses[1], "v_loss": losses[2], "clipped": clipped}
