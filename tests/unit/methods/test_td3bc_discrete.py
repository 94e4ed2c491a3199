"""TD3+BC for discrete actions: sampled actions, losses against plain loops in float64, games with a known answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from benchmark.plugins import method_checks
from methods.algorithms.independent_td3 import LOCOMOTION, PARTICLES
from methods.base import Budget, Run, UnsupportedError
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.learners.td3bc import TD3BC
from methods.learners.td3bc.config import CHOICES, TD3BCConfig
from methods.learners.td3bc.discrete import DiscreteTD3BC, DiscreteTD3BCTrainer
from methods.networks.agents import GRUAgent
from methods.objectives.cloning import negative_log_likelihood
from methods.objectives.discrete_td3 import mixed_actor_loss, normalised_actor_loss
from methods.objectives.gumbel import gumbel, straight_through
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.plain import outputs, perceptron
from tests.unit.methods.problems import PAYOFF, first_choice, game

REPLICAS, AGENTS = 2, 3
SHAPES = ["discrete", "states-and-deaths"]


# -- equations --------------------------------------------------------------------------------------------------------


def test_gumbel_values_on_numbers() -> None:
    """−log E: of 1 it is 0, of 1/e it is 1; a draw of 0 is no infinity."""
    found = gumbel(torch.tensor([1.0, math.exp(-1), 0.0]))
    assert found[:2].tolist() == pytest.approx([0.0, 1.0])
    assert torch.isfinite(found).all()


def test_a_sampled_action_is_one_hot_and_has_the_gradient_of_the_softmax() -> None:
    """ℓ + g = (0, ln 3, 9, 0) without the third: p = (1, 3, 0, 1) / 5, so ∂p_1/∂ℓ = 3/5 (−1/5, 2/5, 0, −1/5)."""
    logits = torch.tensor([0.0, math.log(3.0) - 1, 5.0, 2.0], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.0, 1.0, 4.0, -2.0], dtype=torch.float64)
    found = straight_through(logits, torch.tensor([True, True, False, True]), noise)
    assert found.tolist() == [0.0, 1.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(found[1], logits)
    assert gradient.tolist() == pytest.approx([-3 / 25, 6 / 25, 0.0, -3 / 25])


def test_draws_follow_the_categorical_over_available_actions() -> None:
    logits, available = torch.tensor([1.0, 0.0, 3.0, -1.0]), torch.tensor([True, True, False, True])
    noise = gumbel(torch.from_numpy(np.random.default_rng(0).standard_exponential((20_000, 4), dtype=np.float32)))
    found = straight_through(logits.expand(20_000, 4), available.expand(20_000, 4), noise).mean(dim=0)
    expected = logits.masked_fill(~available, -math.inf).softmax(-1)
    assert float((found - expected).abs().max()) < 0.02
    assert found[2] == 0


def test_the_actors_losses_on_numbers() -> None:
    """Q = (1, −3) and (2, −2) of two agents at two steps, the third is padding: ⟨|Q|⟩ = 2 and ⟨Q⟩ = −1/2."""
    q = torch.tensor([[[1.0, -3.0], [2.0, -2.0], [math.nan, 9.0]]], requires_grad=True)
    valid, cloning = torch.tensor([[True, True, False]]), torch.tensor([0.75])
    assert normalised_actor_loss(q, cloning, valid, 3.0).tolist() == [0.75 + 3.0 / 2 * 0.5]
    assert mixed_actor_loss(q, cloning, valid, 0.75).tolist() == [0.75 * 0.75 + 0.25 * 0.5]
    (gradient,) = torch.autograd.grad(normalised_actor_loss(q, cloning, valid, 3.0).sum(), q)
    assert gradient[0].tolist() == [[-0.375, -0.375], [-0.375, -0.375], [0.0, 0.0]]  # none through λ


def test_the_scale_of_values_does_not_matter_and_positive_ones_weigh_alpha() -> None:
    q, valid = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.1, torch.ones(2, 4) > 0
    cloning = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(normalised_actor_loss(q, cloning, valid, 2.5), cloning - 2.5)
    torch.testing.assert_close(
        normalised_actor_loss(q - 0.4, cloning, valid, 2.5), normalised_actor_loss(7 * (q - 0.4), cloning, valid, 2.5)
    )
    nothing = torch.zeros_like(q)
    assert normalised_actor_loss(nothing, cloning, valid, 2.5).tolist() == cloning.tolist()


# -- against plain loops ----------------------------------------------------------------------------------------------


def generators(count: int = REPLICAS) -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(count)]


def datasets(shape: str) -> list[OfflineDataset]:
    return [sample_dataset(shape, episodes=6, seed=seed).without_privileged() for seed in range(REPLICAS)]


def made(
    shape: str = "discrete", data: Sequence[OfflineDataset] | None = None, **config: Any
) -> tuple[DiscreteTD3BCTrainer, SequenceBatch]:
    """A trainer in float64 whose targets differ from what they follow, and a batch of three episodes or steps."""
    learner = DiscreteTD3BC(TD3BCConfig(hidden=7, critic_hidden=6, **config))
    data = datasets(shape) if data is None else data
    trainer = learner.new_trainer(data, Run(seeds=tuple(range(len(data)))))
    shift = torch.Generator().manual_seed(3)
    for net in (trainer.actor, trainer.critic, trainer.target_actor, trainer.target_critic):
        net.double()
    for net in (trainer.target_actor, trainer.target_critic):
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    batch = next(draw(data, generators(len(data)), batch_size=3, updates=1, device="cpu"))
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return trainer, replace(
        batch, **{k: v.double() for k, v in found.items() if v is not None and v.is_floating_point()}
    )


def available(batch: SequenceBatch) -> Tensor:
    assert batch.available is not None
    return batch.available


def fixed_noise(trainer: DiscreteTD3BCTrainer, batch: SequenceBatch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Has the trainer use the same draws (R, T, B, N, A) from now on."""
    drawn = trainer.noise(torch.zeros(available(batch)[:, :-1].shape, dtype=torch.float64))
    monkeypatch.setattr(trainer, "noise", lambda like: drawn)
    return drawn


