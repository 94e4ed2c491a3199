"""`td3bc`, `omar`, `cql` of continuous actions against plain loops over seeds and agents in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.algorithms.independent_td3 import TD3Trainer, critic_losses
from methods.algorithms.team import Team, views
from methods.base import Run
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.continuous import ContinuousTD3BC
from methods.networks.agents import MLPAgent
from methods.networks.critics import TwinCritics
from tests.unit.methods.problems import bandit, network, own_generators, precise_transitions, require_same_gradients
from tests.unit.methods.small_trainers import AGENTS, REPLICAS, datasets

HIDDEN, BATCH = 8, 16
DATA = datasets("continuous", 20)
SPEC = DATA[0].spec


def team() -> Team:
    agent = MLPAgent(SPEC, HIDDEN, False, own_generators(0)).double()
    agent.scaler.fit(DATA, None)
    critics = TwinCritics((SPEC.obs_dim, SPEC.action.size, HIDDEN), own_generators(1), AGENTS).double()
    made = Team(agent, critics, own_generators(2))
    shift = torch.Generator().manual_seed(3)
    for target in (made.target_actor, made.target_critic):  # targets that differ from what they follow
        for parameter in target:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    return made


class Plain:
    """One agent of one replica: networks, its rows of the batch, and the noise of its replica."""

    def __init__(self, made: Team, transitions: TransitionBatch, r: int, i: int) -> None:
        g = r * AGENTS + i
        self.actor, self.target_actor = network(made.actor_parameters, g), network(made.target_actor, g)
        self.critics = [network(made.critic_parameters, 2 * g + k) for k in range(2)]
        self.target_critics = [network(made.target_critic, 2 * g + k) for k in range(2)]
        scale = made.agent.scaler
        self.o = (transitions.observations[r, :, i].double() - scale.mean[r, i]) / scale.scale[r, i]
        self.o2 = (transitions.next_observations[r, :, i].double() - scale.mean[r, i]) / scale.scale[r, i]
        self.a, self.r = transitions.actions[r, :, i].double(), transitions.rewards[r, :, i].double()
        self.end = transitions.terminals[r]

    def target(self, noise: Tensor | None, discount: float) -> Tensor:
        with torch.no_grad():
            action = self.target_actor(self.o2).tanh()
            if noise is not None:
                action = (action + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
            q = torch.min(*(critic(torch.cat([self.o2, action], 1))[:, 0] for critic in self.target_critics))
            return self.r + discount * q * (~self.end)

    def q(self, k: int, o: Tensor, a: Tensor) -> Tensor:
        value: Tensor = self.critics[k](torch.cat([o, a], 1))[:, 0]
        return value


def draws(shape: tuple[int, ...], count: int, uniform: bool = False) -> list[list[np.ndarray[Any, Any]]]:
    """What each replica's noise generator gives first: `count` draws of (N, *shape)."""
    found = []
    for generator in own_generators(2):
        kind = generator.random if uniform else generator.standard_normal
        found.append([kind((AGENTS, *shape), dtype=np.float32) for _ in range(count)])
    return found


@pytest.mark.parametrize("form", ["lambda", "tau"])
def test_td3bc_equals_plain_loops(form: str) -> None:
    made, transitions = team(), precise_transitions(DATA, BATCH)
    learner = ContinuousTD3BC(TD3BCConfig(hidden=HIDDEN, form=form, tau=0.4))
    seen = views(transitions, made.agent, SPEC.action)
    noise = draws((BATCH, 2), 1)
    losses, _ = critic_losses(learner, made, seen)
    of_critics = torch.autograd.grad(losses.sum(), made.critic_parameters)
    actor_losses = learner.actor_losses(made, seen)
    of_actors = torch.autograd.grad(actor_losses.sum(), made.actor_parameters)
    for r in range(REPLICAS):
        for i in range(AGENTS):
            plain, g = Plain(made, transitions, r, i), r * AGENTS + i
            y = plain.target(torch.from_numpy(noise[r][0][i]).double(), 0.99)
            loss = sum((plain.q(k, plain.o, plain.a) - y).square().mean() for k in range(2))
            torch.testing.assert_close(losses[g], loss, atol=1e-6, rtol=1e-6)
            require_same_gradients(of_critics, loss, plain.critics, 2 * g)

            policy = plain.actor(plain.o).tanh()
            q = plain.q(0, plain.o, policy)
            cloning = (policy - plain.a).square().mean()
            weight = 2.5 / q.abs().mean().detach()
            loss = cloning - weight * q.mean() if form == "lambda" else 0.4 * cloning - 0.6 * q.mean()
            torch.testing.assert_close(actor_losses[g], loss, atol=1e-6, rtol=1e-6)
            require_same_gradients(of_actors, loss, [plain.actor], g)


