"""CFCQL: its losses against plain loops in float64, its updates, and problems with a known answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.checks import sample_dataset
from methods.algorithms.joint import unit_actions
from methods.base import Budget, Run
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import CFCQLTrainer, ContinuousCFCQL
from methods.networks.behaviour_vae import BehaviourVAE
from methods.networks.critics import twin_values
from methods.networks.policy import AgentPolicy
from methods.objectives.conservative import uniform_log_density
from methods.objectives.counterfactual import counterfactual_actions
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.problems import bandit, network, require_same_gradients

REPLICAS, AGENTS, HIDDEN, BATCH, SAMPLES = 2, 3, 8, 6, 4
DATA = [sample_dataset("continuous", episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
SPEC = DATA[0].spec


# -- against plain loops ----------------------------------------------------------------------------------------------


def generators(purpose: int, count: int = REPLICAS) -> list[np.random.Generator]:
    return [np.random.default_rng([purpose, r]) for r in range(count)]


def trainer(shape: str = "continuous", **config: Any) -> CFCQLTrainer:
    data = [sample_dataset(shape, episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
    settings = {"hidden": HIDDEN, "cql_samples": SAMPLES, "behaviour_hidden": 7, "behaviour_updates": 3}
    learner = ContinuousCFCQL(CFCQLConfig(**{**settings, "behaviour_samples": 2, "conservatism": 3.0, **config}))
    made = learner.new_trainer(data, Run(seeds=(0, 1)))
    made.agent.double()
    if made.vae is not None:
        made.vae.double()
    made._generators = generators(2)
    shift = torch.Generator().manual_seed(3)
    for name in ("actor_parameters", "critic_parameters", "target_actor", "target_critic"):
        precise = [p.detach().double() for p in getattr(made, name)]
        if name.startswith("target"):  # targets that differ from what they follow
            precise = [p + 0.1 * torch.randn(p.shape, generator=shift, dtype=torch.float64) for p in precise]
        setattr(made, name, [p.requires_grad_(not name.startswith("target")) for p in precise])
    return made


def batch(shape: str = "continuous") -> TransitionBatch:
    data = [sample_dataset(shape, episodes=20, seed=seed).without_privileged() for seed in range(REPLICAS)]
    drawn = next(joint_transitions(data, generators(4), batch_size=BATCH, updates=1, device="cpu"))
    terminals = torch.rand(drawn.terminals.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    precise = {name: getattr(drawn, name).double() for name in ("observations", "actions", "rewards")}
    return replace(drawn, **precise, next_observations=drawn.next_observations.double(), terminals=terminals)


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
        draw = generators(2)[r]
        self.noise = torch.from_numpy(draw.standard_normal((BATCH, self.n, self.size), dtype=np.float32)).double()
        uniform = draw.random((BATCH, self.n, SAMPLES, self.size), dtype=np.float32)
        self.candidates = 2 * torch.from_numpy(uniform).double() - 1
        self.draw = draw

    def policy(self, actors: Sequence[nn.Sequential], rows: Tensor) -> list[Tensor]:
        return [actors[i](rows[i]).tanh() for i in range(self.n)]

    def q(self, k: int, rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Q^k of one joint action for each b, which the critics see standardised over the batch."""
        joint = normal(torch.stack([torch.cat(list(row)) for row in rows]))
        return [self.critics[k](torch.cat([self.o[b].flatten(), joint[b]]))[0] for b in range(BATCH)]

    def targets(self) -> list[Tensor]:
        with torch.no_grad():
            rows = []
            for b in range(BATCH):
                chosen = self.policy(self.target_actors, self.o2[b])
                rows.append(torch.cat([(chosen[i] + 0.05 * self.noise[b, i]).clamp(-1, 1) for i in range(self.n)]))
            joint, found = normal(torch.stack(rows)), []
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
                joint = normal(torch.stack(rows)).view(BATCH, SAMPLES, -1)  # of one agent's candidates
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
        for i in range(self.n):
            rows = [list(self.a[b]) for b in range(BATCH)]
            for b in range(BATCH):
                rows[b][i] = chosen[b][i]
                total = total + 1e-3 * chosen[b][i].square().mean() / BATCH
            total = total - torch.stack(self.q(0, rows)).sum() / (BATCH * self.n)
        return total