class Plain:
    """One replica's episodes without their padding, step by step and agent by agent."""

    def __init__(self, trainer: DiscreteTD3BCTrainer, batch: SequenceBatch, r: int) -> None:
        self.trainer, self.batch, self.r, self.mask = trainer, batch, r, available(batch)[r]
        self.lengths = batch.valid[r].sum(dim=0).tolist()

    def value(self, critic: Any, k: int, t: int, b: int, i: int, joint: Sequence[Tensor]) -> Tensor:
        """Q^k as agent i sees it, of one-hot actions of all agents."""
        rows, r = self.batch.observations[self.r, t, b], self.r
        state = rows.flatten() if self.batch.states is None else self.batch.states[r, t, b]
        x = torch.cat([state, rows[i], torch.eye(AGENTS, dtype=torch.float64)[i], *joint])
        return perceptron(critic.net.net, 2 * r + k, x)[0]

    def critic_loss(self) -> tuple[Tensor, Tensor]:
        errors, values, trainer, batch, r = [], [], self.trainer, self.batch, self.r
        hot = torch.eye(5, dtype=torch.float64)
        for b, length in enumerate(self.lengths):
            logits = outputs(trainer.target_actor, r, batch.observations[r, : length + 1, b])
            for t in range(length):
                best = [
                    max(torch.nonzero(self.mask[t + 1, b, i])[:, 0].tolist(), key=lambda a, x=own: float(x[a]))
                    for i, own in enumerate(logits[t + 1])
                ]
                for i in range(AGENTS):
                    y = batch.rewards[r, t, b].sum()
                    if not batch.terminals[r, t, b]:
                        joint = [hot[a] for a in best]
                        y = y + 0.99 * min(self.value(trainer.target_critic, k, t + 1, b, i, joint) for k in range(2))
                    recorded = [hot[a] for a in batch.actions[r, t, b]]
                    q = [self.value(trainer.critic, k, t, b, i, recorded) for k in range(2)]
                    errors.append(sum((own - y.detach()) ** 2 for own in q))
                    values.append(q[0])
        return torch.stack(errors).mean(), torch.stack(values).mean()  # type: ignore[arg-type]

    def actor_loss(self, noise: Tensor, form: str) -> Tensor:
        values, surprise, trainer, batch, r = [], [], self.trainer, self.batch, self.r
        for b, length in enumerate(self.lengths):
            logits = outputs(trainer.actor, r, batch.observations[r, :length, b])
            for t in range(length):
                sampled = []
                for i, own in enumerate(logits[t]):
                    legal = torch.nonzero(self.mask[t, b, i])[:, 0]
                    disturbed = own + noise[r, t, b, i]
                    p = torch.zeros(5, dtype=torch.float64).index_put((legal,), disturbed[legal].softmax(0))
                    hard = torch.eye(5, dtype=torch.float64)[p.argmax()]
                    sampled.append(hard + p - p.detach())
                    surprise.append(own[legal].logsumexp(0) - own[batch.actions[r, t, b, i]])
                for i in range(AGENTS):
                    joint = [action if j == i else action.detach() for j, action in enumerate(sampled)]
                    values.append(self.value(trainer.critic, 0, t, b, i, joint))
        q, cloning = torch.stack(values), torch.stack(surprise).mean()
        if form == "tau":
            return 0.7 * cloning - 0.3 * q.mean()
        return cloning - 2.5 / q.abs().mean().detach() * q.mean()


