"""Augmenters that take their process with them, one way each."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from methods.base import Augmenter, Run
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig:
    """Nothing to choose."""


class Segfaults(Augmenter[NoConfig]):
    """Prints on both streams and crashes."""

    Config = NoConfig
    version = 1

    def fit(self, data: OfflineDataset, run: Run) -> None:
        print("printed by the plugin")
        self.harm(data)

    def harm(self, data: OfflineDataset) -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        return data


class Hoards(Segfaults):
    """Takes 3 GiB, page by page."""

    def harm(self, data: OfflineDataset) -> Any:
        hoard = bytearray(3 * 2**30)
        for i in range(0, len(hoard), 4096):
            hoard[i] = 1
        time.sleep(60)


class Sleeps(Segfaults):
    """Never comes back, and says where its process is."""

    def harm(self, data: OfflineDataset) -> Any:
        with open(os.environ["VIOLENT_PID_FILE"], "w") as file:  # noqa: PTH123  # as plugins do
            file.write(str(os.getpid()))
        time.sleep(600)
