"""What learners of sequences share: whole episodes or windows for recurrent agents, single transitions for others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from torch import Tensor

from methods.algorithms.reward_units import HasRewardScale, in_units, reward_scale
from methods.algorithms.training import Trainer, final_losses, train
from methods.algorithms.transition_learner import require_transitions
from methods.base import Arrays, Learner, Run, UnsupportedError
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences, window_sequences
from methods.networks.agents import GRUAgent, MLPAgent
from methods.networks.policy import AgentPolicy
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

Agent = GRUAgent | MLPAgent
ConfigT = TypeVar("ConfigT", bound=HasRewardScale)


class SequenceTrainer(Trainer[SequenceBatch], Protocol):
    """Networks of R teams that learn together from sequences."""

    @property
    def agents(self) -> tuple[Agent, ...]:
        """What a policy is made of, what chooses first."""


class SequenceLearner(Learner[ConfigT], ABC):
    """A learner that is trained on sequences; without memory they are single transitions, T = 1.

    Attributes:
        name: in messages.
        stream: of the batches; None: the learner's own. Learners that share one compare on the same batches.
        acting: how many networks a policy consists of.
        least_scale: what rewards are at least divided by, see `reward_scale`.
    """

    name: ClassVar[str]
    stream: ClassVar[str | None] = None
    acting: int = 1
    least_scale: ClassVar[float] = 1.0

    @abstractmethod
    def recurrent(self, spec: TaskSpec) -> bool:
        """Whether agents have a memory, and batches are whole episodes."""

    def window(self, spec: TaskSpec) -> int:
        """Steps of the sequences of recurrent agents, cut anywhere from episodes; 0: whole episodes."""
        return 0

    @abstractmethod
    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """Updates and sequences a batch where the protocol says nothing."""

    @abstractmethod
    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """One network of what acts, of R teams, freshly drawn."""

    @abstractmethod
    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> SequenceTrainer:
        """Everything that learns, before the first update; what is of replica r is drawn from `run.seeds[r]` alone."""

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

    def needs_episodes(self, spec: TaskSpec) -> str | None:
        """Agents with a memory do."""
        if not self.recurrent(spec):
            return None
        return (
            "the data are single transitions, which a recurrent policy cannot be trained on. "
            f"Use {self.name}[memory=none], or an augmenter that returns episodes."
        )

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> AgentPolicy:
        """Trains R teams at once. Diagnosis: `final_<loss>` for each loss that the trainer reports."""
        spec, replicas = require_transitions(self, data, run), len(data)
        if self.recurrent(spec):
            self._require_episodes(data)
        data = in_units(data, reward_scale(self.config.reward_scale, spec, self.least_scale))
        trainer, (updates, batch_size) = self.new_trainer(data, run), self.own_budget(spec)
        updates = updates if run.budget.updates is None else run.budget.updates
        batches = self.batches(data, run, f"{self.stream or self.name}/batches", updates, batch_size)

        def freeze(told: Sequence[Mapping[str, float | None]] = ()) -> AgentPolicy:
            return self.new_policy(trainer.agents, spec, replicas, run.device, told)

        losses = train(batches, trainer, run, updates, freeze)
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

    def batches(
        self, data: Sequence[OfflineDataset], run: Run, stream: str, updates: int, batch_size: int
    ) -> Iterator[SequenceBatch]:
        """Batches of `batch_size` sequences, unless the protocol sets it, drawn from the run's stream of that name."""
        spec = data[0].spec
        make = episode_sequences if self.recurrent(spec) else transition_sequences
        if self.recurrent(spec) and self.window(spec) > 0:
            make = partial(window_sequences, steps=self.window(spec))
        return make(
            data,
            [run.generator(stream, r) for r in range(len(data))],
            batch_size=batch_size if run.budget.batch_size is None else run.budget.batch_size,
            updates=updates,
            device=run.device,
        )

    def longest(self, data: Sequence[OfflineDataset]) -> list[int]:
        """Steps of the longest sequence that each replica can meet."""
        spec = data[0].spec
        if not self.recurrent(spec):
            return [1] * len(data)
        most = [int(d.lengths.max()) for d in data]
        return [min(steps, self.window(spec) or steps) for steps in most]

    def _require_episodes(self, data: Sequence[OfflineDataset]) -> None:
        spec = data[0].spec
        if spec.episode_limit > 1 and any(int(d.lengths.max()) == 1 for d in data):
            raise UnsupportedError(f"{spec.id}: {self.needs_episodes(spec)}")


def shared_agent(
    spec: TaskSpec,
    hidden: int,
    memory: str,
    generators: Sequence[np.random.Generator],
    *,
    last_action: bool = False,
    relu_after: bool = False,
) -> Agent:
    """One network for all agents, (o, id) -> H -> ReLU -> GRU H -> A; with memory "none" H -> H in the GRU's place.

    The other arguments are those of `GRUAgent`, and mean nothing without memory.
    """
    if memory == "gru":
        return GRUAgent(spec, hidden, last_action, generators, relu_after)
    return MLPAgent(spec, hidden, True, generators)


def unrolled(agent: Agent, observations: Tensor, last_actions: Tensor | None = None) -> Tensor:
    """What an agent gives at each row of sequences that start afresh: (R, T, B, N, D) -> (R, T, B, N, A).

    `last_actions` (R, T, B, N), A where there is none yet, for agents that see them.
    """
    if isinstance(agent, GRUAgent):
        raw: Tensor = agent(observations, last_actions)[0]
        return raw
    flat: Tensor = agent(observations.flatten(1, 2))  # (R, T · B, N, A)
    return flat.view(*observations.shape[:-1], -1)