@pytest.mark.parametrize("penalised", ["outputs", "actions"])
def test_cql_equals_plain_loops(penalised: str) -> None:
    made, transitions = team(), precise_transitions(DATA, BATCH)
    learner = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0, conservatism=3.0, cql_samples=4, penalised=penalised))
    seen = views(transitions, made.agent, SPEC.action)
    uniform = draws((BATCH, 4, 2), 1, uniform=True)
    losses, q_data = critic_losses(learner, made, seen)
    of_critics = torch.autograd.grad(losses.sum(), made.critic_parameters)
    actor_losses = learner.actor_losses(made, seen)
    of_actors = torch.autograd.grad(actor_losses.sum(), made.actor_parameters)
    for r in range(REPLICAS):
        for i in range(AGENTS):
            plain, g = Plain(made, transitions, r, i), r * AGENTS + i
            y = plain.target(None, 0.99)
            candidates = 2 * torch.from_numpy(uniform[r][0][i]).double() - 1
            loss = torch.zeros((), dtype=torch.float64)
            for k in range(2):
                recorded = plain.q(k, plain.o, plain.a)
                sampled = torch.stack([plain.q(k, plain.o, candidates[:, j]) for j in range(4)], dim=1)
                push = (sampled - 2 * np.log(0.5)).exp().sum(dim=1).log()
                loss = loss + (recorded - y).square().mean() + 3 * (push - recorded).mean()
            torch.testing.assert_close(losses[g], loss, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(q_data[g], plain.q(0, plain.o, plain.a).mean())
            require_same_gradients(of_critics, loss, plain.critics, 2 * g)

            outputs = plain.actor(plain.o)
            held_down = outputs if penalised == "outputs" else outputs.tanh()
            loss = -plain.q(0, plain.o, outputs.tanh()).mean() + 1e-3 * held_down.square().mean()
            torch.testing.assert_close(actor_losses[g], loss, atol=1e-6, rtol=1e-6)
            require_same_gradients(of_actors, loss, [plain.actor], g)


def test_actors_in_the_corners_of_the_action_space_find_back() -> None:
    """tanh 30 is 1 in float32 and has no gradient; a penalty on actions has none there either."""
    transitions = next(joint_transitions(DATA, own_generators(4), batch_size=8, updates=1, device="cpu"))

    def gradient(penalised: str) -> float:
        learner = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0, penalised=penalised))
        made = learner.new_team(DATA, Run(seeds=(0, 1)))
        with torch.no_grad():
            made.actor_parameters[-1].fill_(30.0)  # biases of the last layer
        loss = learner.actor_losses(made, views(transitions, made.agent, SPEC.action)).sum()
        return float(torch.autograd.grad(loss, made.actor_parameters[-1])[0].abs().min())

    assert gradient("actions") == 0
    assert gradient("outputs") > 0


