"""CFCQL for discrete actions: QMIX with a conservative penalty for each agent (Shao et al. 2023, Sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.sequence_learner import Agent, SequenceLearner, shared_agent, unrolled
from methods.algorithms.training import Losses, Parts, descend, named_tensors, pretrain
from methods.algorithms.value_team import ValueSettings, ValueTeam, ValueTrainer, new_adam, new_team
from methods.base import Budget, Run
from methods.data.sequences import SequenceBatch
from methods.learners.cfcql.config import CFCQLConfig
from methods.objectives.cloning import masked_mean, negative_log_likelihood
from methods.objectives.counterfactual import (
    counterfactual_gap,
    counterfactual_totals,
    distance_from_behaviour,
    divergence_weights,
)
from methods.objectives.q_learning import td_loss
from methods.objectives.returns import lambda_return
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class DiscreteCFCQL(SequenceLearner[CFCQLConfig]):
    """L = c ⟨(Q_tot − G)²⟩ + α ⟨Σ_i w_i log Σ_{a ∈ A_i} exp Q_tot^{i,a} − Q_tot⟩ over valid steps.

    Q_tot^{i,a} is the team's value where agent i takes a and the others do as in the data. G is the λ-return of the
    target's values of a*, a*_i the best available action for Q_i; r the team's reward by the task's rule. With
    weights=behaviour w = softmax_i(κ D_i), D_i the distance of softmax_a Q_tot^{i,a} from a behaviour network, which is
    trained on ⟨−log β(a_i | τ_i)⟩ before everything else.
    """

    Config = CFCQLConfig
    version = 1
    name: ClassVar[str] = "cfcql"
    stream: ClassVar[str | None] = "qmix"

    def recurrent(self, spec: TaskSpec) -> bool:
        """As the config says."""
        return self.config.memory == "gru"

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.settings(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """PyMARL's network, one for all agents: (o, last action, id) -> H -> ReLU -> GRU H -> A."""
        return self._network(spec, self.config.settings(spec).hidden, generators)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> DiscreteCFCQLTrainer:
        """See the trainer for what it reports. With weights=behaviour the behaviour network is trained here."""
        spec, settings = data[0].spec, self.config.settings(data[0].spec)
        agent = self.new_agent(spec, [run.generator("qmix/agent", r) for r in range(len(data))])
        if settings.normalise:
            agent.scaler.fit(data, run.original)
        team = new_team(agent, (self.config.mixer_embed, self.config.mixer_hidden), data, run)
        weighed = settings.weights == "behaviour" and settings.conservatism > 0
        return DiscreteCFCQLTrainer(self.config, spec, team, self.fitted_behaviour(data, run) if weighed else None)

    def fitted_behaviour(self, data: Sequence[OfflineDataset], run: Run) -> Agent:
        """A network like that of the values whose softmax over available actions is a model of the data."""
        spec, settings = data[0].spec, self.config.settings(data[0].spec)
        own = [run.generator("cfcql/behaviour", r) for r in range(len(data))]
        behaviour = self._network(spec, settings.behaviour_hidden, own)
        if settings.normalise:
            behaviour.scaler.fit(data, run.original)
        trainer = BehaviourTrainer(behaviour.to(run.device), settings.behaviour_learning_rate, settings.max_grad_norm)
        updates, batch_size = settings.behaviour_updates, settings.behaviour_batch_size
        unbound = replace(run, budget=Budget())  # the protocol's budget is that of the learner
        batches = self.batches(data, unbound, "cfcql/behaviour-batches", updates, batch_size)
        pretrain("behaviour", batches, trainer, run, updates)
        return behaviour.requires_grad_(False)

    def _network(self, spec: TaskSpec, hidden: int, generators: Sequence[np.random.Generator]) -> Agent:
        return shared_agent(spec, hidden, self.config.memory, generators, last_action=True)


class BehaviourTrainer:
    """Clones the data into a network of the agents' logits."""

    def __init__(self, behaviour: Agent, learning_rate: float, max_grad_norm: float) -> None:
        self.behaviour, self.done = behaviour, 0
        self._adam, self._max_grad_norm = new_adam(behaviour, learning_rate), max_grad_norm

    def update(self, batch: SequenceBatch) -> Losses:
        """One step of Adam; `loss` is ⟨−log β(a_i | τ_i)⟩."""
        assert batch.available is not None
        logits = unrolled(self.behaviour, batch.observations, batch.last_actions)[:, :-1]  # (R, T, B, N, A)
        loss = negative_log_likelihood(logits, batch.actions, batch.available[:, :-1], batch.valid)
        descend(self._adam, list(self.behaviour.parameters()), loss, len(loss), self._max_grad_norm)
        self.done += 1
        return {"loss": loss}

    def parts(self) -> Parts:
        """See `Trainer`."""
        return Parts(named_tensors(behaviour=self.behaviour), (self._adam,))


class DiscreteCFCQLTrainer(ValueTrainer):
    """A value team whose penalties are weighed by a behaviour network, which stays as it is; None: all alike.

    Reports `td_loss`, `q`, the mean Q_tot of recorded actions, and `cql_gap`, the penalty before α; with a behaviour
    network `behaviour_loss`, how badly it knows the actions of the batch, and `largest_weight`, the mean over steps of
    the largest of the agents' w, 1/N where all count alike.
    """

    def __init__(self, config: CFCQLConfig, spec: TaskSpec, team: ValueTeam, behaviour: Agent | None) -> None:
        own = config.settings(spec)
        settings = ValueSettings(
            learning_rate=own.learning_rate,
            discount=config.discount,
            target_every=config.target_every,
            max_grad_norm=own.max_grad_norm,
            reward=spec.team_reward,
        )
        super().__init__(settings, team)
        self.behaviour, self._trace, self._td_weight = behaviour, config.trace, config.td_weight
        self._conservatism, self._temperature = own.conservatism, own.temperature

    def targets(self, reward: Tensor, next_total: Tensor, batch: SequenceBatch) -> Tensor:
        """(R, T, B) λ-returns."""
        return lambda_return(reward, batch.terminals, next_total, batch.valid, self.settings.discount, self._trace)

    def losses(self, batch: SequenceBatch) -> tuple[list[Tensor], Losses]:
        """One loss of agents and mixer. The penalty has a gradient to the values of all agents, and to the mixer."""
        assert batch.available is not None
        seen = self.evaluate(batch, batch.available)
        of_td = 2 * self._td_weight * td_loss(seen.recorded, seen.target, batch.valid)  # that one has the factor ½
        told = {"td_loss": of_td, "q": masked_mean(seen.recorded.detach(), batch.valid)}
        if self._conservatism == 0:
            return [of_td], told
        available = batch.available[:, :-1]  # (R, T, B, N, A)
        totals = counterfactual_totals(seen.mixing, seen.q[:, :-1], batch.actions)  # (R, T, B, N, A)
        weights = totals.new_full(batch.actions.shape, 1 / batch.actions.shape[-1])  # (R, T, B, N)
        if self.behaviour is not None:
            with torch.no_grad():
                logits = unrolled(self.behaviour, batch.observations, batch.last_actions)[:, :-1]
                weights = divergence_weights(distance_from_behaviour(totals, logits, available), self._temperature)
            told["behaviour_loss"] = negative_log_likelihood(logits, batch.actions, available, batch.valid)
            told["largest_weight"] = masked_mean(weights.amax(dim=-1), batch.valid)
        gap = counterfactual_gap(totals, available, seen.recorded, weights, batch.valid)
        return [of_td + self._conservatism * gap], {**told, "cql_gap": gap}
