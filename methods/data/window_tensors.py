"""A dataset on a device, from which batches of windows and of transitions are gathered by index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.data.windows import WindowIndex, rotations


@dataclass(frozen=True, slots=True, eq=False)
class Transitions:
    """Transitions (R, B, ...): x, x_next (R, B, N, D'), actions encoded (R, B, N, A).

    rewards, returns_to_go, terminal (R, B) of the team; available (R, B, N, A), alive (R, B, N) and states (R, B, K)
    belong to x and are None where the data have none.
    """

    x: Tensor
    x_next: Tensor
    actions: Tensor
    rewards: Tensor
    returns_to_go: Tensor
    terminal: Tensor
    available: Tensor | None
    alive: Tensor | None
    states: Tensor | None


class DeviceWindows:
    """The columns of a dataset as tensors, observations normalised and actions encoded.

    Args:
        index: the windows.
        observations: (S + E, N, D') normalised, on the device.
        actions: (S, N, A) encoded, or (S, N) int64 choices that become one-hot when gathered.
        conditions: (S,) or (S, N) normalised return that conditions a window starting at that step.
    """

    def __init__(
        self,
        index: WindowIndex,
        observations: Tensor,
        actions: Tensor,
        conditions: Tensor,
    ) -> None:
        data, self.device = index.data, observations.device
        self.index, self.horizon, self.n_agents = index, index.horizon, data.spec.n_agents
        self.features, self._action_size = observations.shape[-1], data.spec.action.size
        self._observations, self._actions = observations, actions
        self._conditions = conditions if conditions.dim() == 2 else conditions[:, None].expand(-1, self.n_agents)
        self._first_row, self._first_step, self._left = (
            self._tensor(a) for a in (index.first_row, index.first_step, index.left)
        )
        self._row_of_step = self._tensor(data.row_of_step())
        self._rewards = self._tensor(data.team_rewards())
        self._returns_to_go = self._tensor(data.returns_to_go(1.0).astype(np.float32))
        self._terminals = self._tensor(data.terminals)
        self._available = None if data.available_actions is None else self._tensor(data.available_actions)
        self._alive = None if data.alive is None else self._tensor(data.alive)
        self._states = None if data.states is None else self._tensor(data.states)
        self._rotations = self._tensor(rotations(data.spec))
        self._ahead = torch.arange(self.horizon, device=self.device)

    def observations(self, windows: Tensor, turns: Tensor | None = None) -> Tensor:
        """(...) window numbers -> (..., H, N, D'); `turns` (...) rotate the agents."""
        rows = self._first_row[windows][..., None] + torch.minimum(self._ahead, self._left[windows][..., None])
        x = _select(self._observations, rows)  # (..., H, N, D')
        return x if turns is None else self._rotated(x, turns, lead=windows.dim() + 1)

    def conditions(self, windows: Tensor, turns: Tensor | None = None) -> Tensor:
        """(...) window numbers -> (..., N) the normalised return from the first row on."""
        c = _select(self._conditions, self._first_step[windows])
        return c if turns is None else self._rotated(c, turns, lead=windows.dim())

    def left(self, windows: Tensor) -> Tensor:
        """(...) window numbers -> (...) transitions to the end of the episode."""
        return self._left[windows]

    def transitions(self, steps: Tensor) -> Transitions:
        """The transitions at these steps of the dataset, (R, B)."""
        step, row = steps, self._row_of_step[steps]
        actions = _select(self._actions, step)
        if actions.dtype == torch.int64:
            actions = torch.nn.functional.one_hot(actions, self._action_size).float()
        return Transitions(
            x=_select(self._observations, row),
            x_next=_select(self._observations, row + 1),
            actions=actions,
            rewards=self._rewards[step],
            returns_to_go=self._returns_to_go[step],
            terminal=self._terminals[step],
            available=None if self._available is None else _select(self._available, row),
            alive=None if self._alive is None else _select(self._alive, row),
            states=None if self._states is None else _select(self._states, row),
        )

    def pairs(self, steps: Tensor) -> Tensor:
        """(M,) steps -> (M, 2, N, D') the observations before and after each."""
        rows = self._row_of_step[steps]
        return torch.stack([_select(self._observations, rows), _select(self._observations, rows + 1)], dim=1)

    def _rotated(self, values: Tensor, turns: Tensor, lead: int) -> Tensor:
        """Puts the agents, axis `lead` of the values, in the order that each of `turns` (...) says."""
        order = self._rotations[turns]  # (..., N)
        shape = (*turns.shape, *(1,) * (lead - turns.dim()), self.n_agents, *(1,) * (values.dim() - lead - 1))
        return values.gather(lead, order.view(shape).expand(values.shape))

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device)


def _select(column: Tensor, index: Tensor) -> Tensor:
    """(rows, ...) and (...) -> (..., ...); `index_select` copies whole rows, which `column[index]` does not."""
    return column.index_select(0, index.reshape(-1)).view(*index.shape, *column.shape[1:])
