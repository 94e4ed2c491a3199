"""Which attempts at an episode were begun, finished or given up, and what they have appended so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.synthesis.stitch_policy import leading_rows

_IN_FLIGHT, _GIVEN_UP = 0, -1  # other outcomes: transitions of a finished episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """When generation is done; exactly one of the two is given.

    Attributes:
        transitions: whole episodes until they hold so many. episodes: so many episodes.
    """

    transitions: int | None = None
    episodes: int | None = None

    @property
    def size(self) -> int:
        """What is wanted, in its own unit."""
        return (self.episodes if self.transitions is None else self.transitions) or 0

    def worth(self, length: int) -> int:
        """What a finished episode of some length adds to it."""
        return 1 if self.transitions is None else length


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitched:
    """E finished episodes of S transitions, one after another, in the order in which they were begun.

    Attributes:
        observations: (S + E, N, D') normalised, T + 1 rows an episode.
        actions: (S, N, A) encoded. rewards: (S,) of the team.
        terminal: (E,) the episode ended truly; False: at the limit.
        lengths: (E,) int64.
        starts: (E,) int64, which row of the start pool the episode began with.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminal: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]


class Ledger:
    """Attempts in the order in which they were begun. The result is a prefix of them, as the sequential algorithm's.

    A later attempt that finishes early never takes the place of an earlier one: the episodes that count are those of
    the leading attempts whose fate is known. Otherwise a batch of slots would prefer episodes that end soon.
    """

    def __init__(self, goal: Goal, limit: int) -> None:
        self.goal, self._limit = goal, limit
        self._starts: list[int] = []
        self._outcomes: list[int] = []
        self._terminal: dict[int, bool] = {}
        self._settled = 0  # the first so many attempts are finished or given up
        self.done = 0  # what they are worth
        self._finished_worth = 0  # of all finished attempts
        self.finished = self.given_up = 0

    @property
    def begun(self) -> int:
        """Attempts so far."""
        return len(self._outcomes)

    @property
    def reached(self) -> bool:
        """Whether the settled attempts hold what is wanted."""
        return self.done >= self.goal.size

    def begin(self, start: int) -> int:
        """The number of a new attempt from one row of the start pool."""
        self._starts.append(start)
        self._outcomes.append(_IN_FLIGHT)
        return self.begun - 1

    def finish(self, attempt: int, length: int, terminal: bool) -> None:
        """An episode is complete."""
        self._outcomes[attempt], self._terminal[attempt] = length, terminal
        self.finished += 1
        self._finished_worth += self.goal.worth(length)
        self._settle()

    def give_up(self, attempt: int) -> None:
        """An episode is discarded with all that it has."""
        self._outcomes[attempt] = _GIVEN_UP
        self.given_up += 1
        self._settle()

    def is_given_up(self, attempts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(M,) which of these attempts were discarded."""
        return np.asarray(self.lengths(attempts) == _GIVEN_UP)

    def wanted(self, in_flight: int) -> int:
        """How many attempts are worth beginning, judged by how the settled ones went. Decides the speed alone."""
        settled = self.finished + self.given_up
        each = self._finished_worth / settled if self.finished else float(self.goal.worth(self._limit))
        missing = self.goal.size - self._finished_worth - in_flight * each
        return max(int(np.ceil(missing / each)), 0 if in_flight else 1)

    def chosen(self) -> NDArray[np.int64]:
        """(E,) the finished attempts that make up the result, in order, once it is reached."""
        kept, total = [], 0
        for attempt, length in enumerate(self._outcomes):
            if total >= self.goal.size:
                break
            if length > 0:
                kept.append(attempt)
                total += self.goal.worth(length)
        return np.asarray(kept, dtype=np.int64)

    def lengths(self, attempts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(E,) transitions of finished attempts; 0 or less of the others."""
        return np.asarray(self._outcomes, dtype=np.int64)[attempts]

    def starts(self, attempts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(E,) rows of the start pool."""
        return np.asarray(self._starts, dtype=np.int64)[attempts]

    def terminal(self, attempts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(E,) whether the finished attempts ended truly."""
        return np.asarray([self._terminal[int(attempt)] for attempt in attempts], dtype=np.bool_)

    def _settle(self) -> None:
        while self._settled < self.begun and (length := self._outcomes[self._settled]) != _IN_FLIGHT:
            self.done += self.goal.worth(length) if length > 0 else 0
            self._settled += 1


@dataclass(slots=True)
class _Chunk:
    """M appended transitions of several attempts: (M,) attempt and place, (M, N, D') next rows, actions, rewards."""

    attempt: NDArray[np.int64]
    place: NDArray[np.int64]
    next_rows: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> _Chunk:
        return _Chunk(
            self.attempt[index], self.place[index], self.next_rows[index], self.actions[index], self.rewards[index]
        )

    @classmethod
    def join(cls, chunks: list[_Chunk]) -> _Chunk:
        names = ("attempt", "place", "next_rows", "actions", "rewards")
        return cls(*(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names))


@dataclass(slots=True)
class TransitionStore:
    """Appended transitions in the order of the ticks; sorted into episodes at the end."""

    _chunks: list[_Chunk] = field(default_factory=list)
    _compact_at: int = 64

    def append(
        self,
        attempts: NDArray[np.int64],
        places: NDArray[np.int64],
        windows: Tensor,
        actions: Tensor,
        rewards: Tensor,
        count: NDArray[np.int64],
    ) -> None:
        """Adds the first `count` (B,) transitions of windows (B, H, N, D'), the first being step `places` (B,)."""
        taken = leading_rows(count, rewards.shape[1], windows.device)  # (B, H - 1)
        who, ahead = np.nonzero(taken.cpu().numpy())
        self._chunks.append(
            _Chunk(
                attempts[who],
                places[who] + ahead,
                windows[:, 1:][taken].cpu().numpy(),
                actions[taken].cpu().numpy(),
                rewards[taken].cpu().numpy(),
            )
        )

    def compact(self, ledger: Ledger) -> None:
        """Now and then drops what belongs to attempts that were given up."""
        if len(self._chunks) < self._compact_at:
            return
        joined = _Chunk.join(self._chunks)
        self._chunks = [joined.take(~ledger.is_given_up(joined.attempt))]

    def episodes(self, ledger: Ledger, pool: Tensor) -> Stitched:
        """The chosen episodes, begun from rows of `pool` (M, N, D')."""
        chosen = ledger.chosen()
        lengths, starts = ledger.lengths(chosen), ledger.starts(chosen)
        steps = _Chunk.join(self._chunks)
        steps = steps.take(np.isin(steps.attempt, chosen))
        steps = steps.take(np.lexsort((steps.place, steps.attempt)))
        first = np.concatenate([[0], np.cumsum(lengths + 1)])[:-1]  # (E,) the row of each start
        is_start = np.zeros(int((lengths + 1).sum()), dtype=np.bool_)
        is_start[first] = True
        observations = np.empty((len(is_start), *steps.next_rows.shape[1:]), dtype=np.float32)
        observations[is_start] = pool[torch.as_tensor(starts, device=pool.device)].cpu().numpy()
        observations[~is_start] = steps.next_rows
        return Stitched(
            observations=observations,
            actions=steps.actions,
            rewards=steps.rewards,
            terminal=ledger.terminal(chosen),
            lengths=lengths,
            starts=starts,
        )
