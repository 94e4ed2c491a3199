"""The agents of R teams as one module each: observations in, raw actions or logits out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.data.statistics import mean_and_std
from methods.networks.stacked import StackedGRU, StackedLinear, StackedMLP
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class ObservationScaler(nn.Module):
    """(o − mean) / scale with fixed statistics, one set a replica and agent (or one for all agents)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, replicas: int, spec: TaskSpec, shared: bool) -> None:
        super().__init__()
        shape = (replicas, 1 if shared else spec.n_agents, spec.obs_dim)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def set(self, replica: int, mean: NDArray[np.float32], std: NDArray[np.float32], epsilon: float = 1e-3) -> None:
        """Takes the statistics (N or 1, D) of one replica; scale = std + ε, ε as in TD3+BC's repository."""
        self.mean[replica] = torch.from_numpy(mean)
        self.scale[replica] = torch.from_numpy(std + np.float32(epsilon))

    def fit(self, data: Sequence[OfflineDataset], original: OfflineDataset | None) -> None:
        """Takes the statistics of the original data (None: of each replica's own), by agent or pooled over agents."""
        known: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for replica, own in enumerate(data):
            source = own if original is None else original
            if id(source) not in known:
                column = source.observations  # (S + E, N, D)
                pooled = column.reshape(-1, 1, column.shape[-1]) if self.mean.shape[1] == 1 else column
                known[id(source)] = mean_and_std(pooled)  # (N or 1, D) each
            self.set(replica, *known[id(source)])

    def forward(self, observations: Tensor) -> Tensor:
        """(R, ..., N, D) -> (R, ..., N, D)."""
        shape = (self.mean.shape[0], *(1,) * (observations.ndim - 3), *self.mean.shape[1:])
        return (observations - self.mean.view(shape)) / self.scale.view(shape)


class MLPAgent(nn.Module):
    """o_i -> H -> H -> A with ReLU; one network an agent, or one for all with the agent's id as further input.

    Args:
        spec: the task.
        hidden: H.
        shared: one network for all agents.
        generators: of the initial weights, one a replica.
        outputs: how many, A at least; those behind the first A are not for acting. None: A.
    """

    def __init__(
        self,
        spec: TaskSpec,
        hidden: int,
        shared: bool,
        generators: Sequence[np.random.Generator],
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.n_agents, self.shared = spec.n_agents, shared
        self.scaler = ObservationScaler(len(generators), spec, shared)
        n_in, copies = (spec.obs_dim + spec.n_agents, 1) if shared else (spec.obs_dim, spec.n_agents)
        self.net = StackedMLP((n_in, hidden, hidden, outputs or spec.action.size), generators, copies)

    def shrink_last_layer(self, bound: float) -> None:
        """Has the weights of the last layer start in U(±bound) in place of U(±1/√H); its biases stay."""
        weight = list(self.net.parameters())[-2]
        with torch.no_grad():
            weight.mul_(bound * weight.shape[-2] ** 0.5)

    def forward(self, observations: Tensor) -> Tensor:
        """(R, B, N, D) -> (R, B, N, outputs)."""
        x: Tensor = self.scaler(observations)
        replicas, batch, n = x.shape[:3]
        if self.shared:
            x = with_agent_id(x).flatten(1, 2)  # (R, B · N, D + N)
            y: Tensor = self.net(x)
            return y.view(replicas, batch, n, -1)  # (R, B, N, A)
        x = x.transpose(1, 2).flatten(0, 1)  # (R · N, B, D)
        y = self.net(x)
        return y.view(replicas, n, batch, -1).transpose(1, 2)  # (R, B, N, A)


class GRUAgent(nn.Module):
    """PyMARL's agent: o_i ⊕ last action ⊕ id -> H, ReLU -> GRU H -> A, one network for the team.

    Args:
        spec: the task.
        hidden: H.
        last_action: whether it sees its last action.
        generators: of the initial weights, one a replica.
        relu_after: a ReLU between the GRU and the last layer, as OG-MARL has it.
    """

    def __init__(
        self,
        spec: TaskSpec,
        hidden: int,
        last_action: bool,
        generators: Sequence[np.random.Generator],
        relu_after: bool = False,
    ) -> None:
        super().__init__()
        self.relu_after = relu_after
        self.n_agents, self.n_actions, self.last_action = spec.n_agents, spec.action.size, last_action
        self.scaler = ObservationScaler(len(generators), spec, shared=True)
        n_in = spec.obs_dim + spec.n_agents + (spec.action.size if last_action else 0)
        self.encoder = StackedLinear(n_in, hidden, generators)
        self.memory = StackedGRU(hidden, hidden, generators)
        self.decoder = StackedLinear(hidden, spec.action.size, generators)

    def forward(
        self, observations: Tensor, last_actions: Tensor | None = None, h: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs over T steps.

        Args:
            observations: (R, T, B, N, D).
            last_actions: (R, T, B, N) int64, A where there is none yet; None if the agent does not see them.
            h: (R, B · N, H) before the first step; None: zeros.

        Returns:
            (R, T, B, N, A) and the hidden state (R, B · N, H) after the last step.
        """
        x: Tensor = self.scaler(observations)
        if self.last_action and last_actions is not None:
            one_hot = torch.eye(self.n_actions + 1, self.n_actions, device=x.device)  # the last row is zero
            x = torch.cat([x, one_hot[last_actions]], dim=-1)  # (R, T, B, N, D + A)
        x = with_agent_id(x)
        replicas, steps, batch, n = x.shape[:4]
        x = self.encoder(x.flatten(1, 3)).relu()  # (R, T · B · N, H)
        x, h = self.memory(x.view(replicas, steps, batch * n, -1), h)  # (R, T, B · N, H)
        x = x.relu() if self.relu_after else x
        y: Tensor = self.decoder(x.flatten(1, 2))  # (R, T · B · N, A)
        assert h is not None
        return y.view(replicas, steps, batch, n, -1), h  # (R, T, B, N, A)


def with_agent_id(x: Tensor) -> Tensor:
    """(..., N, F) -> (..., N, F + N): each agent's one-hot index behind its features."""
    n = x.shape[-2]
    return torch.cat([x, torch.eye(n, device=x.device).expand(*x.shape[:-1], n)], dim=-1)
