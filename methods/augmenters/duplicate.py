"""`duplicate`: the control that adds the same volume as an augmenter, and no information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.base import Augmenter, Run, require
from methods.synthesis.emit import tiled_episodes
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateConfig:
    """How often the data are repeated where the protocol asks for no amount."""

    copies: int = 1  # inferred: the 1:1 mix of MADiTS (App. E, T.2) and CODI (Sec. 4.1)

    def __post_init__(self) -> None:
        require(self.copies >= 1, "duplicate", f"copies={self.copies}", "1 or more")


class Duplicate(Augmenter[DuplicateConfig]):
    """Real episodes once more: whole copies of the data, then a random subset for the rest of the amount."""

    Config = DuplicateConfig
    version = 1
    random: ClassVar[bool] = False

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Nothing to learn."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Copies of whole episodes."""
        episodes = tiled_episodes(data, run.budget.amount, self.config.copies, run.generator("duplicate"))
        return data.without_privileged().take(episodes)
