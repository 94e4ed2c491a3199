"""`td3bc`, `omar`, `cql` against plain loops over seeds and agents in float64, and on problems with a known answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.algorithms.independent_td3 import IndependentTD3, TD3Trainer, critic_losses
from methods.algorithms.team import Team, views
from methods.base import Budget, Run, UnsupportedError
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.continuous import ContinuousTD3BC
from methods.networks.agents import MLPAgent
from methods.networks.critics import TwinCritics
from methods.networks.policy import AgentPolicy
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.problems import bandit, network, require_same_gradients

REPLICAS, AGENTS, HIDDEN, BATCH = 2, 3, 8, 16
DATA = [sample_dataset("continuous", episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
SPEC = DATA[0].spec


def generators(purpose: int) -> list[np.random.Generator]:
    return [np.random.default_rng([purpose, r]) for r in range(REPLICAS)]


def team() -> Team:
    agent = MLPAgent(SPEC, HIDDEN, False, generators(0)).double()
    agent.scaler.fit(DATA, None)
    critics = TwinCritics((SPEC.obs_dim, SPEC.action.size, HIDDEN), generators(1), AGENTS).double()
    made = Team(agent, critics, generators(2))
    shift = torch.Generator().manual_seed(3)
    for target in (made.target_actor, made.target_critic):  # targets that differ from what they follow
        for parameter in target:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    return made


def batch() -> TransitionBatch:
    drawn = next(joint_transitions(DATA, generators(4), batch_size=BATCH, updates=1, device="cpu"))
    precise = {name: getattr(drawn, name).double() for name in ("observations", "actions", "rewards")}
    return replace(drawn, **precise, next_observations=drawn.next_observations.double())


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
    for generator in generators(2):
        kind = generator.random if uniform else generator.standard_normal
        found.append([kind((AGENTS, *shape), dtype=np.float32) for _ in range(count)])
    return found


@pytest.mark.parametrize("form", ["lambda", "tau"])
def test_td3bc_equals_plain_loops(form: str) -> None:
    made, transitions = team(), batch()
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


def test_cql_equals_plain_loops() -> None:
    made, transitions = team(), batch()
    learner = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0, conservatism=3.0, cql_samples=4))
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

            policy = plain.actor(plain.o).tanh()
            loss = -plain.q(0, plain.o, policy).mean() + 1e-3 * policy.square().mean()
            torch.testing.assert_close(actor_losses[g], loss, atol=1e-6, rtol=1e-6)
            require_same_gradients(of_actors, loss, [plain.actor], g)


def test_the_penalty_may_draw_actions_of_the_policy() -> None:
    """K uniform ones, K near π(o'), K near π(o), all judged at o and weighed by their own density (HalfCheetah)."""
    made, transitions = team(), batch()
    learner = ContinuousOMAR(OMARConfig(hidden=HIDDEN, cql_samples=2, policy_actions=True))
    seen = views(transitions, made.agent, SPEC.action)
    recorded = made.q(seen.observations, seen.actions.unsqueeze(2)).squeeze(-1)
    penalty = learner.critic_penalty(made, seen, recorded)
    assert penalty is not None
    generator, plain = generators(2)[0], Plain(made, transitions, 0, 1)
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
    made = Team(plain.agent, TwinCritics((1, 1, 1), generators(1), AGENTS), generators(2), batch_norm=True)
    for name in ("actor_parameters", "critic_parameters", "target_actor", "target_critic"):
        setattr(made, name, getattr(plain, name))
    seen = views(batch(), made.agent, SPEC.action)
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
    seen = views(batch(), team().agent, SPEC.action)
    cql = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0)).actor_losses(team(), seen)
    assert torch.equal(
        ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=0.0, search=search)).actor_losses(team(), seen), cql
    )
    drawn = ContinuousOMAR(OMARConfig(hidden=HIDDEN, tau=1.0, search=search)).actor_losses(team(), seen)
    assert not torch.allclose(drawn, cql)


def fit(
    learner: IndependentTD3[Any], data: Sequence[OfflineDataset], updates: int = 400, batch_size: int = 64
) -> AgentPolicy:
    run = Run(seeds=tuple(range(len(data))), budget=Budget(updates=updates, batch_size=batch_size))
    return learner.fit(data, run)


QUICK: dict[str, Any] = {
    "hidden": 32,
    "learning_rate": 3e-3,
    "batch_norm": False,
    "conservatism": 0.01,
    "cql_samples": 4,
}
LEARNERS: list[IndependentTD3[Any]] = [
    ContinuousTD3BC(TD3BCConfig(hidden=32, alpha=50.0)),
    ContinuousOMAR(OMARConfig(**QUICK)),
    ContinuousOMAR(OMARConfig(**QUICK, search="elites", samples=20, iterations=2)),
    ContinuousOMAR(OMARConfig(**QUICK, tau=0.0)),
]


