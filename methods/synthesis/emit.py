"""Which whole episodes an augmenter copies, so that the amount of `run.budget` is met."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import UnsupportedError
from tasks.datasets.offline import OfflineDataset


def until_amount(lengths: NDArray[np.int64], amount: int) -> int:
    """How many episodes, taken from the front, are needed for `amount` transitions (0 for an amount of 0).

    Args:
        lengths: (E,) transitions of each episode, 1 or more.
        amount: no more than their sum.
    """
    return int(np.searchsorted(np.cumsum(lengths), amount)) + 1 if amount > 0 else 0


def tiled_episodes(
    data: OfflineDataset, amount: int | None, copies: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of `copies` whole copies of the data, or of as many as `amount` transitions take.

    Whole copies come first, in order. What is left of the amount is a random subset of the episodes, without
    replacement: the front of a dataset is often recorded by one behaviour alone.
    """
    if amount is None:
        return np.tile(np.arange(data.n_episodes), copies)
    if data.n_episodes == 0:
        return np.zeros(0, dtype=np.int64)
    whole, rest = divmod(amount, data.n_steps)
    order = generator.permutation(data.n_episodes)
    last = order[: until_amount(data.lengths[order], rest)]
    return np.concatenate([np.tile(np.arange(data.n_episodes), whole), np.sort(last)])


def sampled_episodes(data: OfflineDataset, amount: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Indices of episodes drawn uniformly with replacement until they hold `amount` transitions."""
    drawn = np.zeros(0, dtype=np.int64)
    while data.n_episodes and data.lengths[drawn].sum() < amount:
        missing = amount - data.lengths[drawn].sum()
        more = generator.integers(data.n_episodes, size=int(missing // data.lengths.mean()) + 1)
        drawn = np.concatenate([drawn, more])
    return drawn[: until_amount(data.lengths[drawn], amount)]


def distinct_episodes(
    data: OfflineDataset, amount: int | None, generator: np.random.Generator, owner: str
) -> NDArray[np.int64]:
    """Indices of different episodes, drawn at random until they hold `amount` transitions; None: all, in order.

    Raises:
        UnsupportedError: if all of them together hold fewer.
    """
    if amount is None:
        return np.arange(data.n_episodes)
    if data.n_steps < amount:
        raise UnsupportedError(
            f"{owner} must return {amount} transitions without repeating one, but only {data.n_steps} more real "
            "ones were recorded. Lower the amount, or record more episodes."
        )
    order = generator.permutation(data.n_episodes)
    return order[: until_amount(data.lengths[order], amount)]


def as_transitions(data: OfflineDataset, steps: NDArray[np.int64]) -> OfflineDataset:
    """The chosen steps as episodes of length 1: true ends stay, no other step has a flag.

    Whether an episode was won is a fact about its whole; the column is False here where the task requires it.

    Args:
        data: the episodes that the steps come from.
        steps: (M,) indices of steps, repetitions allowed.
    """
    first = data.row_of_step()[steps]  # (M,)
    rows = np.stack([first, first + 1], axis=1).reshape(-1)  # (2M,)
    columns: dict[str, NDArray[Any] | None] = {
        name: getattr(data, name)[steps] for name in ("actions", "rewards", "terminals")
    }
    for name in ("observations", "available_actions", "states", "alive"):
        column = getattr(data, name)
        columns[name] = None if column is None else column[rows]
    return data.replace(
        **columns,
        truncations=np.zeros(len(steps), dtype=np.bool_),
        episode_starts=np.arange(len(steps) + 1, dtype=np.int64),
        won=None if data.won is None else np.zeros(len(steps), dtype=np.bool_),
        behaviour=None,
    )