def require_equal(fast: Tensor, slow: Sequence[Tensor], parameters: list[Tensor]) -> None:
    expected = torch.stack(list(slow))
    torch.testing.assert_close(fast, expected, atol=1e-6, rtol=1e-6)
    mine, theirs = torch.autograd.grad(fast.sum(), parameters), torch.autograd.grad(expected.sum(), parameters)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_critics_loss_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made(shape, memory=memory)
    assert memory == "none" or not batch.valid.all()
    assert batch.terminals[batch.valid].any() or memory == "none"
    loss, q = trainer.critic_loss(batch, trainer.view(batch))
    slow = [Plain(trainer, batch, r).critic_loss() for r in range(REPLICAS)]
    require_equal(loss, [s[0] for s in slow], list(trainer.critic.parameters()))
    torch.testing.assert_close(q, torch.stack([s[1] for s in slow]).detach())


@pytest.mark.parametrize(
    ("shape", "memory", "form"),
    [("discrete", "gru", "lambda"), ("states-and-deaths", "none", "lambda"), ("states-and-deaths", "gru", "tau")],
)
def test_the_actors_loss_and_gradients_equal_plain_loops(
    shape: str, memory: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batch = made(shape, memory=memory, form=form)
    noise = fixed_noise(trainer, batch, monkeypatch)
    loss = trainer.actor_loss(batch, trainer.view(batch))
    unmoved = torch.autograd.grad(loss.sum(), list(trainer.critic.parameters()), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in unmoved)  # actors teach the critics nothing
    slow = [Plain(trainer, batch, r).actor_loss(noise, form) for r in range(REPLICAS)]
    require_equal(loss, slow, list(trainer.actor.parameters()))


def test_without_weight_on_values_the_gradient_is_that_of_cloning() -> None:
    trainer, batch = made(alpha=0.0)
    logits = trainer.actor(batch.observations)[0][:, :-1]
    cloning = negative_log_likelihood(logits, batch.actions, available(batch)[:, :-1], batch.valid)
    loss = trainer.actor_loss(batch, trainer.view(batch))
    parameters = list(trainer.actor.parameters())
    pairs = [torch.autograd.grad(x.sum(), parameters) for x in (loss, cloning)]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_scale_of_the_critic_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = made()
    fixed_noise(trainer, batch, monkeypatch)
    parameters, found = list(trainer.actor.parameters()), []
    for _ in range(2):
        loss = trainer.actor_loss(batch, trainer.view(batch))
        found.append((loss.detach(), torch.autograd.grad(loss.sum(), parameters)))
        with torch.no_grad():
            for last in list(trainer.critic.parameters())[-2:]:
                last.mul_(5.0)
    torch.testing.assert_close(*[loss for loss, _ in found])
    for one, other in zip(*[gradients for _, gradients in found], strict=True):
        torch.testing.assert_close(one, other)


# -- what must not matter ---------------------------------------------------------------------------------------------


def longer(batch: SequenceBatch, steps: int) -> SequenceBatch:
    """The batch with more padding, as one that stands beside a longer episode."""
    found: dict[str, Tensor | None] = {}
    for field in fields(batch):
        column = getattr(batch, field.name)
        more = None if column is None else column[:, -1:].repeat_interleave(steps, dim=1)
        found[field.name] = None if more is None else torch.cat([column, more], dim=1)
    assert found["valid"] is not None
    found["valid"][:, -steps:] = False
    return replace(batch, **found)


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_changes_nothing(shape: str) -> None:
    """Whatever it holds and however much of it there is: the draws too are the same."""
    trainer, batch = made(shape)
    padded = ~batch.valid  # (R, T, B)
    assert padded.any()
    rows = torch.cat([torch.zeros_like(padded[:, :1]), padded], dim=1)  # behind the final row
    other = replace(
        batch,
        observations=batch.observations + 3.0 * rows[..., None, None],
        available=available(batch) & ~rows[..., None, None],
        states=None if batch.states is None else batch.states - 2.0 * rows[..., None],
        rewards=batch.rewards.masked_fill(padded[..., None], math.nan),
        terminals=batch.terminals ^ padded,
        actions=batch.actions.masked_fill(padded[..., None], 4),
    )
    also, found = copy.deepcopy(trainer), []
    for own, given in ((trainer, batch), (also, longer(other, 2))):
        seen = own.view(given)
        losses = [own.critic_loss(given, seen)[0], own.actor_loss(given, seen)]
        of_critic = torch.autograd.grad(losses[0].sum(), list(own.critic.parameters()))
        of_actor = torch.autograd.grad(losses[1].sum(), list(own.actor.parameters()))
        found.append([*losses, *of_critic, *of_actor])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_a_replica_draws_what_it_draws_alone() -> None:
    """Though the other one's episodes are longer: also in the second update."""
    short = sample_dataset("discrete", episodes=6, seed=0).without_privileged()
    keep = np.flatnonzero(short.lengths == short.lengths.min())
    data = [short.take(keep), sample_dataset("discrete", episodes=6, seed=1).without_privileged()]
    assert data[0].lengths.max() < data[1].lengths.max()
    (both, beside), (single, alone) = made(data=data), made(data=data[:1])
    for _ in range(2):
        together = both.noise(torch.zeros(available(beside)[:, :-1].shape))
        own = single.noise(torch.zeros(available(alone)[:, :-1].shape))
        assert torch.equal(together[0, : own.shape[1]], own[0])
        assert not torch.equal(together[0, : own.shape[1]], together[1, : own.shape[1]])


# -- updates ----------------------------------------------------------------------------------------------------------


def test_actors_and_targets_move_at_every_second_step_of_the_critics() -> None:
    trainer, batch = made(polyak=0.25, learning_rate=1e-2)
    actor, critic = list(trainer.actor.parameters()), list(trainer.critic.parameters())
    targets = [*trainer.target_actor.parameters(), *trainer.target_critic.parameters()]
    for done in range(1, 5):
        before = [[p.detach().clone() for p in group] for group in (actor, critic, targets)]
        told = trainer.update(batch)
        assert trainer.done == done
        moved = [
            not all(torch.equal(p, old) for p, old in zip(group, kept, strict=True))
            for group, kept in zip((actor, critic, targets), before, strict=True)
        ]
        assert moved == [done % 2 == 0, True, done % 2 == 0]
        assert told.keys() == {"critic_loss", "q"} | ({"actor_loss"} if done % 2 == 0 else set())
        if done % 2 == 0:
            for target, old, new in zip(targets, before[2], [*actor, *critic], strict=True):
                torch.testing.assert_close(target, old + 0.25 * (new.detach() - old))


def test_gradients_are_clipped_at_ten_in_each_replica() -> None:
    """Adam's first moment is a tenth of the gradient; a small gradient stays as it is."""
    trainer, batch = made(memory="none")
    scale = torch.tensor([1e6, 1e-3], dtype=torch.float64)[:, None, None, None]
    batch = replace(batch, rewards=batch.rewards * scale)
    loss, _ = trainer.critic_loss(batch, trainer.view(batch))
    plain = torch.autograd.grad(loss.sum(), list(trainer.critic.parameters()))
    trainer.update(batch)
    moments = [trainer._critic_adam.state[p]["exp_avg"] for p in trainer.critic.parameters()]
    for r, expected in enumerate((10.0, float(norm(plain, 1)))):
        assert 10 * float(norm(moments, r)) == pytest.approx(expected, rel=1e-5)
    assert float(norm(plain, 1)) < 10 < float(norm(plain, 0))


def norm(tensors: Sequence[Tensor], r: int) -> Tensor:
    return torch.cat([x.view(REPLICAS, -1)[r] for x in tensors]).norm()


# -- known answers ----------------------------------------------------------------------------------------------------

FAST: dict[str, Any] = {"learning_rate": 2e-2, "polyak": 0.2, "hidden": 16, "critic_hidden": 16}


def acted(data: Sequence[OfflineDataset], updates: int = 80, **config: Any) -> list[list[int]]:
    """What the policy of each dataset does at first, all trained together."""
    run = Run(seeds=tuple(range(len(data))), budget=Budget(updates=updates, batch_size=32))
    policy = TD3BC(TD3BCConfig(**{**FAST, **config})).fit(data, run)
    return [first_choice(policy, d)[r] for r, d in enumerate(data)]


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_the_best_joint_action_of_a_game_is_found_and_the_next_best_where_it_is_masked(memory: str) -> None:
    """5 at (1, 2); 3 at (2, 2) where agent 0 must not take 1."""
    assert acted([game(PAYOFF), game(PAYOFF, masked=(0, 1))], memory=memory) == [[1, 2], [2, 2]]


def test_what_the_team_is_paid_counts_and_not_an_agents_own_reward() -> None:
    """Agent 1 is charged half of what agent 0 is paid: it still seeks what is best for both."""
    data = game(PAYOFF)
    shared = data.replace(rewards=data.rewards * np.array([4, -2], np.float32))
    assert acted([shared], memory="none") == [[1, 2]]


def test_cloning_alone_does_what_the_data_do() -> None:
    """(0, 2) three times as often as the better (1, 1)."""
    data = game([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0]], shown=[(0, 2), (0, 2), (0, 2), (1, 1)])
    assert acted([data], memory="none", alpha=0.0) == [[0, 2]]
    assert acted([data], memory="none", form="tau", tau=1.0) == [[0, 2]]
    assert acted([data], memory="none") == [[1, 1]]


