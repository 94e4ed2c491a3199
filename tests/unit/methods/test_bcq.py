"""BCQ for continuous actions: equations on numbers worked by hand, losses against plain loops, and acting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods.algorithms.team import views
from methods.base import Budget, LearnedPolicy, Run
from methods.data.batches import TransitionBatch, joint_transitions
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.continuous import BCQTrainer, ContinuousBCQ
from methods.networks import best_of
from methods.objectives.batch_constrained import perturbed, soft_clipped_target
from methods.objectives.behaviour_vae import vae_loss
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.problems import bandit, network, own_generators, precise_transitions, require_same_gradients
from tests.unit.methods.small_trainers import AGENTS, REPLICAS, datasets

BATCH = 8
DATA = datasets("continuous", 20)
SPEC = DATA[0].spec
SMALL = BCQConfig(hidden=9, second_hidden=7, vae_hidden=8, target_samples=3, proposals=5)


def test_actions_are_moved_by_a_limited_amount_and_stay_within_bounds() -> None:
    found = perturbed(torch.tensor([0.5, 0.99, -0.2]), torch.tensor([-100.0, 100.0, 0.0]), 0.05)
    assert found.tolist() == pytest.approx([0.45, 1.0, -0.2])


def test_the_target_on_numbers() -> None:
    """λ = 0.75: candidate 0 is worth 0.75 · 1 + 0.25 · 5 = 2, candidate 1 0.75 · 2 + 0.25 · 3 = 2.25."""
    next_q = torch.tensor([[[1.0, 3.0]], [[5.0, 2.0]]]).expand(2, 2, 2)  # (2, B = 2, S = 2)
    found = soft_clipped_target(torch.tensor([1.0, 1.0]), torch.tensor([False, True]), next_q, 0.5, 0.75)
    assert found.tolist() == [2.125, 1.0]  # 1 + 0.5 · 2.25, and the reward alone


def test_the_loss_of_the_model_of_the_data_on_numbers() -> None:
    """Errors 1 and 0; KL of N(1, 1) is 1/2, of N(0, 4) is (4 − 1)/2 − ln 2."""
    rebuilt, recorded = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    mean, log_std = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(2.0)]])
    expected = 0.5 + 0.5 * (0.5 + 1.5 - math.log(2.0)) / 2
    assert float(vae_loss(rebuilt, recorded, mean, log_std)) == pytest.approx(expected)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(vae_loss(recorded, recorded, mean, log_std, 1.0), divergence)


# -- against plain loops ----------------------------------------------------------------------------------------------


def trainer() -> BCQTrainer:
    made = ContinuousBCQ(SMALL).new_trainer(DATA, Run(seeds=(0, 1)))
    shift = torch.Generator().manual_seed(3)
    for module in (made.agent, made.vae, made.target_perturbation, made.target_critics):
        module.double()
    for module in (made.target_perturbation, made.target_critics):  # targets that differ from what they follow
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    made._generators = own_generators(2)
    return made


def draws(*shape: int) -> Tensor:
    """What the noise generators give first, (R, N, *shape)."""
    drawn = [generator.standard_normal((AGENTS, *shape), dtype=np.float32) for generator in own_generators(2)]
    return torch.from_numpy(np.stack(drawn)).double()


class Plain:
    """One agent of one replica in torch's modules, with its rows of the batch."""

    def __init__(self, made: BCQTrainer, transitions: TransitionBatch, r: int, i: int) -> None:
        g, scale = r * AGENTS + i, made.agent.scaler
        self.encoder, self.decoder = (
            network(list(made.vae.encoder.parameters()), g),
            network(list(made.vae.decoder.parameters()), g),
        )
        self.perturbation, self.target_perturbation = (
            network(list(made.agent.perturbation.parameters()), g),
            network(list(made.target_perturbation.parameters()), g),
        )
        self.critics = [network(list(made.agent.critics.parameters()), 2 * g + k) for k in range(2)]
        self.target_critics = [network(list(made.target_critics.parameters()), 2 * g + k) for k in range(2)]
        self.o = (transitions.observations[r, :, i] - scale.mean[r, i]) / scale.scale[r, i]
        self.o2 = (transitions.next_observations[r, :, i] - scale.mean[r, i]) / scale.scale[r, i]
        self.a, self.rewards = transitions.actions[r, :, i], transitions.rewards[r, :, i]
        self.ends = transitions.terminals[r]

    def proposed(self, perturbation: nn.Module, o: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            action = self.decoder(torch.cat([o, z.clamp(-0.5, 0.5)])).tanh()
        return (action + 0.05 * perturbation(torch.cat([o, action])).tanh()).clamp(-1, 1)

    def vae_loss(self, noise: Tensor) -> Tensor:
        raw = self.encoder(torch.cat([self.o, self.a], dim=1))
        mean, std = raw[:, :4], raw[:, 4:].clamp(-4, 15).exp()
        rebuilt = self.decoder(torch.cat([self.o, mean + std * noise], dim=1)).tanh()
        kl = -0.5 * (1 + std.pow(2).log() - mean.pow(2) - std.pow(2)).mean()  # as BCQ's repository has it
        return (rebuilt - self.a).square().mean() + 0.5 * kl

    def critic_loss(self, noise: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for b in range(BATCH):
            values = []
            for z in noise[b]:
                with torch.no_grad():
                    x = torch.cat([self.o2[b], self.proposed(self.target_perturbation, self.o2[b], z)])
                    pair = [float(critic(x)) for critic in self.target_critics]
                values.append(0.75 * min(pair) + 0.25 * max(pair))
            y = float(self.rewards[b]) + (0.0 if self.ends[b] else 0.99 * max(values))
            for critic in self.critics:
                total = total + (critic(torch.cat([self.o[b], self.a[b]]))[0] - y).square() / BATCH
        return total

    def actor_loss(self, noise: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for b in range(BATCH):
            action = self.proposed(self.perturbation, self.o[b], noise[b, 0])
            total = total - self.critics[0](torch.cat([self.o[b], action]))[0] / BATCH
        return total


@pytest.mark.parametrize("part", ["vae", "critic", "actor"])
def test_losses_and_gradients_equal_plain_loops(part: str) -> None:
    made, transitions = trainer(), precise_transitions(DATA, BATCH, random_ends=True)
    seen = views(transitions, made.agent, SPEC.action)
    if part == "vae":
        noise, losses, module = draws(BATCH, 4), made.vae_losses(seen), made.vae
    elif part == "critic":
        noise, losses, module = draws(BATCH, 3, 4), made.critic_losses(seen)[0], made.agent.critics
    else:
        noise, losses, module = draws(BATCH, 1, 4), made.actor_losses(seen), made.agent.perturbation
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(losses.sum(), parameters)
    for r in range(REPLICAS):
        for i in range(AGENTS):
            plain, g = Plain(made, transitions, r, i), r * AGENTS + i
            loss = getattr(plain, f"{part}_loss")(noise[r, i])
            torch.testing.assert_close(losses[g], loss, atol=1e-6, rtol=1e-6)
            if part == "vae":
                encoder = len(list(made.vae.encoder.parameters()))
                require_same_gradients(gradients[:encoder], loss, [plain.encoder], g)
                require_same_gradients(gradients[encoder:], loss, [plain.decoder], g)
            elif part == "critic":
                require_same_gradients(gradients, loss, plain.critics, 2 * g)
            else:
                require_same_gradients(gradients, loss, [plain.perturbation], g)


def test_each_loss_moves_its_own_networks() -> None:
    """The perturbation's loss touches neither decoder nor critics, that of the critics no perturbation."""
    made, seen = trainer(), views(precise_transitions(DATA, BATCH, random_ends=True), trainer().agent, SPEC.action)
    for losses, others in (
        (made.actor_losses(seen), [*made.vae.parameters(), *made.agent.critics.parameters()]),
        (made.critic_losses(seen)[0], [*made.vae.parameters(), *made.agent.perturbation.parameters()]),
        (made.vae_losses(seen), [*made.agent.critics.parameters(), *made.agent.perturbation.parameters()]),
    ):
        assert all(g is None for g in torch.autograd.grad(losses.sum(), others, allow_unused=True))


def test_targets_follow_slowly() -> None:
    made = ContinuousBCQ(replace(SMALL, polyak=0.25)).new_trainer(DATA, Run(seeds=(0, 1)))
    pairs = ((made.target_critics, made.agent.critics), (made.target_perturbation, made.agent.perturbation))
    before = [[p.clone() for p in target.parameters()] for target, _ in pairs]
    made.update(next(joint_transitions(DATA, own_generators(4), batch_size=BATCH, updates=1, device="cpu")))
    for (target, current), old in zip(pairs, before, strict=True):
        for now, then, new in zip(target.parameters(), old, current.parameters(), strict=True):
            torch.testing.assert_close(now, then + 0.25 * (new.detach() - then))


# -- acting -----------------------------------------------------------------------------------------------------------


def fit(
    learner: ContinuousBCQ, data: Sequence[OfflineDataset], updates: int, seeds: tuple[int, ...] | None = None
) -> LearnedPolicy:
    run = Run(seeds=seeds or tuple(range(len(data))), budget=Budget(updates=updates, batch_size=64))
    return learner.fit(data, run)


def test_the_best_proposal_by_the_first_critic_is_taken() -> None:
    made = trainer()
    rows = DATA[0].observations[:4].astype(np.float64)  # (B, N, D)
    found = made.agent(torch.from_numpy(np.stack([rows, rows])))  # (R, B, N, A)
    transitions = precise_transitions(DATA, BATCH, random_ends=True)
    for r in range(REPLICAS):
        for i in range(AGENTS):
            plain, scale = Plain(made, transitions, r, i), made.agent.scaler
            for b in range(4):
                o = (torch.from_numpy(rows[b, i]) - scale.mean[r, i]) / scale.scale[r, i]
                with torch.no_grad():
                    actions = [plain.proposed(plain.perturbation, o, z) for z in made.agent.latents[r * AGENTS + i]]
                    values = [float(plain.critics[0](torch.cat([o, a]))) for a in actions]
                torch.testing.assert_close(found[r, b, i].detach(), actions[int(np.argmax(values))])


def test_a_policy_is_a_function_of_the_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called again, in slices, or loaded elsewhere it does the same; its latents are those of its seed."""
    policy = fit(ContinuousBCQ(SMALL), DATA, updates=3)
    rows = np.stack([DATA[0].observations[:6]] * 2)
    first, memory = policy.act(rows, None)
    assert memory is None
    np.testing.assert_array_equal(policy.act(rows, None)[0], first)
    states = [policy.state(1), policy.state(0)]  # in another order
    loaded = ContinuousBCQ(SMALL).load_policy(states, SPEC, "cpu")
    np.testing.assert_array_equal(loaded.act(rows, None)[0], first[::-1])
    monkeypatch.setattr(best_of, "_SLICE_VALUES", 1)  # one environment at a time
    np.testing.assert_allclose(policy.act(rows, None)[0], first, atol=1e-6)
    latents = policy.state(0)["latents"]
    assert latents.shape == (AGENTS, 5, 4)
    assert np.abs(latents).max() == 0.5
    np.testing.assert_array_equal(fit(ContinuousBCQ(SMALL), DATA[:1], updates=1).state(0)["latents"], latents)
    other = fit(ContinuousBCQ(SMALL), DATA[:1], updates=1, seeds=(5,)).state(0)["latents"]
    assert not np.array_equal(other, latents)


def test_a_policy_of_another_config_is_refused() -> None:
    states = [fit(ContinuousBCQ(SMALL), DATA[:1], updates=1).state(0)]
    with pytest.raises(MethodError, match="latents"):
        ContinuousBCQ(replace(SMALL, proposals=6)).load_policy(states, SPEC, "cpu")
    with pytest.raises(MethodError, match="differ in"):
        ContinuousBCQ(SMALL).load_policy([{k: v for k, v in states[0].items() if k != "latents"}], SPEC, "cpu")


def test_training_tells_its_losses() -> None:
    told = fit(ContinuousBCQ(SMALL), DATA, updates=3).diagnosis(1)
    assert set(told) == {"final_vae_loss", "final_critic_loss", "final_actor_loss", "final_q"}


# -- known answers ----------------------------------------------------------------------------------------------------


NARROW = BCQConfig(hidden=32, second_hidden=32, vae_hidden=32)


def test_an_agent_stays_near_its_data_though_the_critic_promises_more_elsewhere() -> None:
    """Data narrow around −0.5: the optimum 0.3 is out of reach, at most Φ and the width of the data away."""
    data = bandit(-0.5, 0.05)
    action, _ = fit(ContinuousBCQ(NARROW), [data], updates=300).act(data.observations[None, :1], None)
    assert float(action.max()) < -0.2
    assert float(action.min()) > -0.6
