"""CFCQL for discrete actions: its loss against plain loops in float64, in special cases, and what has no part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.data.sequences import SequenceBatch
from methods.learners.cfcql.discrete import DiscreteCFCQLTrainer
from tests.unit.methods.plain import acted_along, mixed, require_equal_gradients
from tests.unit.methods.small_trainers import REPLICAS, datasets, made


class Episode:
    """One episode of one replica, without its padding."""

    def __init__(self, trainer: DiscreteCFCQLTrainer, batch: SequenceBatch, r: int, b: int) -> None:
        self.trainer, self.r, self.length = trainer, r, int(batch.valid[r, :, b].sum())
        rows = batch.observations[r, : self.length + 1, b]
        last = None if batch.last_actions is None else batch.last_actions[r, : self.length + 1, b]
        assert batch.available is not None
        self.mask, self.actions = batch.available[r, :, b], batch.actions[r, :, b]
        self.states = rows.flatten(1) if batch.states is None else batch.states[r, :, b]
        self.rewards, self.ends = batch.rewards[r, :, b], batch.terminals[r, :, b]
        self.q = acted_along(trainer.team.agent, r, rows, last)
        self.q_bar = acted_along(trainer.target.agent, r, rows, last)
        behaviour = trainer.behaviour
        self.logits = None if behaviour is None else acted_along(behaviour, r, rows, last)
        self.n = rows.shape[1]

    def legal(self, t: int, i: int) -> list[int]:
        return [a for a, allowed in enumerate(self.mask[t, i]) if allowed]

    def returns(self) -> list[float]:
        found: list[float] = []
        for t in range(self.length - 1, -1, -1):
            best = []
            for i in range(self.n):
                values = {a: float(self.q[t + 1][i][a].detach()) for a in self.legal(t + 1, i)}
                best.append(self.q_bar[t + 1][i][max(values, key=lambda a: values[a])])
            following = float(mixed(self.trainer.target.mixer, self.r, self.states[t + 1], best))
            if found:
                following = 0.4 * following + 0.6 * found[-1]
            reward = float(self.rewards[t].sum())
            found.append(reward if self.ends[t] else reward + 0.99 * following)
        return found[::-1]

    def total(self, t: int, actions: Sequence[int]) -> Tensor:
        chosen = [self.q[t][i][a] for i, a in enumerate(actions)]
        return mixed(self.trainer.team.mixer, self.r, self.states[t], chosen)

    def recorded(self, t: int) -> Tensor:
        return self.total(t, self.actions[t].tolist())

    def gap(self, t: int) -> tuple[Tensor, list[float]]:
        """The penalty of a step, and the weights of the agents."""
        pushed, distances = [], []
        for i in range(self.n):
            totals = []
            for a in self.legal(t, i):
                joint = self.actions[t].tolist()
                joint[i] = a
                totals.append(self.total(t, joint))
            pushed.append(torch.stack(totals).exp().sum().log())
            if self.logits is not None:
                mu = torch.stack(totals).detach().softmax(0) + 1e-5
                beta = self.logits[t][i][self.legal(t, i)].softmax(0) + 1e-5
                distances.append(float((mu * (mu / beta).log()).sum()))
        z = [math.exp(20.0 * d) for d in distances] or [1.0] * self.n
        weights = [value / sum(z) for value in z]
        terms = [w * push for w, push in zip(weights, pushed, strict=True)]
        return torch.stack(terms).sum() - self.recorded(t), weights


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ("discrete", {}),
        ("discrete", {"memory": "none"}),
        ("states-and-deaths", {"td_weight": 0.5}),
        ("states-and-deaths", {"weights": "uniform", "memory": "none"}),
    ],
    ids=["gru", "none", "states", "uniform"],
)
def test_losses_and_gradients_equal_plain_loops(shape: str, config: dict[str, Any]) -> None:
    trainer, batch = made("cfcql", shape, **config)
    (loss,), told = trainer.losses(batch)
    slow, gaps, largest = [], [], []
    for r in range(REPLICAS):
        errors, penalties, weights = [], [], []
        for b in range(batch.valid.shape[2]):
            episode = Episode(trainer, batch, r, b)
            for t, y in enumerate(episode.returns()):
                errors.append((episode.recorded(t) - y) ** 2)
                gap, own = episode.gap(t)
                penalties.append(gap)
                weights.append(max(own))
        slow.append(config.get("td_weight", 1.0) * torch.stack(errors).mean() + 2.0 * torch.stack(penalties).mean())
        gaps.append(torch.stack(penalties).mean())
        largest.append(sum(weights) / len(weights))
    require_equal_gradients(loss, slow, list(trainer.team.parameters()))
    torch.testing.assert_close(told["cql_gap"], torch.stack(gaps), atol=1e-6, rtol=1e-6)
    if "weights" in config:
        assert "largest_weight" not in told
    else:
        assert told["largest_weight"].tolist() == pytest.approx(largest, abs=1e-6)
        assert min(largest) > 0.38  # agents do not all count alike


def test_without_conservatism_the_loss_is_the_temporal_difference_alone() -> None:
    data = datasets("discrete")
    trainer, batch = made("cfcql", data=data, conservatism=0.0)
    assert trainer.behaviour is None  # it would serve nothing
    penalised, _ = made("cfcql", data=data, conservatism=2.0)
    (loss,), told = trainer.losses(batch)
    torch.testing.assert_close(loss, penalised.losses(batch)[1]["td_loss"])
    assert set(told) == {"td_loss", "q"}
    for one, other in zip(
        torch.autograd.grad(loss.sum(), list(trainer.team.parameters())),
        torch.autograd.grad(penalised.losses(batch)[1]["td_loss"].sum(), list(penalised.team.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_penalty_of_one_agent_is_that_of_cql() -> None:
    """Its weight is 1; the penalty is ⟨log Σ_a exp Q_tot(a) − Q_tot(a_data)⟩."""
    data = [
        replace(
            d,
            spec=replace(d.spec, n_agents=1, agent_groups=((0,),)),
            observations=d.observations[:, :1],
            actions=d.actions[:, :1],
            rewards=d.rewards[:, :1],
            available_actions=None if d.available_actions is None else d.available_actions[:, :1],
        )
        for d in datasets("discrete")
    ]
    trainer, batch = made("cfcql", data=data)
    (_,), told = trainer.losses(batch)
    assert batch.available is not None
    q = trainer.team.each(batch.observations, batch.last_actions)[:, :-1, ..., 0, :]  # (R, T, B, A)
    net = trainer.team.mixing(batch.observations[:, :-1], None)
    totals = net.totals(q.unsqueeze(-1)).masked_fill(~batch.available[:, :-1, ..., 0, :], -1e10)
    recorded = totals.gather(-1, batch.actions).squeeze(-1)
    gap = (totals.logsumexp(-1) - recorded).masked_fill(~batch.valid, 0.0).sum(dim=(1, 2)) / batch.valid.sum(dim=(1, 2))
    torch.testing.assert_close(told["cql_gap"], gap)
    assert told["largest_weight"].tolist() == [1.0, 1.0]


def test_all_agents_count_alike_at_temperature_zero() -> None:
    trainer, batch = made("cfcql", temperature=0.0)
    (loss,), told = trainer.losses(batch)
    torch.testing.assert_close(told["largest_weight"], torch.full((2,), 1 / 3, dtype=torch.float64))
    uniform, _ = made("cfcql", weights="uniform")
    torch.testing.assert_close(loss, uniform.losses(batch)[0][0])


def test_unavailable_actions_have_no_influence() -> None:
    """An action that no row of the batch allows is believed in as much as one likes."""
    trainer, batch = made("cfcql", memory="none")
    assert batch.available is not None
    available = batch.available.clone()
    available[..., 4] = False
    batch = replace(batch, available=available, actions=batch.actions.clamp(max=3))
    before = trainer.losses(batch)[0][0]
    assert trainer.behaviour is not None
    with torch.no_grad():
        for agent in (trainer.team.agent, trainer.target.agent, trainer.behaviour):
            list(agent.parameters())[-1][..., 4] += 50.0
    torch.testing.assert_close(trainer.losses(batch)[0][0], before)
