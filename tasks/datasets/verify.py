"""Checks of a dataset file: is it whole, is it well-formed, and does the environment agree with it?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.base import Task
from tasks.common.errors import DataError, UsageError
from tasks.common.seeding import derive_seed, make_generator
from tasks.datasets.card import DatasetCard, behaviour_mix
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.store import load, load_card, verify_checksum
from tasks.datasets.views import transitions

REPLAYED = 2048
"""Transitions replayed. Ten of them may differ (THRESHOLD_SHARE), so a fault in 1% of the data is missed with
probability 0.8%, one in 2% with 6e-9."""

RESETS = 1024
"""Fresh episodes whose first observations bound the recorded ones."""

TOLERANCE = 1e-4
"""Largest difference of a replayed value, relative above 1. Observations are float32, so a restored position is off
by about 2e-7; contact forces (100 per unit of distance, 0.1 s) amplify that to 2e-6 a step. 1e-4 is 50 times that
and still 100 times finer than any fault seen."""

THRESHOLD_SHARE = 0.005
"""Share of transitions that may differ all the same: a touch decided by less than float32's precision changes the
reward by a whole bonus. That needs a distance within 1e-6 of the threshold, so a few in a million."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it is called, whether it passed, and what was seen."""

    name: str
    ok: bool
    detail: str


def verify(path: Path, task: Task, *, seed: int = 0) -> list[Finding]:
    """All checks of a dataset file against a task. Later checks need the file to be readable at all."""
    findings = [_checked("checksum", lambda: verify_checksum(path), "the SHA-256 is the card's")]
    try:
        data = load(path, task.spec)
    except DataError as error:
        return [*findings, Finding("columns", False, str(error))]
    columns = ", ".join(data.columns())
    findings.append(Finding("columns", True, f"shapes and dtypes are the task's: {columns}"))
    try:
        findings.append(_card(data, load_card(path)))
    except DataError as error:
        findings.append(Finding("card", False, str(error)))
    return [*findings, *verify_data(data, task, seed=seed)]


def verify_data(data: OfflineDataset, task: Task, *, seed: int = 0) -> list[Finding]:
    """The checks that need no file."""
    values = _checked("values", data.validate, f"all {data.n_steps} steps finite, in range and available")
    findings = [values, _booleans(data), _flags(data), _first_observations(data, task, seed)]
    return [*findings, _replay(data, task, seed)]


def _checked(name: str, check: Callable[[], None], detail: str) -> Finding:
    try:
        check()
    except DataError as error:
        return Finding(name, False, str(error))
    return Finding(name, True, detail)


def _card(data: OfflineDataset, card: DatasetCard) -> Finding:
    """Whether the card describes this data."""
    mean = float(data.returns().mean()) if data.n_episodes else math.nan
    claims = [("episodes", card.episodes, data.n_episodes), ("steps", card.steps, data.n_steps)]
    wrong = [f"{name} {claimed} (found {found})" for name, claimed, found in claims if claimed != found]
    if card.returns is not None and not math.isclose(card.returns.mean, mean, rel_tol=1e-6, abs_tol=1e-6):
        wrong.append(f"mean return {card.returns.mean:.6g} (found {mean:.6g})")
    if card.behaviour_mix != behaviour_mix(data):
        wrong.append(f"behaviour mix {card.behaviour_mix} (found {behaviour_mix(data)})")
    detail = f"the card says {'; '.join(wrong)}" if wrong else "sizes, mean return and behaviour mix are the card's"
    return Finding("card", not wrong, detail)


def _booleans(data: OfflineDataset) -> Finding:
    """A file can hold bytes other than 0 and 1 in a column of flags; numpy then computes nonsense."""
    bad = [
        name
        for name, column in data.columns().items()
        if column.dtype == np.bool_ and column.size and column.view(np.uint8).max() > 1
    ]
    return Finding("flag bytes", not bad, f"bytes other than 0 and 1 in {', '.join(bad)}" if bad else "all 0 or 1")


def _flags(data: OfflineDataset) -> Finding:
    """Every episode ends in a flag, and the time limit is the task's."""
    last = data.episode_starts[1:] - 1
    unflagged = np.flatnonzero(~(data.terminals[last] | data.truncations[last]))
    too_long = np.flatnonzero(data.lengths > data.spec.episode_limit)
    if unflagged.size:
        detail = f"{unflagged.size} episodes end without a flag (first: {unflagged[0]})"
    elif too_long.size:
        first = int(too_long[0])
        limit = data.spec.episode_limit
        detail = f"{too_long.size} episodes pass the limit of {limit} (first: {first}, {data.lengths[first]} steps)"
    else:
        detail = f"{int(data.terminals.sum())} true ends and {int(data.truncations.sum())} truncations, one an episode"
    return Finding("episode ends", not (unflagged.size or too_long.size), detail)


