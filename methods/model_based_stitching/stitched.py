"""Episodes made of rows of the original data: what a pass starts from and ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.offline import ROW_COLUMNS, OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, eq=False)
class StitchedEpisodes:
    """E episodes; observations, masks, states and alive flags are those of the rows, which are real.

    Attributes:
        rows: (S + E,) rows of the original data; (S + E, N) where agents were stitched one by one.
        actions: (S, N, A) or (S, N). rewards: (S, N).
        synthetic: (S,) whether action and reward come from models.
        terminal: (E,) whether the last step is a true end.
        won: (E,) bool; False where no win is defined.
        starts: (E + 1,) step offsets.
    """

    rows: NDArray[np.int64]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    synthetic: NDArray[np.bool_]
    terminal: NDArray[np.bool_]
    won: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def original(cls, data: OfflineDataset) -> Self:
        """The data themselves."""
        return cls(
            rows=np.arange(len(data.observations)),
            actions=data.actions,
            rewards=data.rewards,
            synthetic=np.zeros(data.n_steps, dtype=np.bool_),
            terminal=np.asarray(data.terminals[data.episode_starts[1:] - 1]),
            won=np.zeros(data.n_episodes, dtype=np.bool_) if data.won is None else np.asarray(data.won),
            starts=data.episode_starts,
        )

    @property
    def n_episodes(self) -> int:
        """E."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(E,) steps of each."""
        return np.diff(self.starts)

    def first_rows(self) -> NDArray[np.int64]:
        """(S,) the row of each step."""
        rows: NDArray[np.int64] = self.rows[self._places()]
        return rows

    def second_rows(self) -> NDArray[np.int64]:
        """(S,) the row that each step leads to."""
        rows: NDArray[np.int64] = self.rows[self._places() + 1]
        return rows

    def _places(self) -> NDArray[np.int64]:
        """(S,) where the row of each step stands among `rows`."""
        places: NDArray[np.int64] = np.arange(self.starts[-1]) + np.repeat(np.arange(self.n_episodes), self.lengths)
        return places

    def returns(self, spec: TaskSpec) -> NDArray[np.float64]:
        """(E,) undiscounted team returns."""
        totals = np.concatenate([[0.0], np.cumsum(spec.fold_rewards(self.rewards), dtype=np.float64)])
        returns: NDArray[np.float64] = totals[self.starts[1:]] - totals[self.starts[:-1]]
        return returns

    def take(self, episodes: NDArray[np.int64]) -> StitchedEpisodes:
        """These episodes, in this order."""
        lengths = self.lengths[episodes]
        steps = ranges(self.starts[episodes], lengths)
        rows = ranges(self.starts[episodes] + episodes, lengths + 1)
        return StitchedEpisodes(
            rows=self.rows[rows],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            synthetic=self.synthetic[steps],
            terminal=self.terminal[episodes],
            won=self.won[episodes],
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )

    def with_steps(self, steps: NDArray[np.int64], actions: NDArray[Any], rewards: NDArray[np.float32]) -> Self:
        """Other actions (C, ...) and rewards (C, N) at some steps (C,)."""
        new_actions, new_rewards = np.array(self.actions), np.array(self.rewards)
        new_actions[steps], new_rewards[steps] = actions, rewards
        return replace(self, actions=new_actions, rewards=new_rewards)

    def dataset(self, data: OfflineDataset) -> OfflineDataset:
        """As a dataset; what does not end truly ends in a truncation."""
        columns = {name: self._at_rows(name, column) for name, column in data.columns().items() if name in ROW_COLUMNS}
        last = np.zeros(int(self.starts[-1]), dtype=np.bool_)
        last[self.starts[1:] - 1] = True
        ends = np.repeat(self.terminal, self.lengths)
        if data.won is not None:
            columns["won"] = self.won
        return OfflineDataset(
            spec=data.spec,
            actions=np.asarray(self.actions),
            rewards=np.asarray(self.rewards),
            terminals=last & ends,
            truncations=last & ~ends,
            episode_starts=self.starts,
            **columns,
        )

    def _at_rows(self, name: str, column: NDArray[Any]) -> NDArray[Any]:
        """A column of rows; each agent's from its own row, and the global state from the first agent's (inferred)."""
        if self.rows.ndim == 1:
            return np.asarray(column[self.rows])
        if name == "states":
            return np.asarray(column[self.rows[:, 0]])
        return np.asarray(column[self.rows, np.arange(self.rows.shape[1])])


def together(parts: Sequence[StitchedEpisodes]) -> StitchedEpisodes:
    """All episodes, in order; there is a part or more."""
    named = ("rows", "actions", "rewards", "synthetic", "terminal", "won")
    offsets = np.cumsum([0, *(int(part.starts[-1]) for part in parts)])
    starts = [part.starts[1:] + offset for part, offset in zip(parts, offsets, strict=False)]
    return StitchedEpisodes(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in named},
        starts=np.concatenate([[0], *starts]).astype(np.int64),
    )


def chosen_from(kept: StitchedEpisodes, new: StitchedEpisodes, accepted: NDArray[np.bool_]) -> StitchedEpisodes:
    """Episode e of `new` where it was accepted (E,), else of `kept`."""
    episodes = np.arange(kept.n_episodes)
    return together([kept, new]).take(episodes + np.where(accepted, kept.n_episodes, 0))


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start_0 .. start_0 + length_0 - 1, start_1 .. and so on."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    indices: NDArray[np.int64] = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return indices
