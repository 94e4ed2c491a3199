"""Twin critics of many agents and teams at once, with values of several candidate actions for one observation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP, affine


class TwinCritics(nn.Module):
    """Q^1 and Q^2 of G groups: (o, a) -> H -> H -> 1 with ReLU; the twins share nothing.

    Weights are (2 G, ...), the twins of a group side by side.

    Args:
        sizes: of an observation, an action and a hidden layer.
        generators: of the initial weights, one a replica.
        copies: groups a replica, G = R · copies.
    """

    def __init__(self, sizes: tuple[int, int, int], generators: Sequence[np.random.Generator], copies: int) -> None:
        super().__init__()
        n_in, n_act, hidden = sizes
        self.net = StackedMLP((n_in + n_act, hidden, hidden, 1), generators, 2 * copies)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `twin_values`."""
        return twin_values(list(self.parameters()), observations, actions)


def twin_values(parameters: Sequence[Tensor], observations: Tensor, actions: Tensor, *, first: bool = False) -> Tensor:
    """Values of K actions for each observation.

    The first layer is computed apart for observation and action, so that an observation is read once whatever K.

    Args:
        parameters: weights and biases of `TwinCritics`, in turn.
        observations: (G, B, D).
        actions: (G, B, K, A).
        first: of Q^1 alone.

    Returns:
        (2, G, B, K), or (1, G, B, K).
    """
    groups, batch, k, _ = actions.shape
    twins = 1 if first else 2

    def of(parameter: Tensor) -> Tensor:  # (G, twins, ...)
        return parameter.view(groups, 2, *parameter.shape[1:])[:, :twins]

    w1, b1, w2, b2, w3, b3 = (of(parameter) for parameter in parameters)
    hidden = w1.shape[-1]
    n_in = observations.shape[-1]
    wide = w1.transpose(1, 2).flatten(2)  # (G, D + A, twins · H)
    from_observation = torch.baddbmm(b1.transpose(1, 2).flatten(2), observations, wide[:, :n_in])  # (G, B, twins · H)
    from_action = torch.bmm(actions.flatten(1, 2), wide[:, n_in:])  # (G, B · K, twins · H)
    x = from_observation.unsqueeze(2) + from_action.view(groups, batch, k, -1)
    x = x.relu().view(groups, batch * k, twins, hidden).transpose(1, 2).reshape(groups * twins, batch * k, hidden)
    x = affine(x, w2.flatten(0, 1), b2.flatten(0, 1)).relu()
    q = affine(x, w3.flatten(0, 1), b3.flatten(0, 1))  # (G · twins, B · K, 1)
    return q.view(groups, twins, batch, k).transpose(0, 1)


_SLICE_VALUES = 2**18
"""Floats of a hidden layer of both twins in one slice on a CPU: what comes after finds it in the cache."""


def _slices(actions: Tensor, hidden: int) -> Iterator[tuple[slice, slice]]:
    """Groups and rows of actions (G, B, K, A) that are computed at a time; all at once on an accelerator."""
    groups, batch, k, _ = actions.shape
    if actions.device.type != "cpu":
        yield slice(None), slice(None)
        return
    rows = max(1, _SLICE_VALUES // (2 * hidden * k))
    for group in range(groups):
        for start in range(0, batch, rows):
            yield slice(group, group + 1), slice(start, min(start + rows, batch))


def _of_groups(parameters: Sequence[Tensor], groups: slice) -> list[Tensor]:
    """The critics of these groups."""
    if groups == slice(None):
        return list(parameters)
    return [p[2 * groups.start : 2 * groups.stop] for p in parameters]


@torch.no_grad()
def first_values(parameters: Sequence[Tensor], observations: Tensor, actions: Tensor) -> Tensor:
    """Q^1 of many candidates without gradients: (G, B, D), (G, B, K, A) -> (G, B, K); see `twin_values`."""
    q = actions.new_empty(actions.shape[:3])
    for groups, rows in _slices(actions, parameters[0].shape[-1]):
        own = _of_groups(parameters, groups)
        q[groups, rows] = twin_values(own, observations[groups, rows], actions[groups, rows], first=True)[0]
    return q


def pushed_up(parameters: Sequence[Tensor], observations: Tensor, actions: Tensor, log_density: Tensor) -> Tensor:
    """Σ over the twins of mean_b logsumexp_k (Q(o, a_k) − log p(a_k)), differentiable in the critics' weights alone.

    The gradient is taken slice by slice on the way: K actions an observation make activations that no cache holds, and
    passes over memory would take most of the time.

    Args:
        parameters: weights and biases of `TwinCritics`, in turn.
        observations: (G, B, D).
        actions: (G, B, K, A).
        log_density: (G, B, K), or broadcast to it.

    Returns:
        (G,).
    """
    density = log_density.expand(actions.shape[:3])
    pushed: Tensor = _PushedUp.apply(observations, actions, density, *parameters)  # type: ignore[no-untyped-call]
    return pushed


class _PushedUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, observations: Tensor, actions: Tensor, log_density: Tensor, *parameters: Tensor) -> Tensor:
        total = actions.new_zeros(actions.shape[0])
        gradients = [torch.zeros_like(p) for p in parameters]
        for groups, rows in _slices(actions, parameters[0].shape[-1]):
            own = [p.detach().requires_grad_() for p in _of_groups(parameters, groups)]
            with torch.enable_grad():
                q = twin_values(own, observations[groups, rows], actions[groups, rows])  # (2, G', B', K)
                part = (q - log_density[groups, rows]).logsumexp(dim=-1).sum(dim=(0, 2)) / actions.shape[1]
                found = torch.autograd.grad(part.sum(), own)
            total[groups] += part.detach()
            for gradient, new in zip(_of_groups(gradients, groups), found, strict=True):
                gradient += new
        ctx.gradients = gradients
        return total

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor | None, ...]:
        scale = of_total.repeat_interleave(2)[:, None, None]  # (2 G, 1, 1): the twins of each group
        return None, None, None, *(gradient * scale for gradient in ctx.gradients)
