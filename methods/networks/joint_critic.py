"""Twin critics of the joint discrete action, as each agent sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import one_hot

from methods.networks.critics import TwinCritics, twin_values
from methods.networks.dueling import seen_by_agents


class JointTwins(nn.Module):
    """Q^1 and Q^2: s ⊕ o_i ⊕ id ⊕ joint one-hot action -> H -> H -> 1, shared by the agents; twins share nothing.

    Args:
        sizes: of a state K, an observation D, a hidden layer H.
        n_agents: N.
        n_actions: A.
        generators: of the initial weights, one a replica.
    """

    def __init__(
        self, sizes: tuple[int, int, int], n_agents: int, n_actions: int, generators: Sequence[np.random.Generator]
    ) -> None:
        super().__init__()
        k, d, hidden = sizes
        self.net = TwinCritics((k + d + n_agents, n_agents * n_actions, hidden), generators, copies=1)

    def forward(self, states: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Values of one joint action for each agent.

        Args:
            states: (R, ..., K).
            observations: (R, ..., N, D), scaled.
            actions: (R, ..., N, N · A) one-hot, the joint action as it is put to each agent.

        Returns:
            (2, R, ..., N).
        """
        return self._values(list(self.net.parameters()), states, observations, actions)

    def first(self, states: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Q^1 without a gradient to the weights, (R, ..., N); arguments as in `forward`."""
        fixed = [p.detach() for p in self.net.parameters()]
        return self._values(fixed, states, observations, actions, first=True)[0]

    def _values(
        self, parameters: Sequence[Tensor], states: Tensor, observations: Tensor, actions: Tensor, first: bool = False
    ) -> Tensor:
        x = seen_by_agents(states, observations)  # (R, ..., N, F)
        q = twin_values(parameters, x.flatten(1, -2), actions.flatten(1, -2).unsqueeze(2), first=first)
        return q.reshape(len(q), *x.shape[:-1])  # (2, R, M, 1) -> (2, R, ..., N)


def joint_one_hot(actions: Tensor, n_actions: int, like: Tensor) -> Tensor:
    """The joint action of all agents as it is put to each, in the precision of `like`: (..., N) -> (..., N, N · A)."""
    joint = one_hot(actions, n_actions).to(like.dtype).flatten(-2)  # (..., N · A)
    return joint.unsqueeze(-2).expand(*actions.shape, -1)
