"""What the pipeline applies to everything that a method returns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.common.errors import DataError, MethodError
from tasks.datasets.offline import PRIVILEGED, OfflineDataset
from tasks.spec import TaskSpec


def check_generated(data: object, original: OfflineDataset, spec: TaskSpec, augmenter_name: str) -> OfflineDataset:
    """What an augmenter returned, if it keeps the contract.

    Args:
        data: what `generate` returned.
        original: what `generate` was given.
        spec: the task.
        augmenter_name: for the message.

    Raises:
        MethodError: naming the method, what is wrong and the first offending index.
    """
    who = f"Augmenter {augmenter_name!r}"
    if not isinstance(data, OfflineDataset):
        raise MethodError(f"{who} returned a {type(data).__name__}, expected an OfflineDataset of synthetic episodes.")
    if data.spec != spec:
        raise MethodError(f"{who} returned episodes of {data.spec.id!r}, expected those of {spec.id!r}.")
    try:
        data.replace()  # shapes and dtypes once more: a frozen dataclass can be changed all the same
        data.validate()
    except DataError as error:
        raise MethodError(f"{who} returned data that break the data model. {error}") from error
    extra = set(data.columns()) - set(original.columns())
    for name in sorted(extra | (set(PRIVILEGED) & set(data.columns()))):
        raise MethodError(f"{who} returned the column {name!r}, which synthetic episodes of {spec.id} must not have.")
    longest = int(data.lengths.max(initial=0))
    if longest > spec.episode_limit:
        raise MethodError(f"{who} returned an episode of {longest} steps; the limit is {spec.episode_limit}.")
    return data


def check_policy_actions(
    actions: object,
    spec: TaskSpec,
    *,
    replicas: int,
    batch: int,
    available_actions: NDArray[np.bool_] | None,
    learner_name: str,
) -> NDArray[np.bool_]:
    """(R,) which replicas acted with NaN or infinity, that is, have diverged; all others act legally.

    Args:
        actions: what `act` returned, (R, B, N, A) float32 or (R, B, N) int64.
        spec: the task.
        replicas: R.
        batch: B.
        available_actions: (R, B, N, A) for discrete tasks, else None.
        learner_name: for the message.

    Raises:
        MethodError: for a wrong type, shape or dtype, or an action that is out of bounds or unavailable.
    """
    who, n, a = f"A policy of learner {learner_name!r}", spec.n_agents, spec.action.size
    shape = (replicas, batch, n) if spec.action.discrete else (replicas, batch, n, a)
    dtype = np.dtype(np.int64 if spec.action.discrete else np.float32)
    if not isinstance(actions, np.ndarray) or actions.shape != shape or actions.dtype != dtype:
        found = f"{actions.dtype} {actions.shape}" if isinstance(actions, np.ndarray) else type(actions).__name__
        raise MethodError(f"{who} returned actions as {found}, expected an array {dtype} {shape}.")
    diverged = np.asarray(~np.isfinite(actions).reshape(replicas, -1).all(axis=1), dtype=np.bool_)
    illegal: NDArray[np.bool_]
    if spec.action.discrete:
        illegal = np.asarray((actions < 0) | (actions >= a))
        expected = f"one of 0..{a - 1}"
        if not illegal.any() and available_actions is not None:
            illegal = ~np.take_along_axis(available_actions, actions[..., None], axis=-1)[..., 0]
            expected = "available (`available_actions`)"
    else:
        illegal = np.asarray((actions < spec.action.low - 1e-6) | (actions > spec.action.high + 1e-6))  # NaN: neither
        illegal[diverged] = False
        expected = f"in [{spec.action.low}, {spec.action.high}]"
    if illegal.any():
        first = tuple(int(i) for i in np.argwhere(illegal)[0])
        raise MethodError(
            f"{who} took {int(illegal.sum())} of {illegal.size} actions that are not {expected}; first at "
            f"(replica, environment, agent) {first[:3]}: {actions[first]!r}. Clip or mask them in `act`."
        )
    return diverged
