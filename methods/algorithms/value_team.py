"""Values of single agents mixed into that of the team, learned from sequences: what QMIX-CQL and QMIX-BCQ share.

Sizes and steps are those of OG-MARL, whose implementations EAQ used. What the learners differ in is their trainer.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.algorithms.joint import joint_state, state_size, team_reward
from methods.algorithms.training import Losses, descend, final_losses, train
from methods.algorithms.transition_learner import require_transitions
from methods.base import Arrays, Learner, Run, UnsupportedError, require
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.networks.agents import GRUAgent, MLPAgent
from methods.networks.heads import greedy_choice
from methods.networks.mixers import MixingNet, QMixer
from methods.networks.policy import AgentPolicy
from methods.objectives.q_learning import td_target
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec, TeamReward

Agent = GRUAgent | MLPAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueTeamConfig:
    """What QMIX-CQL and QMIX-BCQ have in common; OG-MARL's values, the same in all its states since 2024."""

    memory: str = "gru"  # on whole episodes, OG-MARL; "none": a ReLU layer in its place, on transitions (inferred)
    hidden: int = 64  # of both layers before the last; OG-MARL, qmix_bcq.yaml
    mixer_embed: int = 32  # the same
    mixer_hidden: int = 64  # of the hypernetworks; the same
    learning_rate: float = 3e-4  # of Adam, otherwise with torch's defaults; the same
    discount: float = 0.99  # the same
    target_every: int = 200  # updates between two copies into the targets; the same
    batch_size: int | None = None  # None: 32 episodes (OG-MARL: 32 windows of 20 steps), 640 transitions
    updates: int = 100_000  # OG-MARL, qmix_bcq.yaml; EAQ: 15,000; unless the protocol sets it
    reward: str = "mean"  # over agents where the task sums them, OG-MARL; "task": as the task does
    normalise: bool = False  # z-score of observations by the original data; OG-MARL has none

    def __post_init__(self) -> None:
        owner = "qmix"
        require(self.memory in ("gru", "none"), owner, f"memory={self.memory}", "gru or none")
        require(self.reward in ("mean", "task"), owner, f"reward={self.reward}", "mean or task")
        for name in ("hidden", "mixer_embed", "mixer_hidden", "target_every", "batch_size", "updates"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            optional = value is None and name == "batch_size"
            require(optional or whole, owner, f"{name}={value}", "a whole number, 1 or more")
        rate = self.learning_rate
        require(0 < rate < float("inf"), owner, f"learning_rate={rate}", "a finite number above 0")
        require(0 <= self.discount <= 1, owner, f"discount={self.discount}", "a number in [0, 1]")
        require(isinstance(self.normalise, bool), owner, f"normalise={self.normalise}", "true or false")

    def reward_rule(self, spec: TaskSpec) -> TeamReward:
        """How per-agent rewards become the team's."""
        return "mean" if self.reward == "mean" and spec.team_reward == "sum" else spec.team_reward


ConfigT = TypeVar("ConfigT", bound=ValueTeamConfig)


class ValueTeam(nn.Module):
    """Q_i of the agents and their mixer, of R teams."""

    def __init__(self, agent: Agent, mixer: QMixer) -> None:
        super().__init__()
        self.agent, self.mixer = agent, mixer

    def each(self, observations: Tensor) -> Tensor:
        """Q_i(τ_i, ·): (R, T, B, N, D) -> (R, T, B, N, A)."""
        return unrolled(self.agent, observations)

    def mixing(self, observations: Tensor, states: Tensor | None) -> MixingNet:
        """At (R, T, B, N, D) and the task's states (R, T, B, K), if it has any."""
        net: MixingNet = self.mixer(joint_state(self.agent.scaler(observations), states))
        return net


def unrolled(agent: Agent, observations: Tensor) -> Tensor:
    """What an agent gives at each row of sequences that start afresh: (R, T, B, N, D) -> (R, T, B, N, A)."""
    if isinstance(agent, GRUAgent):
        raw: Tensor = agent(observations)[0]
        return raw
    flat: Tensor = agent(observations.flatten(1, 2))  # (R, T · B, N, A)
    return flat.view(*observations.shape[:-1], -1)


class Evaluation(NamedTuple):
    """Of one batch: q (R, T + 1, B, N, A) of all agents and actions; the mixing network at the T steps; recorded
    (R, T, B), Q_tot of the actions of the data; target (R, T, B), y without a gradient.
    """

    q: Tensor
    mixing: MixingNet
    recorded: Tensor
    target: Tensor


class ValueTrainer(ABC):
    """A value team, its target, its optimiser, and the count of updates."""

    def __init__(self, config: ValueTeamConfig, spec: TaskSpec, team: ValueTeam) -> None:
        self.team, self.target = team, copy.deepcopy(team).requires_grad_(False)
        self.spec, self._config, self._done = spec, config, 0
        self.adam = new_adam(team, config)

    @property
    def agents(self) -> tuple[Agent, ...]:
        """What a policy is made of, the agents' values first."""
        return (self.team.agent,)

    @abstractmethod
    def losses(self, batch: SequenceBatch) -> tuple[list[Tensor], Losses]:
        """From one set of weights: what each optimiser lowers, and what is reported by name; (R,) each."""

    @property
    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """One for each of the first that `losses` returns."""
        return (self.adam,)

    def update(self, batch: SequenceBatch) -> Losses:
        """One gradient update of everything; after every `target_every` of them the target is a copy again."""
        losses, told = self.losses(batch)
        for loss, adam in zip(losses, self.optimisers, strict=True):
            parameters = [p for group in adam.param_groups for p in group["params"]]
            descend(adam, parameters, loss, len(loss), 0.0)  # no clipping, as OG-MARL
        self._done += 1
        if self._done % self._config.target_every == 0:
            self.target.load_state_dict(self.team.state_dict())
        return told

    def evaluate(self, batch: SequenceBatch, allowed: Tensor) -> Evaluation:
        """Values and double-Q targets; a*_i is the best action for Q_i among `allowed` (R, T + 1, B, N, A)."""
        q = self.team.each(batch.observations)  # (R, T + 1, B, N, A)
        states = None if batch.states is None else batch.states[:, :-1]
        mixing = self.team.mixing(batch.observations[:, :-1], states)
        recorded = mixing.total(chosen(q[:, :-1], batch.actions))  # (R, T, B)
        with torch.no_grad():
            following = None if batch.states is None else batch.states[:, 1:]
            best = greedy_choice(q[:, 1:], allowed[:, 1:])  # (R, T, B, N)
            next_q = chosen(self.target.each(batch.observations)[:, 1:], best)  # (R, T, B, N)
            next_total = self.target.mixing(batch.observations[:, 1:], following).total(next_q)  # (R, T, B)
            reward = team_reward(batch.rewards, self._config.reward_rule(self.spec))
            target = td_target(reward, batch.terminals, next_total, self._config.discount)
        return Evaluation(q, mixing, recorded, target)


def new_adam(net: nn.Module, config: ValueTeamConfig) -> torch.optim.Optimizer:
    """The optimiser of a network."""
    return torch.optim.Adam(list(net.parameters()), lr=config.learning_rate, fused=True)


def chosen(q: Tensor, actions: Tensor) -> Tensor:
    """Q_i(a_i) of one action each: (..., N, A), (..., N) -> (..., N)."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class ValueTeamLearner(Learner[ConfigT], ABC):
    """A learner of discrete actions whose agents act by their own values, greedily.

    Attributes:
        name: in messages. Random streams are named alike in all learners of this kind, so that they compare on the
            same weights and batches.
        acting: how many networks a policy consists of.
    """

    name: ClassVar[str]
    acting: int = 1

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """Only a finite number of actions can be compared by value."""
        if spec.action.discrete:
            return None
        return "compares the values of all actions, and those of this task are continuous"

    @abstractmethod
    def new_trainer(self, team: ValueTeam, data: Sequence[OfflineDataset], run: Run) -> ValueTrainer:
        """Everything that learns, before the first update, on the device of the run."""

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> AgentPolicy:
        """Trains R teams at once. Diagnosis: `final_<loss>` for each loss that the trainer reports."""
        spec, replicas, config = require_transitions(self, data, run), len(data), self.config
        if config.memory == "gru":
            self._require_episodes(data)
        trainer = self.new_trainer(self._new_team(data, run), data, run)
        updates = config.updates if run.budget.updates is None else run.budget.updates

        def freeze(told: Sequence[Mapping[str, float | None]] = ()) -> AgentPolicy:
            return self.new_policy(trainer.agents, spec, replicas, run.device, told)

        losses = train(self._batches(data, run, updates), trainer.update, freeze, run, updates)
        policy = freeze([final_losses(losses, r) for r in range(replicas)])
        run.snapshot(updates, policy)
        return policy

    def load_policy(self, states: Sequence[Arrays], spec: TaskSpec, device: str) -> AgentPolicy:
        """The stored policies, acting together."""
        unused = [np.random.default_rng(0) for _ in states]  # for weights that are overwritten at once
        agents = [self.new_agent(spec, unused) for _ in range(self.acting)]
        policy = self.new_policy(agents, spec, len(states), device)
        policy.load(states)
        return policy

    def new_policy(
        self,
        agents: Sequence[Agent],
        spec: TaskSpec,
        replicas: int,
        device: str,
        told: Sequence[Mapping[str, float | None]] = (),
    ) -> AgentPolicy:
        """A frozen copy of what the trainer's `agents` are."""
        return AgentPolicy(agents[0], spec, replicas, device, told)

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """(o, id) -> H -> ReLU -> GRU H -> ReLU -> A, one network for all agents; without memory H -> H in its place.

        OG-MARL's network: no last action among the inputs, and a ReLU behind the GRU, which PyMARL's has not.
        """
        if self.config.memory == "gru":
            return GRUAgent(spec, self.config.hidden, False, generators, relu_after=True)
        return MLPAgent(spec, self.config.hidden, True, generators)

    def _new_team(self, data: Sequence[OfflineDataset], run: Run) -> ValueTeam:
        spec, config, replicas = data[0].spec, self.config, range(len(data))
        agent = self.new_agent(spec, [run.generator("qmix/agent", r) for r in replicas])
        if config.normalise:
            agent.scaler.fit(data, run.original)
        mixer = QMixer(
            state_size(spec.n_agents, spec.obs_dim, spec.state_dim),
            spec.n_agents,
            config.mixer_embed,
            config.mixer_hidden,
            [run.generator("qmix/mixer", r) for r in replicas],
        )
        return ValueTeam(agent, mixer).to(run.device)

    def _batches(self, data: Sequence[OfflineDataset], run: Run, updates: int) -> Iterator[SequenceBatch]:
        recurrent = self.config.memory == "gru"
        own = self.config.batch_size or (32 if recurrent else 640)
        return (episode_sequences if recurrent else transition_sequences)(
            data,
            [run.generator("qmix/batches", r) for r in range(len(data))],
            batch_size=own if run.budget.batch_size is None else run.budget.batch_size,
            updates=updates,
            device=run.device,
        )

    def _require_episodes(self, data: Sequence[OfflineDataset]) -> None:
        spec = data[0].spec
        if spec.episode_limit > 1 and any(int(d.lengths.max()) == 1 for d in data):
            raise UnsupportedError(
                f"{spec.id}: the data are single transitions, which a recurrent policy cannot be trained on. "
                f"Use {self.name}[memory=none], or an augmenter that returns episodes."
            )
