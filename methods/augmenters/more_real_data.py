"""`more-real-data`: the oracle, an upper line for everything that makes data up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.base import Augmenter, Run
from methods.synthesis.emit import distinct_episodes
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreRealDataConfig:
    """Nothing to choose."""


class MoreRealData(Augmenter[MoreRealDataConfig]):
    """New real episodes of the same regime, recorded with another seed; no augmenter may see them.

    Without an amount it returns all episodes that the harness recorded; with one, a random selection of them.
    """

    Config = MoreRealDataConfig
    version = 1
    needs_extra_data: ClassVar[bool] = True

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Nothing to learn."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Episodes of `run.extra_data`, none of them twice.

        Raises:
            UsageError: if the run brings no extra data.
            UnsupportedError: if it brings too little.
        """
        if run.extra_data is None:
            raise UsageError("more-real-data needs `run.extra_data`, more real episodes of the same dataset.")
        extra = run.extra_data.without_privileged()
        return extra.take(
            distinct_episodes(extra, run.budget.amount, run.generator("more-real-data"), "more-real-data")
        )
