"""OMIGA: losses against plain loops in float64, whose networks they move, and updates."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from methods.data.sequences import SequenceBatch
from methods.learners.omiga.trainer import OMIGATrainer, Values
from tests.unit.methods.plain import acted_along, one_hot, perceptron, plain_log_density, require_equal_gradients
from tests.unit.methods.small_trainers import REPLICAS, made

FORMS = [("continuous", "none"), ("states-and-deaths", "none"), ("discrete", "gru"), ("states-and-deaths", "gru")]


def groups_of(trainer: OMIGATrainer) -> list[list[Tensor]]:
    """What each of the three losses is to change."""
    of_q = [*trainer.values.q_net.parameters(), *trainer.values.mixer.parameters()]
    return [list(trainer.agent.parameters()), of_q, list(trainer.values.v_net.parameters())]


class Slow:
    """Values of one net at one row of one replica, agent by agent."""

    def __init__(self, values: Values, r: int, seen: list[Tensor], state: Tensor) -> None:
        self.values, self.r, self.seen, self.state = values, r, seen, state

    def q(self, i: int, action: Tensor) -> Tensor:
        if self.values.discrete:
            return perceptron(self.values.q_net, self.r, self.seen[i])[action]
        return perceptron(self.values.q_net, self.r, torch.cat([self.seen[i], action]))[0]

    def v(self, i: int) -> Tensor:
        return perceptron(self.values.v_net, self.r, self.seen[i])[0]

    def mixture(self) -> tuple[Tensor, Tensor]:
        mixer = self.values.mixer
        x = perceptron(mixer.encoder, self.r, self.state)
        x = x.relu() if mixer.relu else x
        return perceptron(mixer.weight, self.r, x).abs(), perceptron(mixer.bias, self.r, x)[0]

    def total(self, each: Sequence[Tensor]) -> Tensor:
        w, bias = self.mixture()
        return sum((w[i] * x for i, x in enumerate(each)), bias)


def slow_losses(trainer: OMIGATrainer, batch: SequenceBatch, r: int) -> list[Tensor]:
    """Of policy, Q and V of one replica, step by step."""
    spec, scaler, n = trainer._spec, trainer.agent.scaler, batch.rewards.shape[-1]
    q_terms, z_all, v_all, w_all, log_all = [], [], [], [], []
    for b in range(batch.valid.shape[2]):
        length = int(batch.valid[r, :, b].sum())
        rows = (batch.observations[r, : length + 1, b] - scaler.mean[r]) / scaler.scale[r]  # (L + 1, N, D)
        last = None if batch.last_actions is None else batch.last_actions[r, : length + 1, b]
        acted = acted_along(trainer.agent, r, rows, last)

        def at(values: Values, t: int, rows: Tensor = rows, last: Tensor | None = last, b: int = b) -> Slow:
            of_last = [one_hot(-1, 0) if last is None else one_hot(int(last[t, i]), 5) for i in range(n)]
            seen = [torch.cat([rows[t, i], of_last[i], one_hot(i, n)]) for i in range(n)]
            return Slow(values, r, seen, rows[t].flatten() if batch.states is None else batch.states[r, t, b])

        for t in range(length):
            here, bar, actions = at(trainer.values, t), at(trainer.target, t), batch.actions[r, t, b]
            y = batch.rewards[r, t, b].sum()
            if not batch.terminals[r, t, b]:
                after = at(trainer.target, t + 1)
                y = y + 0.99 * after.total([after.v(i) for i in range(n)])
            q_terms.append((here.total([here.q(i, actions[i]) for i in range(n)]) - y.detach()) ** 2)
            w_bar = bar.mixture()[0].detach()
            for i in range(n):
                v_all.append(here.v(i))
                z_all.append((w_bar[i] / 0.5 * (bar.q(i, actions[i]).detach() - v_all[-1])).clamp(-10, 10))
                w_all.append(w_bar[i])
                raw = acted[t][i]
                if spec.action.discrete:
                    assert batch.available is not None
                    log_all.append(raw[actions[i]] - raw[batch.available[r, t, b, i]].logsumexp(0))
                else:
                    log_all.append(plain_log_density(trainer._config.density_of(spec), raw, actions[i]))
    z, v, w = torch.stack(z_all), torch.stack(v_all), torch.stack(w_all)
    largest = z.max().detach().clamp(min=-1)
    return [
        -(z.detach().exp() * torch.stack(log_all)).mean(),
        torch.stack(q_terms).mean(),
        ((z - largest).exp() + (-largest).exp() * w * v / 0.5).mean(),
    ]


@pytest.mark.parametrize(
    ("shape", "memory", "density"), [("continuous", "none", "centred"), *((*form, "squashed") for form in FORMS)]
)
def test_losses_and_gradients_equal_plain_loops(shape: str, memory: str, density: str) -> None:
    trainer, batch = made("omiga", shape, memory=memory, density=density, mixer_relu=shape != "discrete")
    assert bool(batch.valid.all()) == (memory == "none")
    slow = [slow_losses(trainer, batch, r) for r in range(REPLICAS)]
    for k, (mine, parameters) in enumerate(zip(trainer.losses(batch)[:3], groups_of(trainer), strict=True)):
        require_equal_gradients(mine, [own[k] for own in slow], parameters)


def test_no_loss_reaches_the_networks_of_another() -> None:
    trainer, batch = made("omiga")
    groups = groups_of(trainer)
    for k, loss in enumerate(trainer.losses(batch)[:3]):
        for other in (group for j, group in enumerate(groups) if j != k):
            assert not any(
                g is not None for g in torch.autograd.grad(loss.sum(), other, retain_graph=True, allow_unused=True)
            )


def test_an_update_is_a_step_of_adam_on_each_group_and_then_of_the_targets() -> None:
    """The first step of Adam is −lr g / (|g| + ε), all gradients being those of the weights before it."""
    trainer, batch = made("omiga", max_grad_norm=0.0)
    plain = copy.deepcopy(trainer)
    groups = groups_of(plain)
    gradients = [
        torch.autograd.grad(loss.sum(), group) for loss, group in zip(plain.losses(batch)[:3], groups, strict=True)
    ]
    with torch.no_grad():
        for group, own in zip(groups, gradients, strict=True):
            for parameter, gradient in zip(group, own, strict=True):
                parameter.sub_(5e-4 * gradient / (gradient.abs() + 1e-8))
        for target, current in zip(plain.target.parameters(), plain.values.parameters(), strict=True):
            target.lerp_(current, 0.005)
    trainer.update(batch)
    assert trainer.done == 1
    for mine, expected in zip(groups_of(trainer), groups, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(list(trainer.target.parameters()), list(plain.target.parameters()))


def test_values_see_the_last_action_where_policies_do() -> None:
    trainer, batch = made("omiga")
    assert batch.last_actions is not None
    other = replace(batch, last_actions=(batch.last_actions + 1) % 6)
    before, after = (trainer.losses(x)[:3] for x in (batch, other))
    assert all((one != two).all() for one, two in zip(before, after, strict=True))
    memoryless, _ = made("omiga", memory="none")
    for net, without in (
        (trainer.values.q_net, memoryless.values.q_net),
        (trainer.values.v_net, memoryless.values.v_net),
    ):
        assert next(net.parameters()).shape[1] == next(without.parameters()).shape[1] + 5
