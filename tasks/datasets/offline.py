"""`OfflineDataset`: episodes of one task as flat, memory-mappable columns (design, section 2).

With E episodes and S steps in all, step s of episode e has its observation in row s + e and its next observation in
row s + e + 1, so nothing is stored twice. Independent transitions are E episodes of length 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError
from tasks.datasets.values import require_values
from tasks.spec import TaskSpec

BEHAVIOURS = ("expert", "medium", "random", "learner", "poor")
"""What the codes of the privileged `behaviour` column stand for; -1 is unknown."""

PRIVILEGED = ("behaviour",)
ROW_COLUMNS = ("observations", "available_actions", "states", "alive")
STEP_COLUMNS = ("actions", "rewards", "terminals", "truncations", "behaviour")
EPISODE_COLUMNS = ("won",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OfflineDataset:
    """Episodes of one task. Columns may be memory-mapped and are never written to.

    Attributes:
        spec: the task that the episodes come from.
        observations: (S + E, N, D) float32; each episode has T + 1 rows, the last is its final observation.
        actions: (S, N, A) float32 for continuous tasks, (S, N) int64 for discrete ones.
        rewards: (S, N) float32, per agent, in the engine's units.
        terminals, truncations: (S,) bool, the true end and the time limit (or an arbitrary cut).
        episode_starts: (E + 1,) int64, step offsets; the last entry is S.
        available_actions: (S + E, N, A) bool, discrete tasks; True = allowed.
        states: (S + E, K) float32, where the task has a global state.
        alive: (S + E, N) bool, where agents can die.
        won: (E,) bool, where a win is defined.
        behaviour: (S, N) int8, privileged: index into BEHAVIOURS of who acted, -1 unknown.
    """

    spec: TaskSpec
    observations: NDArray[np.float32]
    actions: NDArray[np.float32] | NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminals: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    episode_starts: NDArray[np.int64]
    available_actions: NDArray[np.bool_] | None = None
    states: NDArray[np.float32] | None = None
    alive: NDArray[np.bool_] | None = None
    won: NDArray[np.bool_] | None = None
    behaviour: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        """Checks shapes and dtypes, which costs nothing; `validate` reads the values as well."""
        for name, (shape, dtype) in self.layout(self.spec, self.n_episodes, self.n_steps).items():
            column = getattr(self, name)
            if column is None:
                continue
            if column.shape != shape or column.dtype != dtype:
                raise DataError(
                    f"{self.spec.id}: column {name!r} has shape {column.shape} and dtype {column.dtype}, expected "
                    f"{shape} and {np.dtype(dtype)} for {self.n_episodes} episodes with {self.n_steps} steps."
                )
        for name in self.required_columns(self.spec):
            if getattr(self, name) is None:
                raise DataError(f"{self.spec.id}: column {name!r} is missing; this task's datasets must have it.")

    @staticmethod
    def layout(spec: TaskSpec, n_episodes: int, n_steps: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every column of a dataset with these sizes."""
        n, a, rows = spec.n_agents, spec.action.size, n_steps + n_episodes
        return {
            "observations": ((rows, n, spec.obs_dim), np.float32),
            "actions": ((n_steps, n), np.int64) if spec.action.discrete else ((n_steps, n, a), np.float32),
            "rewards": ((n_steps, n), np.float32),
            "terminals": ((n_steps,), np.bool_),
            "truncations": ((n_steps,), np.bool_),
            "episode_starts": ((n_episodes + 1,), np.int64),
            "available_actions": ((rows, n, a), np.bool_),
            "states": ((rows, spec.state_dim or 0), np.float32),
            "alive": ((rows, n), np.bool_),
            "won": ((n_episodes,), np.bool_),
            "behaviour": ((n_steps, n), np.int8),
        }

    @staticmethod
    def required_columns(spec: TaskSpec) -> tuple[str, ...]:
        """The columns that every dataset of this task must have."""
        optional = {
            "available_actions": spec.action.discrete,
            "states": spec.state_dim is not None,
            "alive": spec.has_deaths,
            "won": spec.has_win,
        }
        always = ("observations", "actions", "rewards", "terminals", "truncations", "episode_starts")
        return (*always, *(name for name, needed in optional.items() if needed))

    @classmethod
    def empty(cls, spec: TaskSpec) -> OfflineDataset:
        """A dataset of no episodes, with every required column."""
        layout = cls.layout(spec, 0, 0)
        return cls(
            spec=spec,
            **{name: np.zeros(layout[name][0], layout[name][1]) for name in cls.required_columns(spec)},
        )

    # -- sizes ---------------------------------------------------------------------------------------------------

    @property
    def n_episodes(self) -> int:
        """E."""
        return len(self.episode_starts) - 1

    @property
    def n_steps(self) -> int:
        """S, transitions in all."""
        return len(self.rewards)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(E,) transitions of each episode."""
        return np.diff(self.episode_starts)

    @property
    def row_starts(self) -> NDArray[np.int64]:
        """(E + 1,) row offsets of the columns that have a final row an episode."""
        return self.episode_starts + np.arange(self.n_episodes + 1)

    def episode_of_step(self) -> NDArray[np.int64]:
        """(S,) the episode that each step belongs to."""
        return np.repeat(np.arange(self.n_episodes), self.lengths)

    def row_of_step(self) -> NDArray[np.int64]:
        """(S,) the row of each step's observation; the next observation is one row later."""
        return np.arange(self.n_steps) + self.episode_of_step()

    # -- returns -------------------------------------------------------------------------------------------------

    def team_rewards(self) -> NDArray[np.float32]:
        """(S,) per-agent rewards folded by `spec.team_reward`."""
        return self.spec.fold_rewards(self.rewards)

    def returns(self) -> NDArray[np.float64]:
        """(E,) undiscounted team returns; 0 for an episode without steps."""
        totals = np.concatenate([[0.0], np.cumsum(self.team_rewards(), dtype=np.float64)])
        returns: NDArray[np.float64] = totals[self.episode_starts[1:]] - totals[self.episode_starts[:-1]]
        return returns

    def returns_to_go(self, discount: float, rewards: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
        """(S, ...) discounted reward from each step to the end of its episode: the team's, or the given (S, ...)."""
        reward = (self.team_rewards() if rewards is None else rewards).astype(np.float64)
        result = np.empty_like(reward)
        remaining = np.zeros((self.n_episodes, *reward.shape[1:]))  # of each episode, walking backwards together
        lengths, ends = self.lengths, self.episode_starts[1:]
        for back in range(1, int(lengths.max(initial=0)) + 1):
            active = lengths >= back
            steps = ends[active] - back
            remaining[active] = reward[steps] + discount * remaining[active]
            result[steps] = remaining[active]
        return result

    # -- new datasets from this one ------------------------------------------------------------------------------

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns that are present, by name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "spec")
        return {name: column for name, column in named if column is not None}

    def replace(self, **columns: NDArray[Any] | None) -> Self:
        """A copy with other columns, checked again."""
        return replace(self, **columns)  # type: ignore[arg-type]  # one dtype a column, checked on construction

    def without_privileged(self) -> Self:
        """What a method may see: the same data without the privileged columns."""
        return self.replace(**dict.fromkeys(PRIVILEGED))

    def take(self, episodes: NDArray[np.int64] | Sequence[int]) -> Self:
        """The dataset of these episodes, in this order; an episode may be taken more than once.

        Raises:
            DataError: if an index is out of range.
        """
        index = np.asarray(episodes, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= self.n_episodes):
            worst = int(index.min() if index.min() < 0 else index.max())
            raise DataError(
                f"{self.spec.id}: there is no episode {worst}; the dataset has {self.n_episodes}, numbered from 0."
            )
        lengths = self.lengths[index]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        steps = _ranges(self.episode_starts[index], lengths)
        rows = _ranges(self.row_starts[index], lengths + 1)
        gathered: dict[str, NDArray[Any]] = {"episode_starts": starts}
        for name, column in self.columns().items():
            if name != "episode_starts":
                gathered[name] = column[_index_of(name, steps, rows, index)]
        return self.replace(**gathered)

    def repeat(self, copies: int) -> Self:
        """All episodes `copies` times, one whole copy after another."""
        return self.take(np.tile(np.arange(self.n_episodes), copies))

    def episodes(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        """The episodes one by one, as views of the columns: rows (T + 1, ...), steps (T, ...), `won` ()."""
        rows = self.row_starts
        for e in range(self.n_episodes):
            step_slice = slice(int(self.episode_starts[e]), int(self.episode_starts[e + 1]))
            row_slice = slice(int(rows[e]), int(rows[e + 1]))
            yield {
                name: column[_index_of(name, step_slice, row_slice, e)]
                for name, column in self.columns().items()
                if name != "episode_starts"
            }

    # -- values --------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Reads all values and checks everything that holds for every dataset of the task.

        Raises:
            DataError: naming the column, the first offending index and what was expected.
        """
        starts = self.episode_starts
        if starts[0] != 0 or starts[-1] != self.n_steps or (np.diff(starts) < 1).any():
            raise DataError(
                f"{self.spec.id}: episode_starts must rise from 0 to {self.n_steps}, one step or more each."
            )
        require_values(self, len(BEHAVIOURS))


def concatenate(datasets: Sequence[OfflineDataset]) -> OfflineDataset:
    """All episodes of several datasets of one task, in order. Columns that one of them lacks are dropped.

    Raises:
        DataError: if there is none, or if the tasks differ.
    """
    if not datasets:
        raise DataError("There is no dataset to concatenate. Pass at least one.")
    first = datasets[0]
    for other in datasets[1:]:
        if other.spec.id != first.spec.id:
            raise DataError(f"Datasets of {first.spec.id} and {other.spec.id} cannot be joined: the tasks differ.")
    filled = [data for data in datasets if data.n_episodes] or [first]
    if len(filled) == 1:
        return filled[0]
    shared = set.intersection(*(set(data.columns()) for data in filled))
    joined: dict[str, NDArray[Any] | None] = dict.fromkeys(filled[0].columns())
    for name in shared - {"episode_starts"}:
        joined[name] = np.concatenate([getattr(data, name) for data in filled])
    lengths = np.concatenate([data.lengths for data in filled])
    joined["episode_starts"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return filled[0].replace(**joined)


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start_0 .. start_0 + length_0 - 1, start_1 .. and so on, as one index array."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    indices: NDArray[np.int64] = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return indices


def _index_of(column: str, steps: Any, rows: Any, episodes: Any) -> Any:
    if column in ROW_COLUMNS:
        return rows
    return steps if column in STEP_COLUMNS else episodes
