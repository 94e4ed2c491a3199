"""`original`: the control that adds nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.base import Augmenter, Run
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalConfig:
    """Nothing to choose."""


class Original(Augmenter[OriginalConfig]):
    """No synthetic episodes, whatever the amount: every mix then is the original data."""

    Config = OriginalConfig
    version = 1
    adds_data: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Nothing to learn."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """A dataset of no episodes."""
        return OfflineDataset.empty(data.spec)
