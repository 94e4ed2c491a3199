"""What MA-ICQ reads of a batch: sequences with the action that is recorded at the next step, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.algorithms.joint import joint_state, team_reward, unit_actions
from methods.data.batches import TransitionBatch
from methods.data.sequences import SequenceBatch
from methods.networks.agents import ObservationScaler
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class SingleSteps(SequenceBatch):
    """Single transitions, T = 1, with what was done behind them: next_actions like actions; has_next (R, 1, B) bool.

    alone (R, 1, B) bool: whether what was done behind a transition was never recorded, because it is an episode.
    """

    next_actions: Tensor
    has_next: Tensor
    alone: Tensor


def single_steps(batches: Iterator[TransitionBatch]) -> Iterator[SingleSteps]:
    """The same transitions."""
    for batch in batches:
        assert batch.next_actions is not None
        assert batch.has_next is not None
        assert batch.alone is not None
        yield SingleSteps(
            observations=torch.stack([batch.observations, batch.next_observations], dim=1),
            available=_stacked(batch.available, batch.next_available),
            states=_stacked(batch.states, batch.next_states),
            last_actions=None,
            actions=batch.actions.unsqueeze(1),
            rewards=batch.rewards.unsqueeze(1),
            terminals=batch.terminals.unsqueeze(1),
            valid=torch.ones_like(batch.terminals).unsqueeze(1),
            next_actions=batch.next_actions.unsqueeze(1),
            has_next=batch.has_next.unsqueeze(1),
            alone=batch.alone.unsqueeze(1),
        )


def _stacked(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.stack([first, second], dim=1)


@dataclass(frozen=True, slots=True)
class View:
    """A batch as critics see it.

    Rows: observations (R, T + 1, B, N, D), scaled; states (R, T + 1, B, K). Steps: actions, in [−1, 1] or choices, like
    next_actions; reward (R, T, B), of the team; ends (R, T, B), nothing follows; has_next (R, T, B), a' is recorded;
    known (R, T, B), valid steps whose target is known.
    """

    observations: Tensor
    states: Tensor
    actions: Tensor
    next_actions: Tensor
    reward: Tensor
    ends: Tensor
    has_next: Tensor
    known: Tensor


def view(batch: SequenceBatch, scaler: ObservationScaler, spec: TaskSpec) -> View:
    """The batch with observations scaled. In a task of one step nothing ever follows, whatever ended it."""
    if isinstance(batch, SingleSteps):
        next_actions, has_next = batch.next_actions, batch.has_next
    else:
        next_actions = torch.cat([batch.actions[:, 1:], batch.actions[:, -1:]], dim=1)  # the last has no next
        has_next = torch.cat([batch.valid[:, 1:], torch.zeros_like(batch.valid[:, :1])], dim=1)
    observations = scaler(batch.observations)
    discrete, ends = spec.action.discrete, batch.terminals
    ends = torch.ones_like(ends) if spec.episode_limit == 1 else ends
    return View(
        observations=observations,
        states=joint_state(observations, batch.states),
        actions=batch.actions if discrete else unit_actions(batch.actions, spec.action),
        next_actions=next_actions if discrete else unit_actions(next_actions, spec.action),
        reward=team_reward(batch.rewards, spec.team_reward),
        ends=ends,
        has_next=has_next,
        known=batch.valid & (ends | has_next),
    )