def normal(rows: Tensor) -> Tensor:
    """What batch normalisation makes of rows (B, F)."""
    return (rows - rows.mean(dim=0)) / (rows.var(dim=0, correction=0) + 1e-5).sqrt()


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ("continuous", {}),
        ("one-agent", {}),
        ("continuous", {"weights": "behaviour", "temperature": -1.0}),
        ("continuous", {"weights": "behaviour", "temperature": 0.7}),
    ],
    ids=["uniform", "one agent", "softmin", "softmax"],
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
    made, transitions = trainer("one-agent", conservatism=1.0, batch_norm=False), batch("one-agent")
    seen = made.views(transitions)
    losses, _ = made.critic_losses(seen)
    made._generators = generators(2)
    made._settings = replace(made._settings, conservatism=0.0)
    plain_losses, _ = made.critic_losses(seen)
    candidates = torch.stack([Plain(made, transitions, r).candidates[:, 0] for r in range(REPLICAS)])  # (R, B, K, A)
    states, recorded = seen.states, seen.actions  # (R, B, S), (R, B, 1, A)
    q = twin_values(made.critic_parameters, states, candidates)  # (2, R, B, K)
    of_data = twin_values(made.critic_parameters, states, recorded).squeeze(-1)
    gap = ((q - uniform_log_density(2)).logsumexp(dim=-1) - of_data).mean(dim=-1).sum(dim=0)  # OMAR, Eq. 2
    torch.testing.assert_close(losses - plain_losses, gap)


def test_the_actors_move_at_the_first_of_five_steps_and_the_targets_at_the_last() -> None:
    learner = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN, cql_samples=2, polyak=0.25))
    made = learner.new_trainer(DATA, Run(seeds=(0, 1)))
    drawn = joint_transitions(DATA, generators(4), batch_size=8, updates=7, device="cpu")
    before_target = [p.clone() for p in made.target_critic]
    actors_moved, critics_moved, targets_moved = [], [], []
    for transitions in drawn:
        actor, critic = made.actor_parameters[0].detach().clone(), made.critic_parameters[0].detach().clone()
        target = made.target_critic[0].clone()
        told = made.update(transitions)
        actors_moved.append(not torch.equal(actor, made.actor_parameters[0]))
        critics_moved.append(not torch.equal(critic, made.critic_parameters[0]))
        targets_moved.append(not torch.equal(target, made.target_critic[0]))
        assert ("actor_loss" in told) == actors_moved[-1]
        if targets_moved[-1]:
            for now, old, current in zip(made.target_critic, before_target, made.critic_parameters, strict=True):
                torch.testing.assert_close(now, old + 0.25 * (current.detach() - old))
    assert actors_moved == [True, False, False, False, False, True, False]
    assert targets_moved == [False, False, False, False, True, False, False]
    assert all(critics_moved)


def test_gradients_are_clipped_for_every_actor_and_for_the_critics_of_a_replica() -> None:
    data = [d.replace(rewards=1e4 * d.rewards) for d in DATA]
    made = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN, output_penalty=1e3)).new_trainer(data, Run(seeds=(0, 1)))
    with torch.no_grad():
        for parameter in (made.actor_parameters[-2], made.critic_parameters[-2]):
            parameter.mul_(1e3)
    made.update(next(joint_transitions(data, generators(4), batch_size=8, updates=1, device="cpu")))

    def norms(parameters: Sequence[Tensor], groups: int) -> Tensor:
        flat = [p.grad.view(groups, -1) for p in parameters if p.grad is not None]
        return torch.cat(flat, dim=1).norm(dim=1)

    torch.testing.assert_close(norms(made.critic_parameters, REPLICAS), torch.full((REPLICAS,), 0.5))
    torch.testing.assert_close(
        norms(made.actor_parameters, REPLICAS * AGENTS), torch.full((REPLICAS * AGENTS,), 0.5), atol=1e-4, rtol=1e-4
    )


