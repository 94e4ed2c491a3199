"""Trained agents of R teams, acting greedily: what learners with one actor network return."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from methods.base import Arrays, LearnedPolicy
from methods.networks.agents import GRUAgent
from methods.networks.heads import bounded, greedy_choice
from tasks.common.errors import MethodError
from tasks.spec import TaskSpec


class AgentPolicy(LearnedPolicy):
    """A frozen copy of the agents, without the optimiser.

    Args:
        agent: observations (R, B, N, D) in, raw actions or logits out, or a `GRUAgent`; every parameter and buffer has
            R · copies slices along its first axis.
        spec: the task it acts in.
        replicas: R.
        device: where it computes.
        diagnosis: what training tells about each replica.
    """

    def __init__(
        self,
        agent: nn.Module,
        spec: TaskSpec,
        replicas: int,
        device: str,
        diagnosis: Sequence[Mapping[str, float | None]] = (),
    ) -> None:
        self.replicas, self.spec, self.device = replicas, spec, device
        self._agent = copy.deepcopy(agent).to(device).requires_grad_(False)
        self._diagnosis = tuple(diagnosis)

    @torch.inference_mode()
    def act(
        self, observations: NDArray[np.float32], available_actions: NDArray[np.bool_] | None, memory: Any = None
    ) -> tuple[NDArray[np.float32] | NDArray[np.int64], Any]:
        """Greedy joint actions; see `LearnedPolicy.act`. The memory is (hidden state, last actions)."""
        seen = torch.tensor(observations, device=self.device)  # (R, B, N, D)
        if isinstance(self._agent, GRUAgent):
            no_action = torch.full(seen.shape[:-1], self.spec.action.size, device=self.device)
            hidden, last = memory if memory is not None else (None, no_action)
            raw, hidden = self._agent(seen[:, None], last[:, None], hidden)  # (R, 1, B, N, A)
            raw = raw[:, 0]
        else:
            raw, hidden = self._agent(seen)[..., : self.spec.action.size], None  # (R, B, N, A)
        if not self.spec.action.discrete:
            chosen = bounded(raw, self.spec.action)
        elif available_actions is None:
            raise MethodError(f"{self.spec.id}: a policy for discrete actions needs `available_actions`.")
        else:
            chosen = greedy_choice(raw, torch.tensor(available_actions, device=self.device))  # (R, B, N)
        return chosen.cpu().numpy(), None if hidden is None else (hidden, chosen)

    def state(self, replica: int) -> Arrays:
        """Parameters and input statistics of one replica, by their name in the module."""
        return {name: tensor.chunk(self.replicas)[replica].cpu().numpy() for name, tensor in self._tensors().items()}

    def diagnosis(self, replica: int) -> Mapping[str, float | None]:
        """What training tells about one replica; nothing for a policy that was loaded."""
        return self._diagnosis[replica] if self._diagnosis else {}

    def load(self, states: Sequence[Arrays]) -> None:
        """Takes the arrays of R policies.

        Raises:
            MethodError: if a name or a shape is not this agent's.
        """
        tensors = self._tensors()
        for state in states:
            for name in tensors.keys() ^ state.keys():
                raise MethodError(f"A stored policy and its learner differ in {name!r}: train the policy again.")
        for name, tensor in tensors.items():
            stored = np.concatenate([state[name] for state in states])
            if stored.shape != tuple(tensor.shape):
                raise MethodError(
                    f"Stored {name!r} has shape {stored.shape}, this learner needs {tuple(tensor.shape)}: "
                    "load it with the config that it was trained with."
                )
            tensor.copy_(torch.from_numpy(stored))

    def _tensors(self) -> dict[str, torch.Tensor]:
        return dict(self._agent.state_dict())
