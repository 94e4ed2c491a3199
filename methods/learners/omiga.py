"""`omiga`: implicit global-to-local value regularisation (Wang et al. 2023)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.algorithms.joint import joint_state, state_size, team_reward, unit_actions
from methods.algorithms.training import Losses, descend
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run, require
from methods.data.batches import TransitionBatch
from methods.networks.agents import MLPAgent, with_agent_id
from methods.networks.heads import masked_log_softmax
from methods.networks.mixers import LinearMixer
from methods.networks.stacked import StackedMLP
from methods.objectives.omiga import (
    Mixture,
    policy_loss,
    q_target,
    scaled_advantage,
    tanh_gaussian_log_density,
    value_loss,
)
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OMIGAConfig:
    """Values of OMIGA's repository, which has multi-agent MuJoCo and, on another branch, SMAC."""

    alpha: float = 10.0  # temperature; OMIGA's repository, both branches
    hidden: int = 256  # of two layers in Q, V and the policy; the same
    mixer_hidden: int = 64  # the same
    learning_rate: float = 5e-4  # of three Adams; the same
    discount: float = 0.99  # the same
    polyak: float = 0.005  # ρ of target Q, V and mixer; the same
    max_grad_norm: float = 1.0  # of each replica's Q with mixer, V, policy; the same; OffPyMARL: 10. 0: no clipping
    batch_size: int = 128  # transitions; the same; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    reward_scale: float | None = (
        None  # rewards are divided by it; None: a step's share of the expert's return (inferred)
    )
    normalise: bool | None = None  # z-score of observations by the original data; None: of continuous tasks (inferred)

    def __post_init__(self) -> None:
        for name in ("hidden", "mixer_hidden", "batch_size", "updates"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(whole, "omiga", f"{name}={value}", "a whole number, 1 or more")
        for name in ("alpha", "learning_rate"):
            value = getattr(self, name)
            require(0 < value < float("inf"), "omiga", f"{name}={value}", "a finite number above 0")
        require(0 <= self.discount <= 1, "omiga", f"discount={self.discount}", "a number in [0, 1]")
        require(0 < self.polyak <= 1, "omiga", f"polyak={self.polyak}", "a number in (0, 1]")
        require(self.max_grad_norm >= 0, "omiga", f"max_grad_norm={self.max_grad_norm}", "0 or more")
        scale = self.reward_scale
        require(scale is None or 0 < scale < float("inf"), "omiga", f"reward_scale={scale}", "a finite number above 0")
        require(self.normalise in (None, True, False), "omiga", f"normalise={self.normalise}", "true or false")

    def scale(self, spec: TaskSpec) -> float:
        """What rewards are divided by: z is clipped at ±10, so that values must be of the order of α."""
        if self.reward_scale is not None:
            return self.reward_scale
        references = spec.score_references
        return 1.0 if references is None else max(abs(references.expert_return) / spec.episode_limit, 1e-6)


class OMIGA(TransitionLearner[OMIGAConfig]):
    """Q_tot and V_tot are one linear mix with the same weights; V is learned in-sample, policies by weighted cloning.

    z_i = w̄_i / α (Q̄_i − V_i); L_V = mean [exp(z − M) + exp(−M) w̄ V / α]; L_π = −mean exp(z) log π;
    L_Q = mean (Σ w Q + b − y)² with y = r + γ (1 − e) (Σ w̄' V̄' + b̄'). The team's reward is the task's. All networks are
    shared by the agents, which are told apart by their number; policies see single observations.
    """

    Config = OMIGAConfig
    version = 1
    name: ClassVar[str] = "omiga"

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> MLPAgent:
        """Logits of a categorical, or means and log standard deviations of a squashed Gaussian."""
        outputs = spec.action.size * (1 if spec.action.discrete else 2)
        return MLPAgent(spec, self.config.hidden, True, generators, outputs)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> OMIGATrainer:
        """Reports `q_loss`, `v_loss`, `policy_loss`, and `clipped`, the share of z at its limits."""
        spec, config, replicas = data[0].spec, self.config, range(len(data))
        agent = self.new_agent(spec, [run.generator("omiga/policy", r) for r in replicas])
        if not spec.action.discrete if config.normalise is None else config.normalise:
            agent.scaler.fit(data, run.original)
        values = Values(spec, config, [run.generator("omiga/values", r) for r in replicas])
        return OMIGATrainer(config, spec, agent.to(run.device), values.to(run.device))


class Values(nn.Module):
    """Q_i, V_i and the mixer of R teams."""

    def __init__(self, spec: TaskSpec, config: OMIGAConfig, generators: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self.discrete = spec.action.discrete
        seen, a, h = spec.obs_dim + spec.n_agents, spec.action.size, config.hidden
        self.q_net = StackedMLP((seen, h, h, a) if self.discrete else (seen + a, h, h, 1), generators)
        self.v_net = StackedMLP((seen, h, h, 1), generators)
        k = state_size(spec.n_agents, spec.obs_dim, spec.state_dim)
        self.mixer = LinearMixer(k, config.mixer_hidden, spec.n_agents, generators)

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q_i(o_i, a_i): scaled observations (R, B, N, D), actions of the task -> (R, B, N)."""
        x = with_agent_id(observations)
        if self.discrete:
            return _each(self.q_net, x).gather(-1, actions[..., None])[..., 0]
        return _each(self.q_net, torch.cat([x, actions], dim=-1))[..., 0]

    def v(self, observations: Tensor) -> Tensor:
        """V_i(o_i): (R, B, N, D) -> (R, B, N)."""
        return _each(self.v_net, with_agent_id(observations))[..., 0]

    def mixture(self, states: Tensor) -> Mixture:
        """Weights and bias at (R, B, K)."""
        return Mixture(*self.mixer(states))


def _each(net: StackedMLP, x: Tensor) -> Tensor:
    """One network for all agents: (R, B, N, F) -> (R, B, N, out)."""
    y: Tensor = net(x.flatten(1, 2))
    return y.view(*x.shape[:3], -1)


class OMIGATrainer:
    """Policy, values, their targets and three optimisers."""

    def __init__(self, config: OMIGAConfig, spec: TaskSpec, agent: MLPAgent, values: Values) -> None:
        self.agent, self.values = agent, values
        self.target = copy.deepcopy(values).requires_grad_(False)
        self._config, self._spec, self._scale = config, spec, config.scale(spec)
        self._groups = [
            list(agent.net.parameters()),
            [*values.q_net.parameters(), *values.mixer.parameters()],
            list(values.v_net.parameters()),
        ]
        self._adams = [torch.optim.Adam(group, lr=config.learning_rate, fused=True) for group in self._groups]

    def losses(self, batch: TransitionBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of policy, Q with mixer, and V, from one set of weights, and the share of z that is clipped; (R,) each."""
        config, action = self._config, self._spec.action
        seen, following = self.agent.scaler(batch.observations), self.agent.scaler(batch.next_observations)
        actions = batch.actions if action.discrete else unit_actions(batch.actions, action)
        states, next_states = joint_state(seen, batch.states), joint_state(following, batch.next_states)
        with torch.no_grad():
            reward = team_reward(batch.rewards, self._spec.team_reward) / self._scale
            mixture = self.target.mixture(next_states)
            y = q_target(reward, batch.terminals, self.target.v(following), mixture, config.discount)
            weights, q_bar = self.target.mixture(states).weights, self.target.q(seen, actions)
        of_q = (self.values.mixture(states).total(self.values.q(seen, actions)) - y).square().mean(dim=1)
        v = self.values.v(seen)
        z = scaled_advantage(q_bar, v, weights, config.alpha)
        of_v = value_loss(z, v, weights, config.alpha)
        raw = self.agent(batch.observations)  # scales by itself
        if not action.discrete:
            log_p = tanh_gaussian_log_density(raw, actions)
        else:
            assert batch.available is not None
            log_p = masked_log_softmax(raw, batch.available).gather(-1, actions[..., None])[..., 0]
        clipped = (z.detach().abs() >= 10).to(z.dtype).mean(dim=(1, 2))
        return policy_loss(z, log_p), of_q, of_v, clipped

    def update(self, batch: TransitionBatch) -> Losses:
        """Policy, Q with mixer, V, then the targets."""
        *losses, clipped = self.losses(batch)
        for loss, group, adam in zip(losses, self._groups, self._adams, strict=True):  # no loss reads another's group
            descend(adam, group, loss, len(loss), self._config.max_grad_norm)
        with torch.no_grad():
            targets: list[Tensor] = list(self.target.parameters())
            current: list[Tensor] = list(self.values.parameters())
            torch._foreach_lerp_(targets, current, self._config.polyak)
        return {"policy_loss": losses[0], "q_loss": losses[1], "v_loss": losses[2], "clipped": clipped}
