"""Augmenters that break the contract, one way each."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from methods.base import Augmenter, Run
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig:
    """Nothing to choose."""


class WellBehaved(Augmenter[NoConfig]):
    """Draws episodes with replacement; the others change one thing."""

    Config = NoConfig
    version = 1

    def fit(self, data: OfflineDataset, run: Run) -> None:
        pass

    def generate(self, data: OfflineDataset, run: Run) -> Any:
        amount = data.n_steps if run.budget.amount is None else run.budget.amount
        if amount == 0 or data.n_episodes == 0:
            return OfflineDataset.empty(data.spec)
        drawn = run.generator("well-behaved").integers(data.n_episodes, size=amount)
        needed = int(np.searchsorted(np.cumsum(data.lengths[drawn]), amount)) + 1
        return data.without_privileged().take(drawn[:needed])


class Raises(WellBehaved):
    def fit(self, data: OfflineDataset, run: Run) -> None:
        raise RuntimeError("the plugin fell over")


class ReturnsNaN(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        copies = super().generate(data, run)
        observations = copies.observations.copy()
        observations[-1:] = np.nan
        return copies.replace(observations=observations)


class WrongShape(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        copies = super().generate(data, run)
        return copies.replace(observations=copies.observations[:-1])


class WrongDtype(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        copies = super().generate(data, run)
        return copies.replace(rewards=copies.rewards.astype(np.float64))


class ActionsOutOfRange(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        copies = super().generate(data, run)
        return copies.replace(actions=copies.actions + copies.actions.dtype.type(7))


class ReturnsNone(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        return None


class IgnoresAmount(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        return data.without_privileged()


class WritesItsInput(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        data.observations[...] += 1
        return super().generate(data, run)


class GlobalGenerator(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        copies = super().generate(data, run)
        noise = np.random.normal(size=copies.observations.shape).astype(np.float32)  # noqa: NPY002  # the fault
        return copies.replace(observations=copies.observations + noise)


class NeverEnds(WellBehaved):
    def fit(self, data: OfflineDataset, run: Run) -> None:
        while True:
            time.sleep(0.1)


class Exits(WellBehaved):
    def generate(self, data: OfflineDataset, run: Run) -> Any:
        print("printed by the plugin")
        sys.exit(0)


class NotAnAugmenter:
    """A class of nobody's."""