@pytest.mark.parametrize("learner", LEARNERS, ids=["td3bc", "omar", "omar-elites", "cql"])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 4.0)])
def test_the_best_action_of_a_bandit_is_found(learner: IndependentTD3[Any], bounds: tuple[float, float]) -> None:
    """The data lie around −0.1, where cloning would stay; the optimum is at 0.3.

    Batch normalisation hides from a critic what all actions of a batch have in common, and here there is nothing else.
    """
    data, (low, high) = bandit(-0.1, 0.5, *bounds), bounds
    action, _ = fit(learner, [data], updates=500, batch_size=32).act(data.observations[None, :1], None)
    np.testing.assert_allclose((action - low) / (high - low) * 2 - 1, 0.3, atol=0.12)


def test_a_conservative_critic_keeps_down_what_the_data_never_show() -> None:
    """Of actions far from narrow data, a plain critic knows nothing and thinks little worse than of the data's."""
    data = bandit(-0.5, 0.05)
    far = torch.linspace(0.2, 1, 9)[None, None, :, None].expand(AGENTS, 1, 9, 2)

    def advantage(conservatism: float) -> float:
        config = OMARConfig(hidden=32, conservatism=conservatism, tau=0.0, normalise=False, batch_norm=False)
        learner = ContinuousOMAR(config)
        made = learner.new_team([data], Run(seeds=(0,)))
        trainer = TD3Trainer(learner, made, learner.config.sizes(data.spec), data.spec.action)
        drawn = joint_transitions([data], generators(5)[:1], batch_size=64, updates=300, device="cpu")
        for transitions in drawn:
            trainer.update(transitions)
        nothing = torch.zeros(AGENTS, 1, data.spec.obs_dim)
        with torch.no_grad():
            of_data = made.first_q(nothing, torch.full((AGENTS, 1, 1, 2), -0.5))
            return float((made.first_q(nothing, far) - of_data).mean())

    assert advantage(5.0) < -5
    assert advantage(0.0) > -3


def test_a_later_reward_counts_discounted_and_not_beyond_a_true_end() -> None:
    """Q of the data: r = 1 each step; without an end 1 / (1 − γ), with one at every step 1."""
    data = sample_dataset("continuous", episodes=20).without_privileged()
    data = data.replace(rewards=np.ones_like(data.rewards))
    config = OMARConfig(hidden=32, conservatism=0.0, tau=0.0, discount=0.5, polyak=0.1)
    going_on = fit(ContinuousOMAR(config), [data], updates=300).diagnosis(0)["final_q"]
    ended = data.replace(terminals=np.ones_like(data.terminals))
    at_once = fit(ContinuousOMAR(config), [ended], updates=300).diagnosis(0)["final_q"]
    assert going_on == pytest.approx(2.0, abs=0.15)
    assert at_once == pytest.approx(1.0, abs=0.1)


def test_actors_of_omar_start_small() -> None:
    agent = ContinuousOMAR(OMARConfig(hidden=16)).new_agent(SPEC, generators(0))
    last = list(agent.net.parameters())[-2].detach()
    assert 2.5e-3 < float(last.abs().max()) <= 3e-3


def test_what_cannot_be_learned_from_is_an_error_before_training() -> None:
    learner = ContinuousTD3BC(TD3BCConfig(hidden=8))
    rewards = DATA[0].rewards.copy()
    rewards[7, 1] = np.nan
    with pytest.raises(DataError, match="1 rewards are not finite, the first at step 7"):
        fit(learner, [DATA[0].replace(rewards=rewards)])
    with pytest.raises(UnsupportedError, match="no transition"):
        fit(learner, [OfflineDataset.empty(SPEC)])
    with pytest.raises(UsageError, match="1 datasets for 2 seeds"):
        learner.fit([DATA[0]], Run(seeds=(0, 1)))


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (TD3BCConfig, {"alpha": -1.0}, "alpha"),
        (TD3BCConfig, {"form": "x"}, "lambda or tau"),
        (TD3BCConfig, {"learning_rate": 0.0}, "td3bc: learning_rate=0"),
        (TD3BCConfig, {"polyak": 1.5}, "polyak"),
        (TD3BCConfig, {"hidden": 0}, "hidden"),
        (OMARConfig, {"tau": 2.0}, "tau"),
        (OMARConfig, {"search": "x"}, "softmax or elites"),
        (OMARConfig, {"search": "elites", "elites": 11}, "2 to 10"),
        (OMARConfig, {"conservatism": float("inf")}, "conservatism"),
        (OMARConfig, {"samples": 0}, "samples"),
        (OMARConfig, {"search_sigma": 0.0}, "search_sigma"),
    ],
)
def test_settings_without_a_meaning_are_refused(config: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**given)


def test_sizes_follow_the_family() -> None:
    particles, locomotion = SPEC, replace(SPEC, family="mamujoco")
    assert TD3BCConfig().sizes(particles).hidden == 64
    assert TD3BCConfig().sizes(locomotion).hidden == 256
    assert TD3BCConfig(hidden=5).sizes(locomotion).hidden == 5
