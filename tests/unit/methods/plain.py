"""Stacked networks by plain products, a slice and a sequence at a time, and batches in float64: oracles of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from methods.data.sequences import SequenceBatch
from methods.networks.agents import GRUAgent
from methods.networks.mixers import QMixer

BatchT = TypeVar("BatchT", bound=SequenceBatch)


def in_float64(batch: BatchT) -> BatchT:
    """The batch with all its real numbers in float64."""
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    found: dict[str, Any] = {
        k: v.double() for k, v in columns.items() if isinstance(v, Tensor) and v.is_floating_point()
    }
    return replace(batch, **found)


def perceptron(net: nn.Module, r: int, x: Tensor) -> Tensor:
    """Slice r of a stacked perceptron, or of a single layer, at x (F,)."""
    parameters = list(net.parameters())
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        x = x @ weight[r] + bias[r, 0]
        if weight is not parameters[-2]:
            x = x.relu()
    return x


def one_hot(index: int, size: int) -> Tensor:
    """(size,), zeros where the index is none of them."""
    return torch.tensor([float(i == index) for i in range(size)], dtype=torch.float64)


def acted_along(agent: Any, r: int, rows: Tensor, last: Tensor | None) -> list[list[Tensor]]:
    """[t][i] -> what shared agents give at scaled rows (L, N, D) of one sequence.

    `last` (L, N) are the actions before, for agents that see them.
    """
    n, found = rows.shape[1], []
    hidden = [torch.zeros(agent.memory.hidden if isinstance(agent, GRUAgent) else 0, dtype=torch.float64)] * n
    for t, row in enumerate(rows):
        outputs = []
        for i in range(n):
            if not isinstance(agent, GRUAgent):
                outputs.append(perceptron(agent.net, r, torch.cat([row[i], one_hot(i, n)])))
                continue
            before = [] if last is None else [one_hot(int(last[t, i]), agent.n_actions)]
            x = torch.cat([row[i], *before, one_hot(i, n)])
            x, memory, h = perceptron(agent.encoder, r, x).relu(), agent.memory, hidden[i]
            of_x = (x @ memory.input_weight[r] + memory.input_bias[r, 0]).chunk(3)
            of_h = (h @ memory.hidden_weight[r] + memory.hidden_bias[r, 0]).chunk(3)
            reset, update = (of_x[0] + of_h[0]).sigmoid(), (of_x[1] + of_h[1]).sigmoid()
            hidden[i] = (1 - update) * (of_x[2] + reset * of_h[2]).tanh() + update * h
            outputs.append(perceptron(agent.decoder, r, hidden[i].relu() if agent.relu_after else hidden[i]))
        found.append(outputs)
    return found


def mixed(mixer: QMixer, r: int, state: Tensor, q: Sequence[Tensor]) -> Tensor:
    """Q_tot of the values of the agents at a state (K,), by QMIX's hypernetworks."""
    first = perceptron(mixer.first, r, state).abs()
    hidden, total = perceptron(mixer.first_bias, r, state), perceptron(mixer.second_bias, r, state)[0]
    for i, value in enumerate(q):
        hidden = hidden + value * first[i * mixer.embed : (i + 1) * mixer.embed]
    for weight, h in zip(perceptron(mixer.second, r, state).abs(), hidden, strict=True):
        total = total + weight * (h if h > 0 else h.exp() - 1)
    return total


def outputs(agent: Any, r: int, rows: Tensor) -> list[list[Tensor]]:
    """[t][i] -> what agents that see no last action give at the rows (L, N, D) of one sequence, as they come."""
    return acted_along(agent, r, (rows - agent.scaler.mean[r]) / agent.scaler.scale[r], None)


def available(batch: SequenceBatch) -> Tensor:
    """(R, T + 1, B, N, A) of a batch that has it."""
    assert batch.available is not None
    return batch.available


def poisoned_behind(batch: BatchT, steps: Tensor, action: int = 0) -> BatchT:
    """The batch with another action and other ends and NaN rewards at `steps` (R, T, B), and other rows behind them."""
    rows = torch.cat([torch.zeros_like(steps[:, :1]), steps], dim=1)  # (R, T + 1, B)
    assert batch.last_actions is not None
    return replace(
        batch,
        observations=batch.observations + 3.0 * rows[..., None, None],
        available=available(batch) & ~rows[..., None, None],
        states=None if batch.states is None else batch.states - 2.0 * rows[..., None],
        last_actions=batch.last_actions.masked_fill(rows[..., None], action),
        actions=batch.actions.masked_fill(steps[..., None], action),
        rewards=batch.rewards.masked_fill(steps[..., None], torch.nan),
        terminals=batch.terminals ^ steps,
    )


def padded_further(batch: BatchT, steps: int) -> BatchT:
    """The batch with more padding: `steps` repetitions of its last rows and steps, none of them valid."""

    def longer(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat([x, *[x[:, -1:]] * steps], dim=1)

    columns: dict[str, Any] = {f.name: longer(getattr(batch, f.name)) for f in fields(batch)}
    columns["valid"][:, -steps:] = False
    return replace(batch, **columns)


def require_equal_gradients(fast: Tensor, slow: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Losses (R,) and all their gradients against those of plain loops, one a replica."""
    expected, changed = torch.stack(list(slow)), list(parameters)
    torch.testing.assert_close(fast, expected, atol=1e-6, rtol=1e-6)
    mine, theirs = (torch.autograd.grad(loss.sum(), changed, retain_graph=True) for loss in (fast, expected))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def plain_log_density(density: str, raw: Tensor, action: Tensor) -> Tensor:
    """log π(a) of one agent by torch's distributions: raw (2 A,), action (A,)."""
    mean, spread = raw.chunk(2)
    if density == "centred":
        sigma = (-6 + 6 * spread.sigmoid()).exp()
        return torch.distributions.Normal(mean.tanh(), sigma).log_prob(action).sum()
    u = action.clamp(-1 + 1e-7, 1 - 1e-7).atanh()
    normal = torch.distributions.Normal(mean.clamp(-9, 9), spread.clamp(-5, 2).exp())
    return (normal.log_prob(u) - (1 - u.tanh() ** 2).log()).sum()