def test_the_penalty_may_draw_actions_of_the_policy() -> None:
    """K uniform ones, K near π(o'), K near π(o), all judged at o and weighed by their own density (HalfCheetah)."""
    made, transitions = team(), precise_transitions(DATA, BATCH)
    learner = ContinuousOMAR(OMARConfig(hidden=HIDDEN, conservatism=1.0, cql_samples=2, policy_actions=True))
    seen = views(transitions, made.agent, SPEC.action)
    recorded = made.q(seen.observations, seen.actions.unsqueeze(2)).squeeze(-1)
    penalty = learner.critic_penalty(made, seen, recorded)
    assert penalty is not None
    generator, plain = own_generators(2)[0], Plain(made, transitions, 0, 1)
    uniform = 2 * torch.from_numpy(generator.random((AGENTS, BATCH, 2, 2), dtype=np.float32)).double()[1] - 1
    expected = torch.zeros((), dtype=torch.float64)
    near, density = [uniform], [torch.full((BATCH, 2), 2 * np.log(0.5), dtype=torch.float64)]
    for rows in (plain.o2, plain.o):
        drawn = generator.standard_normal((AGENTS, BATCH, 2, 2), dtype=np.float32)
        noise = 0.2 * torch.from_numpy(drawn).double()[1]
        near.append((plain.actor(rows).tanh()[:, None] + noise).clamp(-1, 1))
        density.append(torch.distributions.Normal(0.0, 0.2).log_prob(noise).sum(dim=-1))
    actions, log_p = torch.cat(near, dim=1), torch.cat(density, dim=1)
    for k in range(2):
        q = torch.stack([plain.q(k, plain.o, actions[:, j]) for j in range(6)], dim=1)
        expected = expected + ((q - log_p).logsumexp(dim=1) - plain.q(k, plain.o, plain.a)).mean()
    torch.testing.assert_close(penalty[1], expected, atol=1e-6, rtol=1e-6)


def test_batch_normalisation_takes_every_batch_of_actions_by_itself() -> None:
    """Recorded, random and chosen actions each lose their own mean and spread, by agent and replica."""
    plain = team()
    made = Team(plain.agent, TwinCritics((1, 1, 1), own_generators(1), AGENTS), own_generators(2), batch_norm=True)
    for name in ("actor_parameters", "critic_parameters", "target_actor", "target_critic"):
        setattr(made, name, getattr(plain, name))
    seen = views(precise_transitions(DATA, BATCH), made.agent, SPEC.action)
    candidates = made.uniform(BATCH, 4, 2)

    def normal(actions: Tensor) -> Tensor:
        flat = actions.flatten(1, 2)  # (G, B · K, A)
        scaled = (flat - flat.mean(dim=1, keepdim=True)) / (flat.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
        return scaled.view(actions.shape)

    for actions in (candidates, seen.actions.unsqueeze(2), made.act(seen.observations).unsqueeze(2)):
        expected = plain.q(seen.observations, normal(actions))
        torch.testing.assert_close(made.q(seen.observations, actions), expected)
        torch.testing.assert_close(made.first_q(seen.observations, actions), expected[0])
        torch.testing.assert_close(made.searched_q(seen.observations, actions), expected[0].detach())
    one = torch.full_like(seen.actions, 0.3)  # a shift of all actions at once is invisible
    torch.testing.assert_close(made.target_q(seen.observations, one), made.target_q(seen.observations, -one))


@pytest.mark.parametrize("search", ["softmax", "elites"])
def test_omar_without_weight_on_what_it_finds_is_cql(search: str) -> None:
    seen = views(precise_transitions(DATA, BATCH), team().agent, SPEC.action)
    cql = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0)).actor_losses(team(), seen)
    assert torch.equal(
        ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0, search=search)).actor_losses(team(), seen), cql
    )
    drawn = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=1.0, search=search)).actor_losses(team(), seen)
    assert not torch.allclose(drawn, cql)


def test_a_conservative_critic_keeps_down_what_the_data_never_show() -> None:
    """Of actions far from narrow data, a plain critic knows nothing and thinks little worse than of the data's."""
    data = bandit(-0.5, 0.05)
    far = torch.linspace(0.2, 1, 9)[None, None, :, None].expand(AGENTS, 1, 9, 2)

    def advantage(conservatism: float) -> float:
        config = OMARConfig(hidden=32, conservatism=conservatism, tau=0.0, normalise=False, batch_norm=False)
        learner = ContinuousOMAR(config)
        made = learner.new_team([data], Run(seeds=(0,)))
        trainer = TD3Trainer(learner, made, learner.config.sizes(data.spec), data.spec.action)
        drawn = joint_transitions([data], own_generators(5)[:1], batch_size=64, updates=300, device="cpu")
        for transitions in drawn:
            trainer.update(transitions)
        nothing = torch.zeros(AGENTS, 1, data.spec.obs_dim)
        with torch.no_grad():
            of_data = made.first_q(nothing, torch.full((AGENTS, 1, 1, 2), -0.5))
            return float((made.first_q(nothing, far) - of_data).mean())

    assert advantage(5.0) < -5
    assert advantage(0.0) > -3
