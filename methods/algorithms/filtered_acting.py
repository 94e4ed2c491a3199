"""Learners of discrete actions that may act on likely actions alone, as in BCQ."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from methods.algorithms.reward_units import HasRewardScale
from methods.algorithms.sequence_learner import Agent, SequenceLearner
from methods.networks.filtered_policy import FilteredPolicy
from methods.networks.policy import AgentPolicy
from tasks.spec import TaskSpec


class FilterConfig(HasRewardScale, Protocol):
    """What such a learner's config has beside others."""

    @property
    def threshold(self) -> float:
        """ζ, the least p(a) / max p of a likely action."""

    @property
    def filter_at_eval(self) -> bool:
        """Whether acting is filtered."""


ConfigT = TypeVar("ConfigT", bound=FilterConfig)


class FilteredActing(SequenceLearner[ConfigT], ABC):
    """A learner whose trainer's `agents` are values and a behaviour network alike."""

    def __init__(self, config: ConfigT | None = None) -> None:
        super().__init__(config)
        self.acting = 2 if self.config.filter_at_eval else 1

    def new_policy(
        self,
        agents: Sequence[Agent],
        spec: TaskSpec,
        replicas: int,
        device: str,
        told: Sequence[Mapping[str, float | None]] = (),
    ) -> AgentPolicy:
        """Greedy among likely actions, or without `filter_at_eval` among all available ones."""
        if not self.config.filter_at_eval:
            return super().new_policy(agents, spec, replicas, device, told)
        return FilteredPolicy(agents[0], agents[1], self.config.threshold, spec, replicas, device, told)
