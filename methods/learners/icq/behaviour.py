"""The action behind a single transition, which nobody recorded: drawn from a clone of whoever acted in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.joint import unit_actions
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.data.batches import TransitionBatch, lone_steps
from methods.learners.icq.view import SingleSteps
from methods.networks.agents import MLPAgent
from methods.networks.heads import greedy_choice, masked_log_softmax, stretched
from methods.objectives.densities import drawn_actions, log_density
from methods.objectives.gumbel import gumbel
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


def has_lone_steps(data: Sequence[OfflineDataset]) -> bool:
    """Whether some transition stands alone, and so lacks the action behind it."""
    return any(bool(lone_steps(d).any()) for d in {id(d): d for d in data}.values())


class ClonedBehaviour:
    """β(a_i | o_i) of R teams, a density or probabilities like the policies.

    Args:
        agent: the policies' kind of network.
        spec: the task.
        density: of continuous actions.
        generators: R, what actions are drawn with.
    """

    def __init__(
        self, agent: MLPAgent, spec: TaskSpec, density: str, generators: Sequence[np.random.Generator]
    ) -> None:
        self.agent, self.generators = agent, generators
        self._spec, self._density = spec, density

    def losses(self, batch: TransitionBatch) -> Tensor:
        """(R,) ⟨−log β(a_i | o_i)⟩ over transitions and agents."""
        raw = self.agent(batch.observations)  # (R, B, N, outputs)
        if self._spec.action.discrete:
            assert batch.available is not None
            log_p = masked_log_softmax(raw, batch.available).gather(-1, batch.actions[..., None])[..., 0]
        else:
            log_p = log_density(self._density, raw, unit_actions(batch.actions, self._spec.action))
        return -log_p.mean(dim=(1, 2))

    @torch.no_grad()
    def actions(self, observations: Tensor, available: Tensor | None) -> Tensor:
        """One draw for each agent: (R, B, N, D), (R, B, N, A) -> (R, B, N, A) in bounds, or available (R, B, N)."""
        raw, shape = self.agent(observations), (*observations.shape[1:3], self._spec.action.size)
        if self._spec.action.discrete:
            assert available is not None
            noise = np.stack([g.standard_exponential(shape, dtype=np.float32) for g in self.generators])
            return greedy_choice(raw + gumbel(torch.from_numpy(noise).to(raw)), available)
        noise = np.stack([g.standard_normal(shape, dtype=np.float32) for g in self.generators])
        return stretched(drawn_actions(self._density, raw, torch.from_numpy(noise).to(raw)), self._spec.action)

    def completed(self, batch: SingleSteps) -> SingleSteps:
        """With drawn next actions for transitions that stand alone; all others stay as they are."""
        after = None if batch.available is None else batch.available[:, 1]
        drawn = self.actions(batch.observations[:, 1], after).unsqueeze(1)  # (R, 1, B, N[, A])
        alone = batch.alone.view(*batch.alone.shape, *[1] * (drawn.ndim - batch.alone.ndim))
        following = torch.where(alone, drawn, batch.next_actions)
        return replace(batch, next_actions=following, has_next=batch.has_next | batch.alone)


class BehaviourTrainer:
    """Clones the data into a behaviour."""

    def __init__(self, behaviour: ClonedBehaviour, learning_rate: float, max_grad_norm: float) -> None:
        self._behaviour, self.done, self._max_grad_norm = behaviour, 0, max_grad_norm
        self._parameters: list[Tensor] = list(behaviour.agent.parameters())
        self._adam = torch.optim.Adam(self._parameters, lr=learning_rate, fused=True)

    def update(self, batch: TransitionBatch) -> Losses:
        """One step of Adam."""
        loss = self._behaviour.losses(batch)
        descend(self._adam, self._parameters, loss, len(loss), self._max_grad_norm)
        self.done += 1
        return {"loss": loss}

    def parts(self) -> Parts:
        """See `Trainer`."""
        return Parts(named_tensors(behaviour=self._behaviour.agent), (self._adam,))
