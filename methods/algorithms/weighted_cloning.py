"""What OMIGA and MA-ICQ share: one policy network for the team, which clones recorded actions by their weight.

Actions of either kind; a memory on episodes of discrete tasks, or single transitions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from methods.algorithms.reward_units import HasRewardScale
from methods.algorithms.sequence_learner import Agent, SequenceLearner, unrolled
from methods.base import Run, UnsupportedError
from methods.data.sequences import SequenceBatch
from methods.networks.agents import GRUAgent, MLPAgent
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

ConfigT = TypeVar("ConfigT", bound=HasRewardScale)


class WeightedCloningLearner(SequenceLearner[ConfigT], ABC):
    """A learner whose policies are densities or probabilities, learned by weighted cloning."""

    @abstractmethod
    def memory(self, spec: TaskSpec) -> str:
        """What the policies of a task have, "gru" or "none"."""

    @abstractmethod
    def policy_width(self, spec: TaskSpec) -> int:
        """H, of the policy's hidden layers."""

    def recurrent(self, spec: TaskSpec) -> bool:
        """As the config says.

        Raises:
            UnsupportedError: for a memory where actions are continuous.
        """
        asked = self.memory(spec) == "gru"
        if asked and not spec.action.discrete:
            raise UnsupportedError(
                f"{spec.id}: {self.name}: memory=gru is for discrete actions, and those of this task are continuous. "
                f"Use {self.name}[memory=none]."
            )
        return asked

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """Logits of a categorical, or means and log standard deviations of a squashed Gaussian.

        With memory o_i ⊕ last action ⊕ id -> H -> GRU H -> A, else o_i ⊕ id -> H -> H -> A or 2 A, ReLU between.
        """
        width = self.policy_width(spec)
        if self.recurrent(spec):
            return GRUAgent(spec, width, True, generators)
        outputs = spec.action.size * (1 if spec.action.discrete else 2)
        return MLPAgent(spec, width, True, generators, outputs)

    def first_agent(
        self, data: Sequence[OfflineDataset], run: Run, normalise: bool | None, stream: str = "policy"
    ) -> Agent:
        """The policies before the first update, on the device of the run, drawn from its stream of that name.

        `normalise`: z-scores of observations by the original data; None: where actions are continuous.
        """
        spec = data[0].spec
        agent = self.new_agent(spec, [run.generator(f"{self.name}/{stream}", r) for r in range(len(data))])
        if not spec.action.discrete if normalise is None else normalise:
            agent.scaler.fit(data, run.original)
        return agent.to(run.device)


def policy_outputs(agent: Agent, batch: SequenceBatch) -> Tensor:
    """What the policies give at each step, not at the final rows: (R, T, B, N, outputs)."""
    last = None if batch.last_actions is None else batch.last_actions[:, :-1]
    return unrolled(agent, batch.observations[:, :-1], last)
