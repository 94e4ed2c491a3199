"""In which units learners see rewards, so that one penalty or step size means the same on every task.

Penalties, temperatures and rates of the sources fit rewards of the order of one a step, as SMAC has them; the team of
`mpe/spread` earns seventy. Squared errors grow with the square of that, and a penalty on values only in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Protocol

import numpy as np

from methods.base import require
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class HasRewardScale(Protocol):
    """A config that may say what rewards are divided by."""

    @property
    def reward_scale(self) -> float | None:
        """None: see the function of that name."""


def reward_scale(given: float | None, spec: TaskSpec, least: float) -> float:
    """What rewards are divided by: `given`, or a step's share of the expert's return (inferred).

    Args:
        given: of the config.
        spec: whose measured references are read; without any rewards stay as they are.
        least: of the share. With 1 rewards only become smaller, and those of SMAC stay as they are.
    """
    if given is not None:
        return given
    references = spec.score_references
    return 1.0 if references is None else max(abs(references.expert_return) / spec.episode_limit, least)


def require_reward_scale(owner: str, given: float | None) -> None:
    """Raises UsageError unless it is None or a finite number above 0."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    right = given is None or (number and isfinite(given) and given > 0)
    require(right, owner, f"reward_scale={given}", "a finite number above 0")


def in_units(data: Sequence[OfflineDataset], scale: float) -> list[OfflineDataset]:
    """The same datasets with rewards divided by `scale`; replicas that share one still do."""
    if scale == 1.0:
        return list(data)
    made = {id(own): own.replace(rewards=own.rewards / np.float32(scale)) for own in data}
    return [made[id(own)] for own in data]