# -- known answers ----------------------------------------------------------------------------------------------------


def fit(learner: ContinuousCFCQL, data: Sequence[OfflineDataset], updates: int) -> AgentPolicy:
    run = Run(seeds=tuple(range(len(data))), budget=Budget(updates=updates, batch_size=64))
    return learner.fit(data, run)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 4.0)])
def test_the_best_action_of_a_bandit_is_found(bounds: tuple[float, float]) -> None:
    """The data lie around −0.1, where cloning would stay; the optimum is at 0.3 for every agent."""
    data, (low, high) = bandit(-0.1, 0.5, *bounds), bounds
    learner = ContinuousCFCQL(
        CFCQLConfig(hidden=32, learning_rate=0.01, conservatism=0.01, cql_samples=2, batch_norm=False)
    )
    action, _ = fit(learner, [data], updates=500).act(data.observations[None, :1], None)
    np.testing.assert_allclose((action - low) / (high - low) * 2 - 1, 0.3, atol=0.12)


def test_the_best_action_is_found_with_weights_by_behaviour() -> None:
    data = bandit(-0.1, 0.5)
    config = CFCQLConfig(hidden=32, learning_rate=0.01, conservatism=0.01, batch_norm=False, weights="behaviour")
    small = {"behaviour_hidden": 16, "behaviour_updates": 50, "behaviour_samples": 2, "cql_samples": 2}
    learner = ContinuousCFCQL(replace(config, **small))
    action, _ = fit(learner, [data], updates=500).act(data.observations[None, :1], None)
    np.testing.assert_allclose(action, 0.3, atol=0.15)


def test_a_conservative_critic_keeps_down_what_the_data_never_show() -> None:
    """One agent leaves narrow data, the others stay: a plain critic thinks little worse of it than of the data."""
    data = bandit(-0.5, 0.05)
    recorded = torch.full((1, 1, AGENTS, 2), -0.5)
    far = torch.linspace(0.2, 1, 9)[:, None].expand(1, 1, AGENTS, 9, 2)

    def advantage(conservatism: float) -> float:
        config = CFCQLConfig(
            hidden=32, conservatism=conservatism, normalise=False, learning_rate=0.01, batch_norm=False
        )
        learner = ContinuousCFCQL(config)
        made = learner.new_trainer([data], Run(seeds=(0,)))
        for transitions in joint_transitions([data], generators(5, 1), batch_size=64, updates=300, device="cpu"):
            made.update(transitions)
        state = torch.zeros(1, 1, AGENTS * data.spec.obs_dim)
        with torch.no_grad():
            of_data = twin_values(made.critic_parameters, state, recorded.flatten(2).unsqueeze(2))
            joint = counterfactual_actions(recorded, far).flatten(2, 3)  # (1, 1, N · 9, N · A)
            return float((twin_values(made.critic_parameters, state, joint) - of_data).mean())

    assert advantage(5.0) < -5
    assert advantage(0.0) > -3


def test_a_later_reward_counts_discounted_and_not_beyond_a_true_end() -> None:
    """Q of the data: the team is paid 1 a step; without an end 1 / (1 − γ), with one at every step 1."""
    data = sample_dataset("continuous", episodes=20).without_privileged()
    data = data.replace(rewards=np.full_like(data.rewards, 1 / AGENTS))
    config = CFCQLConfig(hidden=32, conservatism=0.0, discount=0.5, polyak=0.3, learning_rate=0.01)
    going_on = fit(ContinuousCFCQL(config), [data], updates=400).diagnosis(0)["final_q"]
    ended = data.replace(terminals=np.ones_like(data.terminals))
    at_once = fit(ContinuousCFCQL(config), [ended], updates=300).diagnosis(0)["final_q"]
    assert going_on == pytest.approx(2.0, abs=0.15)
    assert at_once == pytest.approx(1.0, abs=0.1)


def test_the_team_is_paid_by_the_rule_of_the_task() -> None:
    learner = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN))
    transitions = batch()
    for rule, expected in (("sum", transitions.rewards.sum(-1)), ("first", transitions.rewards[..., 0])):
        data = [replace(d, spec=replace(SPEC, team_reward=rule)) for d in DATA]
        made = learner.new_trainer(data, Run(seeds=(0, 1)))
        torch.testing.assert_close(made.views(transitions).rewards, expected)


