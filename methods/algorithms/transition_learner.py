"""What all memoryless learners with critics share: batches of transitions in, a perceptron for each agent out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from torch import nn

from methods.algorithms.reward_units import HasRewardScale, in_units, reward_scale
from methods.algorithms.training import Trainer, final_losses, train
from methods.base import Arrays, Learner, Run, UnsupportedError
from methods.data.batches import TransitionBatch, joint_transitions
from methods.networks.policy import AgentPolicy
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

ConfigT = TypeVar("ConfigT", bound=HasRewardScale)


class TransitionTrainer(Trainer[TransitionBatch], Protocol):
    """Networks of R teams that learn together from transitions."""

    @property
    def agent(self) -> nn.Module:
        """What acts, with R · copies slices along the first axis of every parameter and buffer."""


class NamedLearner(Protocol):
    """What `require_transitions` asks of a learner."""

    name: ClassVar[str]

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """See `Learner.unsupported`."""


class TransitionLearner(Learner[ConfigT], ABC):
    """A learner that is trained on single transitions, drawn uniformly from all data.

    Attributes:
        name: in messages, and of its random streams.
        policy_class: what acts with the agents that it trains.
        least_scale: what rewards are at least divided by, see `reward_scale`.
    """

    name: ClassVar[str]
    policy_class: ClassVar[type[AgentPolicy]] = AgentPolicy
    least_scale: ClassVar[float] = 1.0

    @abstractmethod
    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """Updates and transitions a batch where the protocol says nothing."""

    @abstractmethod
    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> nn.Module:
        """The actors of R teams, freshly drawn."""

    @abstractmethod
    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> TransitionTrainer:
        """Everything that learns, before the first update; what is of replica r is drawn from `run.seeds[r]` alone."""

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> AgentPolicy:
        """Trains R teams at once. Diagnosis: `final_<loss>` for each loss that the trainer reports."""
        spec, replicas = require_transitions(self, data, run), len(data)
        data = in_units(data, reward_scale(self.config.reward_scale, spec, self.least_scale))
        trainer, (updates, batch_size) = self.new_trainer(data, run), self.own_budget(spec)
        updates = updates if run.budget.updates is None else run.budget.updates
        batches = joint_transitions(
            data,
            [run.generator(f"{self.name}/batches", r) for r in range(replicas)],
            batch_size=batch_size if run.budget.batch_size is None else run.budget.batch_size,
            updates=updates,
            device=run.device,
        )

        def freeze() -> AgentPolicy:
            return self.policy_class(trainer.agent, spec, replicas, run.device)

        losses = train(batches, trainer, run, updates, freeze)
        told = [final_losses(losses, r) for r in range(replicas)]
        policy = self.policy_class(trainer.agent, spec, replicas, run.device, told)
        run.snapshot(updates, policy)
        return policy

    def load_policy(self, states: Sequence[Arrays], spec: TaskSpec, device: str) -> AgentPolicy:
        """The stored policies, acting together."""
        unused = [np.random.default_rng(0) for _ in states]  # for weights that are overwritten at once
        policy = self.policy_class(self.new_agent(spec, unused), spec, len(states), device)
        policy.load(states)
        return policy


def require_transitions(learner: NamedLearner, data: Sequence[OfflineDataset], run: Run) -> TaskSpec:
    """The task of the data.

    Raises:
        UsageError: unless there is one dataset a seed.
        UnsupportedError: for a task that the learner is not defined on, or data without a transition.
        DataError: for rewards that are not finite.
    """
    if len(data) != len(run.seeds) or not data:
        raise UsageError(f"{learner.name}: {len(data)} datasets for {len(run.seeds)} seeds, expected one each.")
    spec = data[0].spec
    if reason := learner.unsupported(spec):
        raise UnsupportedError(f"{spec.id}: {learner.name}: {reason}.")
    for own in {id(d): d for d in data}.values():
        if own.n_steps == 0:
            raise UnsupportedError(f"{spec.id}: there is no transition to learn from.")
        wrong = ~np.isfinite(own.rewards)
        if wrong.any():
            first = int(np.flatnonzero(wrong.any(axis=1))[0])
            raise DataError(
                f"{spec.id}: {int(wrong.sum())} rewards are not finite, the first at step {first}. "
                "A value cannot be learned from them: repair the data, or use bc."
            )
    return spec