def test_values_are_those_of_the_game_and_of_its_continuation() -> None:
    """The team is paid 1: at a true end the value is 1; at a time limit, with γ = 0.5, it is 1 / (1 − 0.5) = 2."""
    for ends, value in ((True, 1.0), (False, 2.0)):
        data, told = game(np.ones((2, 2)), ends=ends), {}
        learner = DiscreteTD3BC(TD3BCConfig(**FAST, memory="none", discount=0.5))
        trainer = learner.new_trainer([data], Run(seeds=(0,)))
        for batch in transition_sequences([data], generators(1), batch_size=32, updates=100, device="cpu"):
            told = trainer.update(batch)
        assert float(told["q"]) == pytest.approx(value, abs=0.1)


# -- contracts and refusals -------------------------------------------------------------------------------------------

CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in ("td3bc[memory=none]", "td3bc[form=tau]", "td3bc[normalise=true]")
    for check in method_checks(name)[1]
    if check.name.startswith("states-and-deaths" if "none" in name else "discrete")
]


@pytest.mark.parametrize("check", CHECKS)
def test_variants_keep_the_contract(check: Any) -> None:
    assert check.run() is None


def test_agents_see_no_last_action() -> None:
    learner, spec = DiscreteTD3BC(), sample_dataset("discrete").spec
    agent = learner.new_agent(spec, generators())
    assert isinstance(agent, GRUAgent)
    assert not agent.last_action
    assert not agent.relu_after
    assert agent.encoder.weight.shape == (REPLICAS, spec.obs_dim + AGENTS, 64)


