"""Values of single agents mixed into that of the team, learned from sequences: what QMIX-CQL and QMIX-BCQ share.

Sizes and steps are those of OG-MARL, whose implementations EAQ used. What the learners differ in is their trainer.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.algorithms.joint import joint_state, state_size, team_reward
from methods.algorithms.reward_units import require_reward_scale
from methods.algorithms.sequence_learner import Agent, SequenceLearner, shared_agent, unrolled
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.base import Run, require
from methods.data.sequences import SequenceBatch
from methods.networks.heads import greedy_choice
from methods.networks.mixers import MixingNet, QMixer
from methods.objectives.q_learning import td_target
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec, TeamReward


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSettings:
    """How a value team learns: Adam's rate, γ, updates between two copies into the target, the L2 norm that the
    gradient of a replica is clipped to (0: it is not), and how per-agent rewards become the team's.
    """

    learning_rate: float
    discount: float
    target_every: int
    max_grad_norm: float
    reward: TeamReward


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
    window: int = 0  # steps from a random one on in place of whole episodes, for "gru"; OG-MARL: 20; 0: whole episodes
    batch_size: int | None = None  # None: 32 episodes or windows (OG-MARL: 32 windows of 20 steps), 640 transitions
    updates: int = 100_000  # OG-MARL, qmix_bcq.yaml; EAQ: 15,000; unless the protocol sets it
    reward: str = "mean"  # over agents where the task sums them, OG-MARL; "task": as the task does
    normalise: bool = False  # z-score of observations by the original data; OG-MARL has none
    reward_scale: float | None = None  # rewards are divided by it; None: by a step's share of the expert's (inferred)

    def __post_init__(self) -> None:
        owner = "qmix"
        require_reward_scale(owner, self.reward_scale)
        require(self.memory in ("gru", "none"), owner, f"memory={self.memory}", "gru or none")
        require(self.reward in ("mean", "task"), owner, f"reward={self.reward}", "mean or task")
        for name in ("hidden", "mixer_embed", "mixer_hidden", "target_every", "batch_size", "updates"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            optional = value is None and name == "batch_size"
            require(optional or whole, owner, f"{name}={value}", "a whole number, 1 or more")
        window = self.window
        require(isinstance(window, int) and window >= 0, owner, f"window={window}", "a whole number, 0 or more")
        require(window == 0 or self.memory == "gru", owner, f"window={window} with memory=none", "memory=gru")
        rate = self.learning_rate
        require(0 < rate < float("inf"), owner, f"learning_rate={rate}", "a finite number above 0")
        require(0 <= self.discount <= 1, owner, f"discount={self.discount}", "a number in [0, 1]")
        require(isinstance(self.normalise, bool), owner, f"normalise={self.normalise}", "true or false")

    def settings(self, spec: TaskSpec) -> ValueSettings:
        """What a trainer needs; no clipping, as OG-MARL."""
        return ValueSettings(
            learning_rate=self.learning_rate,
            discount=self.discount,
            target_every=self.target_every,
            max_grad_norm=0.0,
            reward="mean" if self.reward == "mean" and spec.team_reward == "sum" else spec.team_reward,
        )


ConfigT = TypeVar("ConfigT", bound=ValueTeamConfig)


class ValueTeam(nn.Module):
    """Q_i of the agents and their mixer, of R teams."""

    def __init__(self, agent: Agent, mixer: QMixer) -> None:
        super().__init__()
        self.agent, self.mixer = agent, mixer

    def each(self, observations: Tensor, last_actions: Tensor | None = None) -> Tensor:
        """Q_i(τ_i, ·): (R, T, B, N, D) -> (R, T, B, N, A); see `unrolled`."""
        return unrolled(self.agent, observations, last_actions)

    def mixing(self, observations: Tensor, states: Tensor | None) -> MixingNet:
        """At (R, T, B, N, D) and the task's states (R, T, B, K), if it has any."""
        net: MixingNet = self.mixer(joint_state(self.agent.scaler(observations), states))
        return net


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

    def __init__(self, settings: ValueSettings, team: ValueTeam) -> None:
        self.team, self.target = team, copy.deepcopy(team).requires_grad_(False)
        self.settings, self.done = settings, 0
        self.adam = new_adam(team, settings.learning_rate)

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

    def parts(self) -> Parts:
        """See `Trainer`. A trainer with more networks or draws adds them."""
        return Parts(named_tensors(team=self.team, target=self.target), self.optimisers)

    def update(self, batch: SequenceBatch) -> Losses:
        """One gradient update of everything; after every `target_every` of them the target is a copy again."""
        losses, told = self.losses(batch)
        for loss, adam in zip(losses, self.optimisers, strict=True):
            parameters = [p for group in adam.param_groups for p in group["params"]]
            descend(adam, parameters, loss, len(loss), self.settings.max_grad_norm)
        self.done += 1
        if self.done % self.settings.target_every == 0:
            self.target.load_state_dict(self.team.state_dict())
        return told

    def evaluate(self, batch: SequenceBatch, allowed: Tensor) -> Evaluation:
        """Values and double-Q targets; a*_i is the best action for Q_i among `allowed` (R, T + 1, B, N, A)."""
        q = self.team.each(batch.observations, batch.last_actions)  # (R, T + 1, B, N, A)
        states = None if batch.states is None else batch.states[:, :-1]
        mixing = self.team.mixing(batch.observations[:, :-1], states)
        recorded = mixing.total(chosen(q[:, :-1], batch.actions))  # (R, T, B)
        with torch.no_grad():
            following = None if batch.states is None else batch.states[:, 1:]
            best = greedy_choice(q[:, 1:], allowed[:, 1:])  # (R, T, B, N)
            target_q = self.target.each(batch.observations, batch.last_actions)[:, 1:]
            next_q = chosen(target_q, best)  # (R, T, B, N)
            next_total = self.target.mixing(batch.observations[:, 1:], following).total(next_q)  # (R, T, B)
            target = self.targets(team_reward(batch.rewards, self.settings.reward), next_total, batch)
        return Evaluation(q, mixing, recorded, target)

    def targets(self, reward: Tensor, next_total: Tensor, batch: SequenceBatch) -> Tensor:
        """(R, T, B) y of the team's rewards and the values of what follows, by one step."""
        return td_target(reward, batch.terminals, next_total, self.settings.discount)