def _first_observations(data: OfflineDataset, task: Task, seed: int) -> Finding:
    """The first observations lie in the range of freshly reset ones, widened by a tenth of its width.

    A few may not, where an engine resets with unbounded noise (THRESHOLD_SHARE). Independent transitions start
    anywhere, so this holds for whole episodes only.
    """
    name = "reset range"
    if not data.n_episodes or (data.lengths == 1).all() or data.n_steps < data.n_episodes * 2:
        return Finding(name, True, "not applicable: the dataset holds independent transitions")
    resets = min(RESETS, task.most_envs)
    env = task.make_env(resets, derive_seed("verify", "reset", seed))
    try:
        fresh = env.reset(range(resets))
    finally:
        env.close()
    if fresh.observations.shape[1:] != data.observations.shape[1:] or fresh.observations.dtype != np.float32:
        return Finding(
            name, False, f"the environment shows {fresh.observations.shape[1:]}, recorded {data.observations.shape[1:]}"
        )
    for column in ("available_actions", "states", "alive"):
        if (getattr(fresh, column) is None) != (getattr(data, column) is None):
            return Finding(name, False, f"only one of environment and dataset has {column!r}")
    low, high = fresh.observations.min(axis=0), fresh.observations.max(axis=0)  # (N, D)
    margin = 0.1 * (high - low) + TOLERANCE
    first = data.observations[data.row_starts[:-1]]  # (E, N, D)
    outside = ~((first >= low - margin) & (first <= high + margin))
    strays = int(outside.any(axis=(1, 2)).sum())
    if strays <= THRESHOLD_SHARE * data.n_episodes:
        detail = f"{data.n_episodes - strays} of {data.n_episodes} episodes start where {resets} resets do"
        return Finding(name, True, detail)
    episode, agent, feature = (int(i) for i in np.argwhere(outside)[0])
    what = f"{data.spec.observation_features[feature]} = {first[episode, agent, feature]:.4g}"
    return Finding(
        name,
        False,
        f"{strays} of {data.n_episodes} episodes start outside the range of resets (first: episode {episode}, agent "
        f"{agent}, {what}, expected {low[agent, feature]:.4g} to {high[agent, feature]:.4g})",
    )


def _replay(data: OfflineDataset, task: Task, seed: int) -> Finding:
    """Restores sampled observations, repeats the recorded actions, compares rewards and next observations."""
    name = "replay"
    if not data.n_steps:
        return Finding(name, True, "not applicable: the dataset is empty")
    if data.spec.action.discrete and not ((data.actions >= 0) & (data.actions < data.spec.action.size)).all():
        return Finding(name, False, "not run: recorded actions are none of the task's")
    count = min(REPLAYED, data.n_steps, task.most_envs)
    steps = np.sort(make_generator("verify", "replay", seed).choice(data.n_steps, size=count, replace=False))
    batch = transitions(data).gather(steps)
    env = task.make_env(count, derive_seed("verify", "replay", seed))
    try:
        env.restore(batch.observations)
        replayed = env.step(batch.actions)
    except UsageError as error:
        return Finding(name, True, f"skipped: {error}")
    except DataError as error:
        return Finding(name, False, f"the environment refuses what was recorded: {error}")
    finally:
        env.close()
    reward_wrong = ~_close(replayed.rewards, batch.rewards).all(axis=1)  # (B,)
    next_wrong = ~_close(replayed.observations, batch.next_observations).all(axis=(1, 2))  # (B,)
    wrong = reward_wrong | next_wrong
    if wrong.mean() <= THRESHOLD_SHARE:
        return Finding(name, True, f"{count} transitions replayed, {int(wrong.sum())} differ (a few may, at contacts)")
    first = int(np.flatnonzero(wrong)[0])
    recorded, found = (np.round(rewards[first], 4).tolist() for rewards in (batch.rewards, replayed.rewards))
    return Finding(
        name,
        False,
        f"{int(wrong.sum())} of {count} replayed transitions differ ({int(reward_wrong.sum())} in the reward, "
        f"{int(next_wrong.sum())} in the next observation; first: step {int(steps[first])}, rewards {recorded} "
        f"recorded, {found} replayed)",
    )


def _close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Element-wise, within TOLERANCE; NaN is close to nothing."""
    close: NDArray[np.bool_] = np.abs(found - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))
    return close