def test_settings_follow_the_kind_of_task() -> None:
    continuous, discrete = sample_dataset("continuous").spec, sample_dataset("discrete").spec
    assert TD3BCConfig().sizes(continuous) == PARTICLES
    assert TD3BCConfig().sizes(replace(continuous, family="mamujoco")) == LOCOMOTION
    assert TD3BCConfig().sizes(discrete) == CHOICES
    assert TD3BCConfig(memory="none").sizes(discrete) == replace(CHOICES, batch_size=640)
    assert TD3BCConfig(max_grad_norm=0.0).sizes(discrete) == replace(CHOICES, max_grad_norm=0.0)
    assert DiscreteTD3BC().own_budget(discrete) == (100_000, 32)


def test_a_parameter_of_the_other_form_is_refused() -> None:
    with pytest.raises(UsageError, match="critic_hidden=5 has no meaning for continuous actions"):
        TD3BC(TD3BCConfig(critic_hidden=5)).fit([sample_dataset("continuous")], Run(seeds=(0,)))


def test_what_cannot_be_learned_from_is_refused() -> None:
    run, data = Run(seeds=(0,)), sample_dataset("discrete")
    with pytest.raises(UnsupportedError, match="no transition"):
        TD3BC().fit([OfflineDataset.empty(data.spec)], run)
    with pytest.raises(DataError, match="not finite"):
        TD3BC().fit([data.replace(rewards=np.full_like(data.rewards, np.nan))], run)
    single = game(PAYOFF)
    single = single.replace(spec=replace(single.spec, episode_limit=25))
    with pytest.raises(UnsupportedError, match=r"Use td3bc\[memory=none\]"):
        TD3BC().fit([single], run)
    TD3BC(TD3BCConfig(memory="none")).fit([single], Run(seeds=(0,), budget=Budget(updates=2, batch_size=8)))


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "lstm"},
        {"critic_hidden": 0},
        {"max_grad_norm": -1.0},
        {"normalise": 3},
        {"learning_rate": "fast"},
        {"batch_size": 2.5},
    ],
)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"td3bc: {next(iter(given))}"):
        TD3BCConfig(**given)