def new_adam(net: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of a network."""
    return torch.optim.Adam(list(net.parameters()), lr=learning_rate, fused=True)


def chosen(q: Tensor, actions: Tensor) -> Tensor:
    """Q_i(a_i) of one action each: (..., N, A), (..., N) -> (..., N)."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class ValueTeamLearner(SequenceLearner[ConfigT], ABC):
    """A learner of discrete actions whose agents act by their own values, greedily.

    Random streams are named alike in all learners of this kind, so that they compare on the same weights and batches.
    """

    stream: ClassVar[str | None] = "qmix"

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """Only a finite number of actions can be compared by value."""
        if spec.action.discrete:
            return None
        return "compares the values of all actions, and those of this task are continuous"

    def recurrent(self, spec: TaskSpec) -> bool:
        """As the config says."""
        return self.config.memory == "gru"

    def window(self, spec: TaskSpec) -> int:
        """As the config says."""
        return self.config.window

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.batch_size or (32 if self.config.memory == "gru" else 640)

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """(o, id) -> H -> ReLU -> GRU H -> ReLU -> A, one network for all agents; without memory H -> H in its place.

        OG-MARL's network: no last action among the inputs, and a ReLU behind the GRU, which PyMARL's has not.
        """
        return shared_agent(spec, self.config.hidden, self.config.memory, generators, relu_after=True)

    def new_team(self, data: Sequence[OfflineDataset], run: Run) -> ValueTeam:
        """Agents and mixer before the first update."""
        agent = self.new_agent(data[0].spec, [run.generator("qmix/agent", r) for r in range(len(data))])
        if self.config.normalise:
            agent.scaler.fit(data, run.original)
        return new_team(agent, (self.config.mixer_embed, self.config.mixer_hidden), data, run)


def new_team(agent: Agent, mixer: tuple[int, int], data: Sequence[OfflineDataset], run: Run) -> ValueTeam:
    """Agents with a fresh mixer of these sizes, embedding and hidden, on the device of the run."""
    spec = data[0].spec
    k = state_size(spec.n_agents, spec.obs_dim, spec.state_dim)
    own = [run.generator("qmix/mixer", r) for r in range(len(data))]
    return ValueTeam(agent, QMixer(k, spec.n_agents, *mixer, own)).to(run.device)
