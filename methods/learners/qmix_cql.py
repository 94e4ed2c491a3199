"""`qmix-cql`: QMIX with a conservative penalty on the team's value (OG-MARL, `qmix_cql`; a learner of EAQ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.training import Losses, Parts
from methods.algorithms.value_team import ValueTeam, ValueTeamConfig, ValueTeamLearner, ValueTrainer
from methods.base import Run, require
from methods.data.sequences import SequenceBatch, step_draws
from methods.objectives.cloning import masked_mean
from methods.objectives.q_learning import joint_conservative_gap, random_actions, td_loss
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class QMIXCQLConfig(ValueTeamConfig):
    """OG-MARL's present values. Its state of March 2024: conservatism 1 in effect, 10 samples among all actions."""

    conservatism: float = 3.0  # w, weight of the penalty; OG-MARL since August 2024; 0: none
    cql_samples: int = 20  # K, joint actions a step; the same
    cql_actions: str = "available"  # what is sampled, truly (its sampler is not); "all": OG-MARL until June 2024

    def __post_init__(self) -> None:
        ValueTeamConfig.__post_init__(self)
        weight, k = self.conservatism, self.cql_samples
        require(0 <= weight < float("inf"), "qmix-cql", f"conservatism={weight}", "a finite number, 0 or more")
        whole = isinstance(k, int) and not isinstance(k, bool) and k >= 1
        require(whole, "qmix-cql", f"cql_samples={k}", "a whole number, 1 or more")
        known = self.cql_actions in ("available", "all")
        require(known, "qmix-cql", f"cql_actions={self.cql_actions}", "available or all")


class QMIXCQL(ValueTeamLearner[QMIXCQLConfig]):
    """L = ½ ⟨(Q_tot − y)²⟩ + w ⟨log Σ exp {Q_tot(a_1), …, Q_tot(a_K), Q_tot(a)} − Q_tot(a)⟩ over valid steps.

    y = r + γ (1 − e) Q̄_tot(s', a*) with a*_i the best available action for Q_i; r is the mean of the agents' rewards
    where the task sums them, as in OG-MARL (`reward=task`: the sum).
    """

    Config = QMIXCQLConfig
    version = 2
    name: ClassVar[str] = "qmix-cql"

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> QMIXCQLTrainer:
        """Reports `td_loss`, `cql_loss`, and `q`, the mean Q_tot of recorded actions."""
        generators = [run.generator("qmix-cql/actions", r) for r in range(len(data))]
        return QMIXCQLTrainer(self.config, data[0].spec, self.new_team(data, run), generators, self.longest(data))


class QMIXCQLTrainer(ValueTrainer):
    """Draws joint actions, and pushes their values down.

    Args:
        config: the config.
        spec: the task.
        team: the values, on the device.
        generators: R, of the random actions.
        longest: R, steps of the longest sequence that a replica can meet: it draws as many numbers an update, whatever
            the others' sequences are.
    """

    def __init__(
        self,
        config: QMIXCQLConfig,
        spec: TaskSpec,
        team: ValueTeam,
        generators: Sequence[np.random.Generator],
        longest: Sequence[int],
    ) -> None:
        super().__init__(config.settings(spec), team)
        self._own, self._generators, self._longest = config, generators, longest

    def parts(self) -> Parts:
        """With the draws of random actions."""
        return super().parts()._replace(generators=self._generators)

    def losses(self, batch: SequenceBatch) -> tuple[list[Tensor], Losses]:
        """One loss of agents and mixer."""
        assert batch.available is not None
        seen = self.evaluate(batch, batch.available)
        of_td = td_loss(seen.recorded, seen.target, batch.valid)
        told = {"td_loss": of_td, "q": masked_mean(seen.recorded.detach(), batch.valid)}
        if self._own.conservatism == 0:
            return [of_td], told
        q = seen.q[:, :-1]  # (R, T, B, N, A)
        sampled = q.gather(-1, self.drawn(batch)).transpose(-1, -2)  # (R, T, B, K, N)
        gap = joint_conservative_gap(seen.mixing.totals(sampled), seen.recorded, batch.valid)
        return [of_td + self._own.conservatism * gap], {**told, "cql_loss": gap}

    def drawn(self, batch: SequenceBatch) -> Tensor:
        """K joint actions a step, each agent's by itself: (R, T, B, N, K)."""
        assert batch.available is not None
        steps, episodes, n = batch.actions.shape[1:]
        shape = (steps, episodes, n, self._own.cql_samples)
        uniform = step_draws(self._generators, self._longest, shape, lambda g, s: g.random(s, dtype=np.float32))
        mask = batch.available[:, :-1]
        mask = mask if self._own.cql_actions == "available" else torch.ones_like(mask)
        return random_actions(uniform.to(mask.device), mask)
