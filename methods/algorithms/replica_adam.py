"""Adam on stacked parameters, of which some replicas may rest while others step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.networks.stacked import clip_each_replica


class ReplicaAdam:
    """One Adam a replica, on its slices of the parameters: each has its own moments and its own count of steps.

    One Adam over everything would let the moments of a resting replica decay and its count go on.

    Args:
        parameters: (R · copies, ...) each.
        replicas: R.
        learning_rate: of all.

    Attributes:
        adams: R, whose parameters share memory with those given.
    """

    def __init__(self, parameters: Sequence[Tensor], replicas: int, learning_rate: float) -> None:
        self._parameters = list(parameters)
        slices = zip(*(p.detach().chunk(replicas) for p in self._parameters), strict=True)
        self.adams = tuple(torch.optim.Adam(own, lr=learning_rate, fused=True) for own in slices)

    def step(self, losses: Tensor, moving: Sequence[bool], max_norm: float) -> None:
        """A step on the sum of `losses` of the R replicas that are `moving`, after clipping each; see `descend`."""
        for parameter in self._parameters:
            parameter.grad = None
        torch.autograd.backward(losses.sum(), inputs=self._parameters)
        if max_norm > 0:
            clip_each_replica(self._parameters, len(self.adams), max_norm)
        for r, adam in enumerate(self.adams):
            if moving[r]:
                for own, parameter in zip(adam.param_groups[0]["params"], self._parameters, strict=True):
                    assert parameter.grad is not None
                    own.grad = parameter.grad.chunk(len(self.adams))[r]
                adam.step()
