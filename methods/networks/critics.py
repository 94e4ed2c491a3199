"""Twin critics of many agents and teams at once, with values of several candidate actions for one observation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.networks.stacked import StackedMLP, affine


class TwinCritics(nn.Module):
    """Q^1 and Q^2 of G groups: (o, a) -> H -> H' -> 1 with ReLU; the twins share nothing.

    Weights are (2 G, ...), the twins of a group side by side.

    Args:
        sizes: of an observation, an action and the hidden layers: one number for both, or two.
        generators: of the initial weights, one a replica.
        copies: groups a replica, G = R · copies.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int] | tuple[int, int, int, int],
        generators: Sequence[np.random.Generator],
        copies: int,
    ) -> None:
        super().__init__()
        n_in, n_act, hidden = sizes[:3]
        self.net = StackedMLP((n_in + n_act, hidden, sizes[-1], 1), generators, 2 * copies)

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
    own = [p.view(groups, 2, *p.shape[1:])[:, 0] for p in parameters] if first else parameters
    x = _first_layer(own, observations, actions, twins).relu()  # (G · twins, B · K, H)
    x = affine(x, own[2], own[3]).relu()
    q = affine(x, own[4], own[5])  # (G · twins, B · K, 1)
    return q.view(groups, twins, batch, k).transpose(0, 1)


def _first_layer(parameters: Sequence[Tensor], observations: Tensor, actions: Tensor, twins: int) -> Tensor:
    """W [o, a] + b (G · twins, B · K, H) of `twin_values`, what o gives being computed once for all its actions."""
    weight, bias, n_in = parameters[0], parameters[1], observations.shape[-1]
    seen = observations.repeat_interleave(twins, dim=0)  # (G · twins, B, D)
    chosen = actions.flatten(1, 2).repeat_interleave(twins, dim=0)  # (G · twins, B · K, A)
    from_observation = torch.baddbmm(bias, seen, weight[:, :n_in]).unsqueeze(2)  # (G · twins, B, 1, H)
    x = torch.bmm(chosen, weight[:, n_in:]).view(-1, *actions.shape[1:3], weight.shape[-1])
    return (x + from_observation).flatten(1, 2)


def standardised(actions: Tensor, batch: tuple[int, ...]) -> Tensor:
    """(a − mean) / √(var + 1e-5) over the axes of the batch, as batch normalisation does.

    A policy cannot raise its value by moving all of its actions at once, to a corner that no data show: that shift is
    taken out again.
    """
    variance, mean = torch.var_mean(actions, dim=batch, correction=0, keepdim=True)
    return (actions - mean) / (variance + 1e-5).sqrt()


_SLICE_VALUES = 2**18
"""Floats of a hidden layer of both twins in one slice on a CPU: what comes after finds it in the cache."""


def _slices(actions: Tensor, hidden: int) -> Iterator[tuple[slice, slice]]:
    """Groups and rows of actions (G, B, K, A) that are computed at a time; all at once on an accelerator."""
    groups, batch, k, _ = actions.shape
    if actions.device.type != "cpu":
        yield slice(None), slice(None)
        return
    rows = max(1, _SLICE_VALUES // (2 * hidden * k))  # of one group
    together = max(1, rows // batch)  # groups whose whole batch fits
    for first in range(0, groups, together):
        for start in range(0, batch, rows):
            yield slice(first, min(first + together, groups)), slice(start, min(start + rows, batch))


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
    """Σ over the twins of mean_b logsumexp_k (Q(o, a_k) − log p(a_k)) (OMAR, Eq. 2); a gradient for weights alone.

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


def _push(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    observations: Tensor,
    actions: Tensor,
    log_density: Tensor,
    batch: int,
) -> Tensor:
    """Adds the gradients of a slice to `gradients`, and returns its part of the sum, (G',)."""
    _, _, w2, b2, w3, b3 = parameters
    groups, rows, k = log_density.shape
    first = _first_layer(parameters, observations, actions, 2).relu_()  # (2 G', B' · K, H)
    second = torch.baddbmm(b2, first, w2).relu_()
    q = (torch.bmm(w3.mT, second.mT).mT + b3).view(groups, 2, rows, k)
    logits = q - log_density.unsqueeze(1)
    of_q = (logits.softmax(dim=-1) / batch).view(2 * groups, rows * k, 1)
    of_second = _behind_relu(of_q * w3.mT, second)
    of_first = _behind_relu(torch.bmm(of_second, w2.mT), first)
    by_row = of_first.view(2 * groups, rows, k, -1).sum(dim=2)  # (2 G', B', H)
    seen = observations.repeat_interleave(2, dim=0)
    chosen = actions.flatten(1, 2).repeat_interleave(2, dim=0)
    found = (
        torch.cat([torch.bmm(seen.mT, by_row), torch.bmm(chosen.mT, of_first)], dim=1),
        by_row.sum(dim=1, keepdim=True),
        torch.bmm(first.mT, of_second),
        of_second.sum(dim=1, keepdim=True),
        torch.bmm(of_q.mT, second).mT,
        of_q.sum(dim=1, keepdim=True),
    )
    for gradient, new in zip(gradients, found, strict=True):
        gradient += new
    return logits.logsumexp(dim=-1).sum(dim=(1, 2)) / batch


def _behind_relu(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient where the ReLU let something through, else 0: one pass in place of a comparison and a product."""
    found: Tensor = torch.ops.aten.threshold_backward(gradient, activation, 0)
    return found


class _PushedUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, observations: Tensor, actions: Tensor, log_density: Tensor, *parameters: Tensor) -> Tensor:
        total = actions.new_zeros(actions.shape[0])
        gradients = [torch.zeros_like(p) for p in parameters]
        for groups, rows in _slices(actions, parameters[0].shape[-1]):
            seen, chosen = observations[groups, rows], actions[groups, rows]
            own, into = _of_groups(parameters, groups), _of_groups(gradients, groups)
            part = _push(own, into, seen, chosen, log_density[groups, rows], actions.shape[1])
            total[groups] += part
        ctx.gradients = gradients
        return total

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor | None, ...]:
        scale = of_total.repeat_interleave(2)[:, None, None]  # (2 G, 1, 1): the twins of each group
        return None, None, None, *(gradient * scale for gradient in ctx.gradients)
