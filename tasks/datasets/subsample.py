"""Smaller datasets from larger ones, nested: each is contained in every larger one of the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError, UsageError
from tasks.common.seeding import make_generator
from tasks.common.selector import Scalar
from tasks.datasets.offline import OfflineDataset

Unit = Literal["episode", "transition"]
SUBSAMPLE_PARAMS = ("episodes", "fraction", "transitions", "unit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsample:
    """How much of a dataset is kept; exactly one of the three amounts is given.

    Attributes:
        episodes: this many episodes.
        fraction: this share of the episodes or transitions, rounded up.
        transitions: this many transitions; with whole episodes the last one may pass it.
        unit: keep whole episodes, or independent transitions (episodes of length 1; INS, Sec. 5.6).
    """

    episodes: int | None = None
    fraction: float | None = None
    transitions: int | None = None
    unit: Unit = "episode"

    def params(self) -> dict[str, Scalar]:
        """The parameters of the dataset's name that say the same."""
        amounts = {"episodes": self.episodes, "fraction": self.fraction, "transitions": self.transitions}
        params: dict[str, Scalar] = {name: value for name, value in amounts.items() if value is not None}
        return params if self.unit == "episode" else {**params, "unit": self.unit}


def parse_subsample(params: Mapping[str, Scalar], text: str) -> Subsample | None:
    """Reads the sub-sampling parameters of a dataset's name; None if there are none.

    Raises:
        UsageError: for a value out of range, or two amounts at once.
    """
    given = {name: value for name, value in params.items() if name in SUBSAMPLE_PARAMS}
    if not given:
        return None
    amounts = [name for name in given if name != "unit"]
    if len(amounts) != 1:
        raise UsageError(
            f"{text}: sub-sampling takes exactly one of episodes=, fraction= and transitions=, "
            f"and {' and '.join(amounts) or 'none'} was given."
        )
    for name in ("episodes", "transitions"):
        count = given.get(name)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise UsageError(f"{text}: {name}={count} is not a whole number of at least 1.")
    fraction = given.get("fraction")
    if fraction is not None and (isinstance(fraction, bool | str) or not 0 < fraction <= 1):
        raise UsageError(f"{text}: fraction={fraction} is not a number above 0 and at most 1.")
    unit = given.get("unit", "episode")
    if unit not in ("episode", "transition"):
        raise UsageError(f"{text}: unit={unit} is unknown. It is `episode` or `transition`.")
    if unit == "transition" and "episodes" in given:
        raise UsageError(f"{text}: unit=transition takes fraction= or transitions=, not episodes=.")
    if isinstance(fraction, int | float):
        return Subsample(fraction=float(fraction), unit=unit)  # type: ignore[arg-type]  # checked above
    return Subsample(**given)  # type: ignore[arg-type]  # each value checked above


def subsample(data: OfflineDataset, how: Subsample, seed: int) -> OfflineDataset:
    """The kept part of a dataset, in its original order.

    Episodes (or transitions) are permuted once for a seed and size, and the shortest prefix that reaches the
    amount is kept. So a smaller amount is contained in every larger one.

    Raises:
        DataError: if the dataset holds less than the amount.
    """
    by_episode = how.unit == "episode"
    size = data.n_episodes if by_episode else data.n_steps
    order = make_generator("subsample", how.unit, seed).permutation(size)
    if how.fraction is not None:
        wanted = _ceil(how.fraction * size)
    elif how.episodes is not None or not by_episode:
        wanted = how.episodes or how.transitions or 0
    else:
        reached = np.cumsum(data.lengths[order])
        wanted = int(np.searchsorted(reached, how.transitions or 0)) + 1
    if wanted > size:
        amount = ", ".join(f"{name}={value}" for name, value in how.params().items())
        raise DataError(
            f"{data.spec.id}: cannot keep {amount} of {data.n_episodes} episodes with {data.n_steps} transitions. "
            "Ask for less, or build a larger dataset with --episodes."
        )
    kept = np.sort(order[:wanted])
    return data.take(kept) if by_episode else take_transitions(data, kept)


def take_transitions(data: OfflineDataset, steps: NDArray[np.int64]) -> OfflineDataset:
    """Independent transitions: each becomes an episode of length 1, truncated where it did not end."""
    episode = np.searchsorted(data.episode_starts, steps, side="right") - 1
    rows = np.stack([steps + episode, steps + episode + 1], axis=1).reshape(-1)  # observation, next observation
    return data.replace(
        **{
            name: None if column is None else column[rows]
            for name, column in (
                ("observations", data.observations),
                ("available_actions", data.available_actions),
                ("states", data.states),
                ("alive", data.alive),
            )
        },
        actions=data.actions[steps],
        rewards=data.rewards[steps],
        terminals=data.terminals[steps],
        truncations=~data.terminals[steps],
        behaviour=None if data.behaviour is None else data.behaviour[steps],
        won=None if data.won is None else data.won[episode],
        episode_starts=np.arange(len(steps) + 1, dtype=np.int64),
    )


def _ceil(value: float) -> int:
    """Rounds up, forgiving float error: 0.07 of 100 is 7, not 8."""
    return int(np.ceil(value - 1e-9 * max(1.0, abs(value))))
