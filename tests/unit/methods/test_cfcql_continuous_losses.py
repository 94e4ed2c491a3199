"""CFCQL for continuous actions: its losses against plain loops in float64, and in special cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods.base import Run
from methods.data.batches import TransitionBatch
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import CFCQLTrainer, ContinuousCFCQL
from methods.networks.critics import twin_values
from methods.objectives.conservative import uniform_log_density
from tests.unit.methods.problems import network, own_generators, precise_transitions, require_same_gradients
from tests.unit.methods.small_trainers import REPLICAS, datasets

HIDDEN, BATCH, SAMPLES = 8, 6, 4


def batch(shape: str = "continuous") -> TransitionBatch:
    return precise_transitions(datasets(shape, 20), BATCH, random_ends=True)


def trainer(shape: str = "continuous", **config: Any) -> CFCQLTrainer:
    settings = {"hidden": HIDDEN, "cql_samples": SAMPLES, "behaviour_hidden": 7, "behaviour_updates": 3}
    learner = ContinuousCFCQL(CFCQLConfig(**{**settings, "behaviour_samples": 2, "conservatism": 3.0, **config}))
    made = learner.new_trainer(datasets(shape, 20), Run(seeds=(0, 1)))
    made.agent.double()
    if made.vae is not None:
        made.vae.double()
    made._generators = own_generators(2)
    shift = torch.Generator().manual_seed(3)
    for name in ("actor_parameters", "critic_parameters", "target_actor", "target_critic"):
        precise = [p.detach().double() for p in getattr(made, name)]
        if name.startswith("target"):  # targets that differ from what they follow
            precise = [p + 0.1 * torch.randn(p.shape, generator=shift, dtype=torch.float64) for p in precise]
        setattr(made, name, [p.requires_grad_(not name.startswith("target")) for p in precise])
    return made


class Plain:
    """One replica in torch's modules, with its rows of the batch and its draws."""

    def __init__(self, made: CFCQLTrainer, transitions: TransitionBatch, r: int) -> None:
        self.made, self.r, scale = made, r, made.agent.scaler
        self.n, self.size = transitions.actions.shape[2:]
        self.actors = [network(made.actor_parameters, r * self.n + i) for i in range(self.n)]
        self.target_actors = [network(made.target_actor, r * self.n + i) for i in range(self.n)]
        self.critics = [network(made.critic_parameters, 2 * r + k) for k in range(2)]
        self.target_critics = [network(made.target_critic, 2 * r + k) for k in range(2)]
        self.o = (transitions.observations[r] - scale.mean[r]) / scale.scale[r]  # (B, N, D)
        self.o2 = (transitions.next_observations[r] - scale.mean[r]) / scale.scale[r]
        self.a, self.rewards, self.ends = transitions.actions[r], transitions.rewards[r], transitions.terminals[r]
        draw = own_generators(2)[r]
        self.noise = torch.from_numpy(draw.standard_normal((BATCH, self.n, self.size), dtype=np.float32)).double()
        uniform = draw.random((BATCH, self.n, SAMPLES, self.size), dtype=np.float32)
        self.candidates = 2 * torch.from_numpy(uniform).double() - 1
        self.draw = draw

    def shown(self, rows: Tensor) -> Tensor:
        """Rows (B, F) of actions as the critics get them: as they are, or as batch normalisation makes them."""
        if not self.made._config.batch_norm:
            return rows
        return (rows - rows.mean(dim=0)) / (rows.var(dim=0, correction=0) + 1e-5).sqrt()

    def policy(self, actors: Sequence[nn.Sequential], rows: Tensor) -> list[Tensor]:
        return [actors[i](rows[i]).tanh() for i in range(self.n)]

    def q(self, k: int, rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Q^k of one joint action for each b, which the critics may see standardised over the batch."""
        joint = self.shown(torch.stack([torch.cat(list(row)) for row in rows]))
        return [self.critics[k](torch.cat([self.o[b].flatten(), joint[b]]))[0] for b in range(BATCH)]

    def targets(self) -> list[Tensor]:
        with torch.no_grad():
            rows = []
            for b in range(BATCH):
                chosen = self.policy(self.target_actors, self.o2[b])
                rows.append(torch.cat([(chosen[i] + 0.05 * self.noise[b, i]).clamp(-1, 1) for i in range(self.n)]))
            joint, found = self.shown(torch.stack(rows)), []
            for b in range(BATCH):
                x = torch.cat([self.o2[b].flatten(), joint[b]])
                following = torch.min(self.target_critics[0](x)[0], self.target_critics[1](x)[0])
                reward = self.rewards[b].sum()  # the rule of the sample task
                found.append(reward if self.ends[b] else reward + 0.99 * following)
            return found

    def weights(self) -> Tensor:
        """(B, N) of the penalties."""
        if self.made._settings.weights == "uniform":
            return torch.full((BATCH, self.n), 1 / self.n, dtype=torch.float64)
        vae = self.made.vae
        assert vae is not None
        encoder, decoder = (
            network(list(vae.encoder.parameters()), self.r),
            network(list(vae.decoder.parameters()), self.r),
        )
        noise = torch.from_numpy(self.draw.standard_normal((2, BATCH, vae.latent), dtype=np.float32)).double()
        rows = []
        for b in range(BATCH):
            with torch.no_grad():
                state, actions = self.o[b].flatten(), self.policy(self.actors, self.o[b])
                raw = encoder(torch.cat([state, *actions]))
                mean, std = raw[: vae.latent], raw[vae.latent :].clamp(-4, 15).exp()
                draws: list[list[Tensor]] = [[] for _ in range(self.n)]
                for xi in noise[:, b]:
                    z = mean + std * xi
                    decoded = decoder(torch.cat([state, z])).tanh()
                    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
                    posterior = torch.distributions.Normal(mean, std).log_prob(z).sum()
                    for i in range(self.n):
                        own = torch.distributions.Normal(decoded[self.size * i :][: self.size], math.sqrt(0.125))
                        draws[i].append(own.log_prob(actions[i]).sum() + prior - posterior)
                log_pi = self.size * math.log(1 / (0.2 * math.sqrt(2 * math.pi)))
                ratios = [log_pi - (torch.stack(own).exp().mean()).log() for own in draws]
                rows.append((self.made._settings.temperature * torch.stack(ratios)).softmax(0))
        return torch.stack(rows)

    def critic_loss(self) -> Tensor:
        total, weights, targets = torch.zeros((), dtype=torch.float64), self.weights(), self.targets()
        for k in range(2):
            recorded = self.q(k, [list(self.a[b]) for b in range(BATCH)])
            pushed = [torch.zeros((), dtype=torch.float64) for _ in range(BATCH)]
            for i in range(self.n):
                rows = []
                for b in range(BATCH):
                    for j in range(SAMPLES):
                        row = list(self.a[b])
                        row[i] = self.candidates[b, i, j]
                        rows.append(torch.cat(row))
                joint = self.shown(torch.stack(rows)).view(BATCH, SAMPLES, -1)  # of one agent's candidates
                for b in range(BATCH):
                    x = [torch.cat([self.o[b].flatten(), joint[b, j]]) for j in range(SAMPLES)]
                    terms = torch.stack([self.critics[k](row)[0] - self.size * math.log(0.5) for row in x])
                    pushed[b] = pushed[b] + weights[b, i] * terms.exp().sum().log()
            for b in range(BATCH):
                total = total + (recorded[b] - targets[b]).square() / BATCH
                total = total + self.made._settings.conservatism * (pushed[b] - recorded[b]) / BATCH
        return total

    def actor_loss(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        chosen = [self.policy(self.actors, self.o[b]) for b in range(BATCH)]
        outputs = self.made._config.penalised == "outputs"
        held_down = [[x.atanh() if outputs else x for x in row] for row in chosen]
        for i in range(self.n):
            rows = [list(self.a[b]) for b in range(BATCH)]
            for b in range(BATCH):
                rows[b][i] = chosen[b][i]
                total = total + 1e-3 * held_down[b][i].square().mean() / BATCH
            total = total - torch.stack(self.q(0, rows)).sum() / (BATCH * self.n)
        return total


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ("continuous", {}),
        ("one-agent", {}),
        ("continuous", {"penalised": "actions"}),
        ("continuous", {"batch_norm": True}),
        ("continuous", {"weights": "behaviour", "temperature": -1.0}),
        ("continuous", {"weights": "behaviour", "temperature": 0.7}),
    ],
    ids=["uniform", "one agent", "penalised actions", "batch norm", "softmin", "softmax"],
)
def test_losses_and_gradients_equal_plain_loops(shape: str, config: dict[str, Any]) -> None:
    made, transitions = trainer(shape, **config), batch(shape)
    seen = made.views(transitions)
    losses, _ = made.critic_losses(seen)
    of_critics = torch.autograd.grad(losses.sum(), made.critic_parameters)
    actor_losses = made.actor_losses(seen)
    of_actors = torch.autograd.grad(actor_losses.sum(), made.actor_parameters)
    for r in range(REPLICAS):
        plain = Plain(made, transitions, r)
        loss = plain.critic_loss()
        torch.testing.assert_close(losses[r], loss, atol=1e-6, rtol=1e-6)
        require_same_gradients(of_critics, loss, plain.critics, 2 * r)
        loss = plain.actor_loss()
        torch.testing.assert_close(actor_losses[r], loss, atol=1e-6, rtol=1e-6)
        require_same_gradients(of_actors, loss, plain.actors, r * plain.n)


def test_without_conservatism_the_loss_is_the_temporal_difference_alone() -> None:
    made, transitions = trainer(conservatism=0.0), batch()
    losses, _ = made.critic_losses(made.views(transitions))
    of_critics = torch.autograd.grad(losses.sum(), made.critic_parameters)
    for r in range(REPLICAS):
        plain = Plain(made, transitions, r)
        targets, rows = plain.targets(), [list(plain.a[b]) for b in range(BATCH)]
        errors = [[q - y for q, y in zip(plain.q(k, rows), targets, strict=True)] for k in range(2)]
        loss = sum(torch.stack(own).square().mean() for own in errors)
        assert isinstance(loss, Tensor)
        torch.testing.assert_close(losses[r], loss)
        require_same_gradients(of_critics, loss, plain.critics, 2 * r)


def test_the_penalty_of_one_agent_is_that_of_cql() -> None:
    made, transitions = trainer("one-agent", conservatism=1.0), batch("one-agent")
    seen = made.views(transitions)
    losses, _ = made.critic_losses(seen)
    made._generators = own_generators(2)
    made._settings = replace(made._settings, conservatism=0.0)
    plain_losses, _ = made.critic_losses(seen)
    candidates = torch.stack([Plain(made, transitions, r).candidates[:, 0] for r in range(REPLICAS)])  # (R, B, K, A)
    states, recorded = seen.states, seen.actions  # (R, B, S), (R, B, 1, A)
    q = twin_values(made.critic_parameters, states, candidates)  # (2, R, B, K)
    of_data = twin_values(made.critic_parameters, states, recorded).squeeze(-1)
    gap = ((q - uniform_log_density(2)).logsumexp(dim=-1) - of_data).mean(dim=-1).sum(dim=0)  # OMAR, Eq. 2
    torch.testing.assert_close(losses - plain_losses, gap)
