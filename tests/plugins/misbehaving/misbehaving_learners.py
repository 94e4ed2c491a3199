"""Learners that break the contract, one way each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import Arrays, LearnedPolicy, Learner, Run
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig:
    """Nothing to choose."""


class ConstantPolicy(LearnedPolicy):
    """Every agent always does `value`, of which it has one a replica."""

    def __init__(self, values: NDArray[np.float32], spec: TaskSpec, extra_agents: int = 0) -> None:
        self.values, self.spec, self.replicas, self.extra_agents = values, spec, len(values), extra_agents

    def act(self, observations: NDArray[np.float32], available_actions: Any, memory: Any = None) -> tuple[Any, Any]:
        shape = (*observations.shape[:2], self.spec.n_agents + self.extra_agents)
        if self.spec.action.discrete:
            chosen = np.zeros(shape, dtype=np.int64) if available_actions is None else available_actions.argmax(-1)
            finite = np.nan_to_num(self.values).astype(np.int64)[:, None, None]
            return (chosen + finite)[:, :, : shape[2]], None
        actions = np.zeros((*shape, self.spec.action.size), dtype=np.float32)
        return actions + self.values[:, None, None, None], None

    def state(self, replica: int) -> Arrays:
        return {"value": self.values[replica : replica + 1]}


class WellBehaved(Learner[NoConfig]):
    """Learns nothing: zero, or the first available action. The others change one thing."""

    Config = NoConfig
    version = 1
    value = 0.0

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        values = np.array([self.value if np.isfinite(d.observations).all() else np.nan for d in data], dtype=np.float32)
        policy = self.policy(values, data[0].spec)
        updates = run.budget.updates or 10
        for i in range(run.budget.snapshots):
            run.snapshot(round(updates * (i + 1) / run.budget.snapshots), policy)
        return policy

    def policy(self, values: NDArray[np.float32], spec: TaskSpec) -> LearnedPolicy:
        return ConstantPolicy(values, spec)

    def load_policy(self, states: Sequence[Arrays], spec: TaskSpec, device: str) -> LearnedPolicy:
        return self.policy(np.concatenate([state["value"] for state in states]), spec)


class Raises(WellBehaved):
    def fit(self, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        raise RuntimeError("the plugin fell over")


class ActsNaN(WellBehaved):
    """NaN actions although its parameters look fine; on discrete tasks it is well-behaved."""

    def policy(self, values: NDArray[np.float32], spec: TaskSpec) -> LearnedPolicy:
        policy = ConstantPolicy(values, spec)
        policy.state = lambda replica: {"value": values[replica : replica + 1] * 0}  # type: ignore[method-assign]
        policy.values = values * np.float32(np.nan)
        return policy


class Diverges(WellBehaved):
    value = float("nan")


class WrongShape(WellBehaved):
    """Acts for one agent more than there are (continuous tasks)."""

    def policy(self, values: NDArray[np.float32], spec: TaskSpec) -> LearnedPolicy:
        return ConstantPolicy(values, spec, extra_agents=1)


class ActionsOutOfRange(WellBehaved):
    value = 9.0


class NeverEnds(WellBehaved):
    def fit(self, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        while True:
            time.sleep(0.1)


class Entangled(WellBehaved):
    """What one seed learns depends on how many train beside it."""

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        return self.policy(np.full(len(data), 0.1 * len(data), dtype=np.float32), data[0].spec)
