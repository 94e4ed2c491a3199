"""`qmix-bcq`: QMIX whose targets take likely actions alone (OG-MARL, `qmix_bcq`; a learner of EAQ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.algorithms.filtered_acting import FilteredActing
from methods.algorithms.sequence_learner import Agent, unrolled
from methods.algorithms.training import Losses, Parts, named_tensors
from methods.algorithms.value_team import ValueTeam, ValueTeamConfig, ValueTeamLearner, ValueTrainer, new_adam
from methods.base import Run, require
from methods.data.sequences import SequenceBatch
from methods.objectives.cloning import masked_mean, negative_log_likelihood
from methods.objectives.q_learning import likely_actions, td_loss
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class QMIXBCQConfig(ValueTeamConfig):
    """OG-MARL's values."""

    threshold: float = 0.4  # ζ, least p(a) / max p of a likely action; OG-MARL, qmix_bcq.yaml. 0: no filter
    filter_at_eval: bool = False  # OG-MARL acts on all available actions; true: on likely ones, as single-agent BCQ

    def __post_init__(self) -> None:
        ValueTeamConfig.__post_init__(self)
        require(0 <= self.threshold <= 1, "qmix-bcq", f"threshold={self.threshold}", "a number in [0, 1]")
        given = f"filter_at_eval={self.filter_at_eval}"
        require(isinstance(self.filter_at_eval, bool), "qmix-bcq", given, "true or false")


class QMIXBCQ(FilteredActing[QMIXBCQConfig], ValueTeamLearner[QMIXBCQConfig]):
    """L = ½ ⟨(Q_tot − y)²⟩, y = r + γ (1 − e) Q̄_tot(s', a*) with a*_i the best action for Q_i of those that are likely.

    Likely are available actions with p(a) / max p ≥ ζ by a behaviour network like that of the values, trained beside
    it on ⟨−log p(a_i)⟩. r is the mean of the agents' rewards where the task sums them, as in OG-MARL (`reward=task`:
    the sum).
    """

    Config = QMIXBCQConfig
    version = 2
    name: ClassVar[str] = "qmix-bcq"

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> QMIXBCQTrainer:
        """Reports `td_loss`, `cloning_loss`, `q`, the mean Q_tot of recorded actions, and `likely`: see the trainer."""
        spec = data[0].spec
        behaviour = self.new_agent(spec, [run.generator("qmix-bcq/behaviour", r) for r in range(len(data))])
        if self.config.normalise:
            behaviour.scaler.fit(data, run.original)
        return QMIXBCQTrainer(self.config, spec, self.new_team(data, run), behaviour.to(run.device))


class QMIXBCQTrainer(ValueTrainer):
    """Values and, with an optimiser of its own, the behaviour network."""

    def __init__(self, config: QMIXBCQConfig, spec: TaskSpec, team: ValueTeam, behaviour: Agent) -> None:
        super().__init__(config.settings(spec), team)
        self.behaviour, self._threshold = behaviour, config.threshold
        self.behaviour_adam = new_adam(behaviour, config.learning_rate)

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Values, and the behaviour."""
        return self.team.agent, self.behaviour

    @property
    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Of values, and of the behaviour."""
        return self.adam, self.behaviour_adam

    def parts(self) -> Parts:
        """With the behaviour network."""
        own = super().parts()
        return own._replace(tensors={**own.tensors, **named_tensors(behaviour=self.behaviour)})

    def losses(self, batch: SequenceBatch) -> tuple[list[Tensor], Losses]:
        """Of the values, and of the behaviour; `likely` is the share of available actions that pass the filter."""
        assert batch.available is not None
        logits = unrolled(self.behaviour, batch.observations)  # (R, T + 1, B, N, A)
        allowed = likely_actions(logits.detach(), batch.available, self._threshold)
        seen = self.evaluate(batch, allowed)
        of_td = td_loss(seen.recorded, seen.target, batch.valid)
        every = torch.ones_like(batch.available[:, :-1])  # the likelihood is that of all actions, as in OG-MARL
        cloning = negative_log_likelihood(logits[:, :-1], batch.actions, every, batch.valid)
        share = allowed[:, :-1].sum(dim=(-2, -1)) / batch.available[:, :-1].sum(dim=(-2, -1)).clamp(min=1)
        return [of_td, cloning], {
            "td_loss": of_td,
            "cloning_loss": cloning,
            "q": masked_mean(seen.recorded.detach(), batch.valid),
            "likely": masked_mean(share, batch.valid),
        }
