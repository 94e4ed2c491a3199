"""Values that act among the actions which a behaviour network finds likely: BCQ's way to act for discrete actions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.networks.agents import GRUAgent, MLPAgent
from methods.networks.policy import AgentPolicy
from methods.objectives.q_learning import likely_actions
from tasks.common.errors import MethodError
from tasks.spec import TaskSpec


class FilteredPolicy(AgentPolicy):
    """Greedy among the likely actions. The memory is that of the values and that of the behaviour.

    Args:
        agent: the values of all actions, a network as `AgentPolicy` takes it.
        behaviour: another one, logits out; neither sees last actions.
        threshold: ζ, least p(a) / max p of a likely action.
        spec: the task.
        replicas: R.
        device: where it computes.
        diagnosis: what training tells about each replica.
    """

    def __init__(
        self,
        agent: GRUAgent | MLPAgent,
        behaviour: GRUAgent | MLPAgent,
        threshold: float,
        spec: TaskSpec,
        replicas: int,
        device: str,
        diagnosis: Sequence[Mapping[str, float | None]] = (),
    ) -> None:
        super().__init__(agent, spec, replicas, device, diagnosis)
        self._behaviour = copy.deepcopy(behaviour).to(device).requires_grad_(False)
        self._threshold = threshold

    @torch.inference_mode()
    def act(
        self, observations: NDArray[np.float32], available_actions: NDArray[np.bool_] | None, memory: Any = None
    ) -> tuple[NDArray[np.float32] | NDArray[np.int64], Any]:
        """Greedy joint actions; see `LearnedPolicy.act`."""
        if available_actions is None:
            raise MethodError(f"{self.spec.id}: a policy for discrete actions needs `available_actions`.")
        of_values, hidden = (None, None) if memory is None else memory
        seen = torch.tensor(observations, device=self.device)  # (R, B, N, D)
        if isinstance(self._behaviour, GRUAgent):
            logits, hidden = self._behaviour(seen[:, None], None, hidden)  # (R, 1, B, N, A)
            logits = logits[:, 0]
        else:
            logits = self._behaviour(seen)  # (R, B, N, A)
        available = torch.tensor(available_actions, device=self.device)
        likely = likely_actions(logits, available, self._threshold)
        action, of_values = super().act(observations, likely.cpu().numpy(), of_values)
        return action, (of_values, hidden)

    def _tensors(self) -> dict[str, Tensor]:
        behaviour = {f"behaviour.{name}": tensor for name, tensor in self._behaviour.state_dict().items()}
        return {**super()._tensors(), **behaviour}
