"""MA-ICQ: losses and gradients against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.data.sequences import SequenceBatch
from methods.learners.icq.trainer import ICQTrainer
from methods.learners.icq.view import SingleSteps
from methods.networks.dueling import DuelingNet
from methods.networks.icq_critic import ICQCritic
from tests.unit.methods.plain import acted_along, one_hot, perceptron, plain_log_density, require_equal_gradients
from tests.unit.methods.small_trainers import REPLICAS, made

FORMS = [
    ("continuous", "none"),
    ("discrete", "none"),
    ("states-and-deaths", "none"),
    ("discrete", "gru"),
    ("states-and-deaths", "gru"),
]


class Slow:
    """Values of one row of one replica, agent by agent."""

    def __init__(self, critic: ICQCritic, r: int, state: Tensor, rows: Tensor) -> None:
        self.critic, self.r, self.state, self.rows, self.n = critic, r, state, rows, len(rows)

    def choices(self, i: int) -> Tensor:
        net = self.critic.net
        assert isinstance(net, DuelingNet)
        y = perceptron(net.trunk, self.r, torch.cat([self.state, self.rows[i], one_hot(i, self.n)])).relu()
        return perceptron(net.value, self.r, y) + perceptron(net.advantage, self.r, y)

    def q(self, i: int, action: Tensor) -> Tensor:
        if self.critic.discrete:
            return self.choices(i)[action]
        return perceptron(self.critic.net, self.r, torch.cat([self.rows[i], one_hot(i, self.n), action]))[0]

    def k(self) -> list[Tensor]:
        last = perceptron(self.critic.mixer.last, self.r, self.state).abs()
        first = perceptron(self.critic.mixer.by_agent, self.r, self.state).abs()
        h = len(last)
        products = [(first[i * h : (i + 1) * h] * last).sum() for i in range(self.n)]
        return [product / sum(products) for product in products]

    def total(self, actions: Tensor) -> Tensor:
        terms = [share * self.q(i, actions[i]) for i, share in enumerate(self.k())]
        return torch.stack(terms).sum()


class Episodes:
    """The sequences of one replica in a batch, each without its padding."""

    def __init__(self, trainer: ICQTrainer, batch: SequenceBatch, r: int) -> None:
        self.trainer, self.batch, self.r = trainer, batch, r
        self.lengths = batch.valid[r].sum(dim=0).tolist()

    def steps(self) -> list[list[int]]:
        """[t] -> the sequences that have a step then whose target is known."""
        known = [
            [
                b
                for b in range(len(self.lengths))
                if t < self.lengths[b] and (self.ends(t, b) or self.next(t, b) is not None)
            ]
            for t in range(max(self.lengths))
        ]
        return [bs for bs in known if bs]

    def ends(self, t: int, b: int) -> bool:
        return bool(self.batch.terminals[self.r, t, b])

    def next(self, t: int, b: int) -> Tensor | None:
        if isinstance(self.batch, SingleSteps):
            return self.batch.next_actions[self.r, t, b] if self.batch.has_next[self.r, t, b] else None
        return self.batch.actions[self.r, t + 1, b] if t + 1 < self.lengths[b] else None

    def rows(self, b: int) -> Tensor:
        scaler = self.trainer.agent.scaler
        return (self.batch.observations[self.r, : self.lengths[b] + 1, b] - scaler.mean[self.r]) / scaler.scale[self.r]

    def at(self, critic: ICQCritic, t: int, b: int) -> Slow:
        row, states = self.rows(b)[t], self.batch.states
        return Slow(critic, self.r, row.flatten() if states is None else states[self.r, t, b], row)


def slow_critic_loss(seen: Episodes) -> Tensor:
    trainer, batch, r, errors = seen.trainer, seen.batch, seen.r, []
    steps = seen.steps()
    g: dict[tuple[int, int], float] = {}
    for t, known in enumerate(steps):
        actions = {b: a for b in known if (a := seen.next(t, b)) is not None}
        q = {b: float(seen.at(trainer.target, t + 1, b).total(a)) for b, a in actions.items()}
        z = sum(math.exp(value / 0.7) for value in q.values())
        g |= {(t, b): len(q) * math.exp(value / 0.7) / z * value for b, value in q.items()}

    def returned(t: int, b: int) -> float:
        y = float(batch.rewards[r, t, b].sum())
        if (t, b) not in g:
            return y
        goes_on = t + 1 < len(steps) and b in steps[t + 1]
        return y + 0.99 * (0.4 * g[t, b] + 0.6 * returned(t + 1, b) if goes_on else g[t, b])

    for t, known in enumerate(steps):
        for b in known:
            total = seen.at(trainer.critic, t, b).total(batch.actions[r, t, b])
            errors.append((total - returned(t, b)) ** 2)
    return torch.stack(errors).mean()


def slow_policy_loss(seen: Episodes) -> Tensor:
    trainer, batch, r, n = seen.trainer, seen.batch, seen.r, seen.batch.rewards.shape[-1]
    action_spec, terms = trainer._spec.action, []
    acted = [
        acted_along(trainer.agent, r, seen.rows(b), None if batch.last_actions is None else batch.last_actions[r, :, b])
        for b in range(len(seen.lengths))
    ]
    for t, known in enumerate(seen.steps()):
        for i in range(n):
            logs, advantages = [], []
            for b in known:
                here, raw, action = seen.at(trainer.critic, t, b), acted[b][t][i], batch.actions[r, t, b, i]
                if action_spec.discrete:  # as the source: softmax over all, mask, renormalise
                    assert batch.available is not None
                    p = raw.softmax(0) * batch.available[r, t, b, i]
                    p = p / p.sum()
                    logs.append(p[action].log())
                    baseline = (p * here.choices(i)).sum()
                else:
                    logs.append(plain_log_density(trainer._config.density, raw, action))
                    baseline = here.q(i, raw[: action_spec.size].tanh())
                advantages.append(float((here.q(i, action) - baseline).detach()))
            z = sum(math.exp(a / 0.5) for a in advantages)
            for b, log_p, advantage in zip(known, logs, advantages, strict=True):
                share = float(seen.at(trainer.critic, t, b).k()[i].detach())
                terms.append(-share * len(known) * math.exp(advantage / 0.5) / z * log_p)
    return torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("shape", "memory", "density"), [("continuous", "none", "squashed"), *((*form, "centred") for form in FORMS)]
)
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str, density: str) -> None:
    trainer, batch = made("icq", shape, memory=memory, density=density)
    seen = trainer.view(batch)
    assert (batch.valid & ~seen.known).any()  # an episode that was cut
    assert (seen.ends & batch.valid).any() or shape == "continuous"
    every = [Episodes(trainer, batch, r) for r in range(REPLICAS)]
    of_critics = [slow_critic_loss(e) for e in every]
    require_equal_gradients(trainer.critic_loss(seen), of_critics, list(trainer.critic.parameters()))
    of_policies = [slow_policy_loss(e) for e in every]
    require_equal_gradients(trainer.policy_loss(batch, seen)[0], of_policies, list(trainer.agent.parameters()))