def test_a_model_of_the_data_likes_what_they_show() -> None:
    """Trained on actions around −0.5: these are likelier than 0.5, for the agent alone that does the latter."""
    data = bandit(-0.5, 0.1)
    learner = ContinuousCFCQL(
        CFCQLConfig(weights="behaviour", behaviour_hidden=32, behaviour_updates=0, normalise=False)
    )
    run = Run(seeds=(0,))
    made = learner.new_trainer([data], run)
    made._settings = replace(made._settings, behaviour_updates=300, behaviour_learning_rate=1e-3)
    assert isinstance(made.vae, BehaviourVAE)
    made.fit_behaviour(made.vae.requires_grad_(), [data], run)
    actions = torch.full((1, 1, AGENTS, 2), -0.5)
    actions[:, :, 1] = 0.5
    noise = torch.randn(20, 1, 1, made.vae.latent, generator=torch.Generator().manual_seed(0))
    found = made.vae.log_likelihoods(torch.zeros(1, 1, AGENTS * data.spec.obs_dim), actions, noise)[0, 0]
    assert float(found[1]) < float(found[0]) - 1
    assert float(found[1]) < float(found[2]) - 1


def test_seeds_weighed_by_behaviour_do_not_touch_each_other() -> None:
    config = CFCQLConfig(hidden=HIDDEN, weights="behaviour", behaviour_hidden=8, behaviour_updates=5)
    poisoned = DATA[1].replace(observations=np.full_like(DATA[1].observations, np.nan))
    budget = Budget(updates=6, batch_size=8)
    alone = ContinuousCFCQL(config).fit(DATA[:1], Run(seeds=(0,), budget=budget, original=DATA[0]))
    together = ContinuousCFCQL(config).fit([DATA[0], poisoned], Run(seeds=(0, 1), budget=budget, original=DATA[0]))
    assert together.diverged(1)
    for name, array in alone.state(0).items():
        np.testing.assert_allclose(together.state(0)[name], array, atol=1e-5, rtol=1e-5)


def test_actors_start_small() -> None:
    last = list(ContinuousCFCQL(CFCQLConfig(hidden=16)).new_agent(SPEC, generators(0)).net.parameters())[-2].detach()
    assert 2.5e-3 < float(last.abs().max()) <= 3e-3


def test_settings_follow_the_family() -> None:
    particles, locomotion = CFCQLConfig().settings(SPEC), CFCQLConfig().settings(replace(SPEC, family="mamujoco"))
    assert (particles.hidden, particles.learning_rate, particles.polyak, particles.batch_size) == (64, 1e-3, 0.01, 1024)
    assert (locomotion.hidden, locomotion.learning_rate, locomotion.polyak) == (256, 3e-4, 0.005)
    assert CFCQLConfig(learning_rate=0.5).settings(SPEC).learning_rate == 0.5


def test_actions_are_mapped_from_their_bounds() -> None:
    data = bandit(-0.1, 0.5, 0.0, 4.0)
    made = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN)).new_trainer([data], Run(seeds=(0,)))
    transitions = next(joint_transitions([data], generators(0, 1), batch_size=8, updates=1, device="cpu"))
    torch.testing.assert_close(made.views(transitions).actions, unit_actions(transitions.actions, data.spec.action))
    assert float(made.views(transitions).actions.min()) < 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conservatism": -1.0}, "conservatism"),
        ({"target_noise": float("inf")}, "target_noise"),
        ({"cql_samples": 0}, "cql_samples"),
        ({"ca_ratio": 0}, "ca_ratio"),
        ({"weights": "x"}, "uniform or behaviour"),
        ({"temperature": float("nan")}, "temperature"),
        ({"behaviour_updates": -1}, "behaviour_updates"),
        ({"behaviour_learning_rate": 0.0}, "behaviour_learning_rate"),
        ({"learning_rate": 0.0}, "cfcql: learning_rate"),
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CFCQLConfig(**given)
