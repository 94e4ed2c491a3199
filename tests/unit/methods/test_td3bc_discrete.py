"""TD3+BC for discrete actions: losses against plain loops in float64, draws, updates, and whom it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.data.sequences import SequenceBatch
from methods.learners.td3bc import TD3BC
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.discrete import DiscreteTD3BCTrainer
from methods.objectives.cloning import negative_log_likelihood
from tests.unit.methods.plain import available, outputs, perceptron, require_equal_gradients
from tests.unit.methods.problems import PAYOFF, acted, game
from tests.unit.methods.small_trainers import AGENTS, REPLICAS, SHAPES, made

# -- against plain loops ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_critics_loss_and_gradients_equal_plain_loops(shape: str, memory: str) -> None:
    trainer, batch = made("td3bc", shape, memory=memory)
    assert memory == "none" or not batch.valid.all()
    assert batch.terminals[batch.valid].any() or memory == "none"
    loss, q = trainer.critic_loss(batch, trainer.view(batch))
    slow = [Plain(trainer, batch, r).critic_loss() for r in range(REPLICAS)]
    require_equal_gradients(loss, [s[0] for s in slow], list(trainer.critic.parameters()))
    torch.testing.assert_close(q, torch.stack([s[1] for s in slow]).detach())


@pytest.mark.parametrize(
    ("shape", "memory", "form"),
    [("discrete", "gru", "lambda"), ("states-and-deaths", "none", "lambda"), ("states-and-deaths", "gru", "tau")],
)
def test_the_actors_loss_and_gradients_equal_plain_loops(
    shape: str, memory: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batch = made("td3bc", shape, memory=memory, form=form)
    noise = fixed_noise(trainer, batch, monkeypatch)
    loss = trainer.actor_loss(batch, trainer.view(batch))
    unmoved = torch.autograd.grad(loss.sum(), list(trainer.critic.parameters()), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in unmoved)  # actors teach the critics nothing
    slow = [Plain(trainer, batch, r).actor_loss(noise, form) for r in range(REPLICAS)]
    require_equal_gradients(loss, slow, list(trainer.actor.parameters()))


def test_without_weight_on_values_the_gradient_is_that_of_cloning() -> None:
    trainer, batch = made("td3bc", alpha=0.0)
    logits = trainer.actor(batch.observations)[0][:, :-1]
    cloning = negative_log_likelihood(logits, batch.actions, available(batch)[:, :-1], batch.valid)
    loss = trainer.actor_loss(batch, trainer.view(batch))
    parameters = list(trainer.actor.parameters())
    pairs = [torch.autograd.grad(x.sum(), parameters) for x in (loss, cloning)]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_scale_of_the_critic_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = made("td3bc")
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


def test_a_replica_draws_what_it_draws_alone() -> None:
    """Though the other one's episodes are longer: also in the second update."""
    short = sample_dataset("discrete", episodes=6, seed=0).without_privileged()
    keep = np.flatnonzero(short.lengths == short.lengths.min())
    data = [short.take(keep), sample_dataset("discrete", episodes=6, seed=1).without_privileged()]
    assert data[0].lengths.max() < data[1].lengths.max()
    (both, beside), (single, alone) = made("td3bc", data=data), made("td3bc", data=data[:1])
    for _ in range(2):
        together = both.noise(torch.zeros(available(beside)[:, :-1].shape))
        own = single.noise(torch.zeros(available(alone)[:, :-1].shape))
        assert torch.equal(together[0, : own.shape[1]], own[0])
        assert not torch.equal(together[0, : own.shape[1]], together[1, : own.shape[1]])


# -- updates ----------------------------------------------------------------------------------------------------------


def test_actors_and_targets_move_at_every_second_step_of_the_critics() -> None:
    trainer, batch = made("td3bc", polyak=0.25, learning_rate=1e-2)
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
    trainer, batch = made("td3bc", memory="none")
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


def fast(**config: Any) -> TD3BC:
    given: dict[str, Any] = {"learning_rate": 2e-2, "polyak": 0.2, "hidden": 16, "critic_hidden": 16}
    return TD3BC(TD3BCConfig(**given, **config, memory="none"))


def test_what_the_team_is_paid_counts_and_not_an_agents_own_reward() -> None:
    """Agent 1 is charged half of what agent 0 is paid: it still seeks what is best for both."""
    data = game(PAYOFF)
    shared = data.replace(rewards=data.rewards * np.array([4, -2], np.float32))
    assert acted(fast(), [shared], 80) == [[1, 2]]


def test_cloning_alone_does_what_the_data_do() -> None:
    """(0, 2) three times as often as the better (1, 1)."""
    data = game([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0]], shown=[(0, 2), (0, 2), (0, 2), (1, 1)])
    assert acted(fast(alpha=0.0), [data], 80) == [[0, 2]]
    assert acted(fast(form="tau", tau=1.0), [data], 80) == [[0, 2]]
    assert acted(fast(), [data], 80) == [[1, 1]]
