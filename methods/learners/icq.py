"""`icq`: implicit constraint Q-learning for teams, MA-ICQ (Yang et al. 2021), without memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.joint import joint_state, state_size, team_reward, unit_actions
from methods.algorithms.training import Losses, descend
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run, UnsupportedError, require
from methods.data.batches import TransitionBatch, steps_with_next
from methods.networks.agents import MLPAgent
from methods.networks.heads import masked_log_softmax
from methods.networks.icq_critic import ICQCritic
from methods.objectives.icq import (
    batch_weights,
    critic_loss,
    effective_share,
    expected_value,
    policy_loss,
    q_target,
)
from methods.objectives.omiga import tanh_gaussian_log_density
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The fields of a config that differ by kind of task, all decided."""

    hidden: int
    critic_hidden: int
    learning_rate: float
    critic_learning_rate: float
    polyak: float
    target_every: int
    batch_size: int


PARTICLES = Sizes(
    hidden=64,  # OMAR, App. B.1, whose MA-ICQ stands on the networks of its TD3
    critic_hidden=64,  # the same
    learning_rate=3e-4,  # ICQ's repository, single agents
    critic_learning_rate=3e-4,  # the same
    polyak=0.005,  # the same
    target_every=1,  # the same
    batch_size=1024,  # OMAR, App. B.1
)
LOCOMOTION = replace(
    PARTICLES,
    hidden=256,  # ICQ's repository, single agents, which have four layers in the policy
    critic_hidden=256,  # the same
    batch_size=256,  # OMAR's repository, HalfCheetah
)
CHOICES = Sizes(
    hidden=64,  # ICQ's repository, SMAC
    critic_hidden=256,  # the same
    learning_rate=5e-4,  # the same, of RMSprop
    critic_learning_rate=1e-4,  # the same
    polyak=1.0,  # the same: targets are copies
    target_every=200,  # OG-MARL; ICQ's repository: 600 steps of a critic that takes one a time step
    batch_size=256,  # inferred: the source has 32 episodes
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ICQConfig:
    """None: as `CHOICES` (discrete actions), `LOCOMOTION` (mamujoco) or `PARTICLES` say."""

    alpha: float = 0.1  # temperature of the policy's weights; ICQ's repository, SMAC
    beta: float = 1000.0  # temperature of the targets' weights; the same
    hidden: int | None = None  # of two layers in the policy
    critic_hidden: int | None = None  # of two layers in the critic
    mixer_hidden: int = 32  # embedding of the mixer; ICQ's repository, SMAC
    learning_rate: float | None = None  # of the policy's Adam
    critic_learning_rate: float | None = None  # of the Adam of critic and mixer
    discount: float = 0.99  # ICQ's repository
    polyak: float | None = None  # ρ, share of the new weights in the targets
    target_every: int | None = None  # updates between two steps of the targets
    max_grad_norm: float = 10.0  # of each replica's policy, and of critic with mixer; OffPyMARL; ICQ: 20; 0: none
    batch_size: int | None = None  # transitions; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    reward_scale: float | None = None  # rewards are divided by it; None: see `scale` (inferred)
    normalise: bool | None = None  # z-score of observations by the original data; None: of continuous tasks (inferred)

    def __post_init__(self) -> None:
        for name in ("hidden", "critic_hidden", "mixer_hidden", "target_every", "batch_size", "updates"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(value is None or whole, "icq", f"{name}={value}", "a whole number, 1 or more")
        for name in ("alpha", "beta", "learning_rate", "critic_learning_rate", "reward_scale"):
            value = getattr(self, name)
            require(value is None or 0 < value < float("inf"), "icq", f"{name}={value}", "a finite number above 0")
        polyak = self.polyak
        require(polyak is None or 0 < polyak <= 1, "icq", f"polyak={polyak}", "a number in (0, 1]")
        require(0 <= self.discount <= 1, "icq", f"discount={self.discount}", "a number in [0, 1]")
        require(self.max_grad_norm >= 0, "icq", f"max_grad_norm={self.max_grad_norm}", "0 or more")
        require(self.normalise in (None, True, False), "icq", f"normalise={self.normalise}", "true or false")

    def sizes(self, spec: TaskSpec) -> Sizes:
        """All fields decided for one task."""
        continuous = LOCOMOTION if spec.family == "mamujoco" else PARTICLES
        own = {f.name: getattr(self, f.name) for f in fields(Sizes) if getattr(self, f.name) is not None}
        return replace(CHOICES if spec.action.discrete else continuous, **own)

    def scale(self, spec: TaskSpec) -> float:
        """What rewards are divided by: a step's share of the expert's return, never less than 1.

        α is meant for advantages of the order of SMAC's rewards, which stay as they are; a larger spread of values
        would put all the weight of a batch on one transition, and make the weights of targets far from 1.
        """
        if self.reward_scale is not None:
            return self.reward_scale
        references = spec.score_references
        return 1.0 if references is None else max(abs(references.expert_return) / spec.episode_limit, 1.0)


class ICQ(TransitionLearner[ICQConfig]):
    """Values of recorded actions alone, Q_tot = Σ_i k_i(s) Q_i; policies by cloning, weighted by advantage.

    L_Q = ⟨(Q_tot(s, a) − y)²⟩, y = r + γ (1 − e) w Q̄_tot(s', a') with the recorded a' and w = n softmax_b(Q̄_tot / β);
    L_π = −⟨k_i ω_i log π_i(a_i)⟩, ω_i = n softmax_b(A_i / α), A_i = Q_i(a_i) − E_π Q_i, or − Q_i(mean action) where
    actions are continuous. The softmax runs over the batch. Networks are shared by the agents, which are told apart by
    their number; policies see single observations.

    A transition at a time limit or a cut has no recorded a': it has weight 0 everywhere. Sampling a' from a cloned
    policy instead is not built.
    """

    Config = ICQConfig
    version = 1
    name: ClassVar[str] = "icq"
    needs_next_actions: ClassVar[bool] = True

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's, or those of the kind of task."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> MLPAgent:
        """Logits of a categorical, or means and log standard deviations of a squashed Gaussian."""
        outputs = spec.action.size * (1 if spec.action.discrete else 2)
        return MLPAgent(spec, self.config.sizes(spec).hidden, True, generators, outputs)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> ICQTrainer:
        """Reports `critic_loss`, `policy_loss`, `used` and `effective`; see `ICQTrainer.update`.

        Raises:
            UnsupportedError: for data in which no target is known.
        """
        for own in {id(d): d for d in data}.values():
            _require_targets(own)
        spec, config, replicas = data[0].spec, self.config, range(len(data))
        agent = self.new_agent(spec, [run.generator("icq/policy", r) for r in replicas])
        if not spec.action.discrete if config.normalise is None else config.normalise:
            agent.scaler.fit(data, run.original)
        critic = ICQCritic(
            spec,
            (state_size(spec.n_agents, spec.obs_dim, spec.state_dim), config.sizes(spec).critic_hidden),
            config.mixer_hidden,
            [run.generator("icq/critic", r) for r in replicas],
        )
        return ICQTrainer(config, spec, agent.to(run.device), critic.to(run.device))


def _require_targets(data: OfflineDataset) -> None:
    if data.spec.episode_limit > 1 and not (steps_with_next(data) | data.terminals).any():
        raise UnsupportedError(
            f"{data.spec.id}: icq learns from the action recorded at the next step, and of {data.n_steps} transitions "
            "none has one or ends truly: they are single steps. Use data of whole episodes or segments, or a learner "
            "that needs no next action, such as omiga."
        )


@dataclass(frozen=True, slots=True)
class View:
    """A batch as the networks see it.

    Shapes: observations (R, B, N, D), scaled; actions, in [−1, 1] or choices, like next_actions; states (R, B, K);
    reward (R, B), of the team; ends (R, B), nothing follows; has_next (R, B), a' is recorded; raw and available as they
    came.
    """

    raw: Tensor
    available: Tensor | None
    observations: Tensor
    actions: Tensor
    states: Tensor
    reward: Tensor
    ends: Tensor
    next_observations: Tensor
    next_actions: Tensor
    next_states: Tensor
    has_next: Tensor

    @property
    def valid(self) -> Tensor:
        """(R, B) where the target is known."""
        return self.ends | self.has_next


class ICQTrainer:
    """Policy, critic with mixer, its target and two optimisers."""

    def __init__(self, config: ICQConfig, spec: TaskSpec, agent: MLPAgent, critic: ICQCritic) -> None:
        self.agent, self.critic = agent, critic
        self.target = copy.deepcopy(critic).requires_grad_(False)
        self._config, self._spec, self._scale, self._sizes = config, spec, config.scale(spec), config.sizes(spec)
        self._of_policy, self._of_critic = list(agent.net.parameters()), list(critic.parameters())
        self._policy_adam = torch.optim.Adam(self._of_policy, lr=self._sizes.learning_rate, fused=True)
        self._critic_adam = torch.optim.Adam(self._of_critic, lr=self._sizes.critic_learning_rate, fused=True)
        self._done = 0

    def view(self, batch: TransitionBatch) -> View:
        """The batch scaled. In a task of one step nothing ever follows, whatever ended it."""
        assert batch.next_actions is not None
        assert batch.has_next is not None
        action, scaler = self._spec.action, self.agent.scaler
        seen, following = scaler(batch.observations), scaler(batch.next_observations)
        return View(
            raw=batch.observations,
            available=batch.available,
            observations=seen,
            actions=batch.actions if action.discrete else unit_actions(batch.actions, action),
            states=joint_state(seen, batch.states),
            reward=team_reward(batch.rewards, self._spec.team_reward) / self._scale,
            ends=torch.ones_like(batch.terminals) if self._spec.episode_limit == 1 else batch.terminals,
            next_observations=following,
            next_actions=batch.next_actions if action.discrete else unit_actions(batch.next_actions, action),
            next_states=joint_state(following, batch.next_states),
            has_next=batch.has_next,
        )

    def critic_loss(self, seen: View) -> Tensor:
        """(R,) of critic with mixer."""
        with torch.no_grad():
            next_q = self.target.q(seen.next_states, seen.next_observations, seen.next_actions)
            following = self.target.total(seen.next_states, next_q)  # (R, B)
            weights = batch_weights(following, seen.has_next, self._config.beta)
            y = q_target(seen.reward, seen.ends, following, weights, self._config.discount)
        q = self.critic.q(seen.states, seen.observations, seen.actions)
        return critic_loss(self.critic.total(seen.states, q), y, seen.valid)

    def policy_loss(self, seen: View) -> tuple[Tensor, Tensor]:
        """(R,) of the policies, and the weights ω (R, B, N)."""
        raw = self.agent(seen.raw)  # scales by itself
        size, critic = self._spec.action.size, self.critic
        if self._spec.action.discrete:
            assert seen.available is not None
            # A softmax over all actions, masked and renormalised, is the softmax over the available ones.
            log_all = masked_log_softmax(raw, seen.available)  # (R, B, N, A)
            log_p = log_all.gather(-1, seen.actions[..., None])[..., 0]
        else:
            log_p = tanh_gaussian_log_density(raw, seen.actions)  # (R, B, N)
        with torch.no_grad():
            if self._spec.action.discrete:
                values = critic.values(seen.states, seen.observations)
                q, baseline = values.gather(-1, seen.actions[..., None])[..., 0], expected_value(values, log_all)
            else:
                q = critic.q(seen.states, seen.observations, seen.actions)
                baseline = critic.q(seen.states, seen.observations, raw[..., :size].tanh())
            weights = batch_weights(q - baseline, seen.valid, self._config.alpha)  # (R, B, N)
            mixture = critic.mixer(seen.states)  # (R, B, N)
        return policy_loss(log_p, weights, mixture, seen.valid), weights

    def update(self, batch: TransitionBatch) -> Losses:
        """Critic with mixer, then the target where it is due, then the policies.

        `used` is the share of transitions whose target is known, `effective` that of the batch which ω leaves in use.
        """
        seen = self.view(batch)
        of_critic = self.critic_loss(seen)
        descend(self._critic_adam, self._of_critic, of_critic, len(of_critic), self._config.max_grad_norm)
        self._done += 1
        if self._done % self._sizes.target_every == 0:
            with torch.no_grad():
                targets: list[Tensor] = list(self.target.parameters())
                current: list[Tensor] = list(self._of_critic)
                torch._foreach_lerp_(targets, current, self._sizes.polyak)
        of_policy, weights = self.policy_loss(seen)
        descend(self._policy_adam, self._of_policy, of_policy, len(of_policy), self._config.max_grad_norm)
        return {
            "critic_loss": of_critic,
            "policy_loss": of_policy,
            "used": seen.valid.to(weights.dtype).mean(dim=1),
            "effective": effective_share(weights, seen.valid),
        }
