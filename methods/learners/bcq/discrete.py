"""`bcq` for discrete actions: independent Q-learning whose targets take likely actions alone (OG-MARL, `iql_bcq`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.filtered_acting import FilteredActing
from methods.algorithms.sequence_learner import Agent, shared_agent, unrolled
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.algorithms.value_team import chosen, new_adam
from methods.base import Run
from methods.data.sequences import SequenceBatch
from methods.learners.bcq.config import BCQConfig
from methods.networks.heads import greedy_choice
from methods.objectives.cloning import masked_mean, negative_log_likelihood
from methods.objectives.q_learning import likely_actions, td_loss, td_target
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class DiscreteBCQ(FilteredActing[BCQConfig]):
    """L = ½ ⟨(Q_i − y_i)²⟩, y_i = r_i + γ (1 − e) Q̄_i(o', a*), over valid steps and agents; r_i is the agent's own.

    a* is the best action for Q_i of those that are available and have p(a) / max p ≥ ζ by a behaviour network like that
    of the values, trained beside it on ⟨−log p(a_i)⟩. One network of each kind for all agents.

    Deviation: OG-MARL's behaviour is a categorical over all actions, renormalised over the available ones; here it is
    one over the available actions from the start. OG-MARL acts without the filter (`filter_at_eval=false`).
    """

    Config = BCQConfig
    version = 1
    name: ClassVar[str] = "bcq"

    def recurrent(self, spec: TaskSpec) -> bool:
        """As the config says."""
        return self.config.memory == "gru"

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        """(o, id) -> H -> ReLU -> GRU H -> ReLU -> A, as OG-MARL; without memory H -> H in the GRU's place."""
        return shared_agent(spec, self.config.sizes(spec).hidden, self.config.memory, generators, relu_after=True)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> DiscreteBCQTrainer:
        """Reports `td_loss`, `cloning_loss`, `q`, the mean Q_i of recorded actions, and `likely`: see the trainer."""
        spec, made = data[0].spec, []
        for network in ("agent", "behaviour"):
            agent = self.new_agent(spec, [run.generator(f"bcq/{network}", r) for r in range(len(data))])
            if self.config.sizes(spec).normalise:
                agent.scaler.fit(data, run.original)
            made.append(agent.to(run.device))
        return DiscreteBCQTrainer(self.config, spec, *made)


class DiscreteBCQTrainer:
    """Values with their target, the behaviour, an optimiser of each, and the count of updates.

    Args:
        config: its settings.
        spec: the task.
        values: Q_i of R teams, on the device.
        behaviour: logits, on the device.
    """

    def __init__(self, config: BCQConfig, spec: TaskSpec, values: Agent, behaviour: Agent) -> None:
        self.values, self.behaviour = values, behaviour
        self.target = copy.deepcopy(values).requires_grad_(False)
        self.done, self._config = 0, config
        rate = config.sizes(spec).learning_rate
        self._adams = [new_adam(net, rate) for net in self.agents]

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Values, and the behaviour."""
        return self.values, self.behaviour

    def parts(self) -> Parts:
        """See `Trainer`."""
        return Parts(named_tensors(values=self.values, target=self.target, behaviour=self.behaviour), self._adams)

    def update(self, batch: SequenceBatch) -> Losses:
        """A step of both; after every `target_every` updates the target is a copy of the values again."""
        losses, told = self.losses(batch)
        for loss, net, adam in zip(losses, self.agents, self._adams, strict=True):
            descend(adam, list(net.parameters()), loss, len(loss), self._config.max_grad_norm)
        self.done += 1
        if self.done % self._config.target_every == 0:
            self.target.load_state_dict(self.values.state_dict())
        return told

    def losses(self, batch: SequenceBatch) -> tuple[list[Tensor], Losses]:
        """Of the values, and of the behaviour; `likely` is the share of available actions that pass the filter."""
        assert batch.available is not None
        logits = unrolled(self.behaviour, batch.observations)  # (R, T + 1, B, N, A)
        allowed = likely_actions(logits.detach(), batch.available, self._config.threshold)
        q = unrolled(self.values, batch.observations)  # (R, T + 1, B, N, A)
        recorded = chosen(q[:, :-1], batch.actions)  # (R, T, B, N)
        valid = batch.valid.unsqueeze(-1).expand_as(recorded)
        of_td = td_loss(recorded, self.targets(batch, q, allowed), valid)
        cloning = negative_log_likelihood(logits[:, :-1], batch.actions, batch.available[:, :-1], batch.valid)
        share = allowed[:, :-1].sum(dim=(-2, -1)) / batch.available[:, :-1].sum(dim=(-2, -1)).clamp(min=1)
        return [of_td, cloning], {
            "td_loss": of_td,
            "cloning_loss": cloning,
            "q": masked_mean(recorded.detach(), valid),
            "likely": masked_mean(share, batch.valid),
        }

    @torch.no_grad()
    def targets(self, batch: SequenceBatch, q: Tensor, allowed: Tensor) -> Tensor:
        """y_i (R, T, B, N) by the values q (R, T + 1, B, N, A) and what the filter lets pass, of the same shape."""
        best = greedy_choice(q[:, 1:], allowed[:, 1:])  # (R, T, B, N)
        next_q = chosen(unrolled(self.target, batch.observations)[:, 1:], best)  # (R, T, B, N)
        return td_target(batch.rewards, batch.terminals.unsqueeze(-1), next_q, self._config.discount)
