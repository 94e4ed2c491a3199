"""An augmenter whose fit is long, keeps checkpoints and trains its replicates together: a random walk.

PATIENT_LOG: a file that gets one line an event. PATIENT_STEP_SECONDS: how long a step takes. PATIENT_FAILS_AT: the
step at which the fit raises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from methods.base import Arrays, Augmenter, Run
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The walk, and what generation adds to it."""

    steps: int = 20
    shift: float = 0.0


class Patient(Augmenter[Walk]):
    """Copies episodes and pays what the walk came to on top of their rewards."""

    Config = Walk
    version = 1
    trains = True
    generation_fields = frozenset({"shift"})

    def __init__(self, config: Walk | None = None) -> None:
        super().__init__(config)
        self.position = np.zeros(3)
        self.told: dict[str, Any] = {}

    def fit(self, data: OfflineDataset, run: Run) -> None:
        self.fit_together([self], data, run)

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        walkers = [run.generator("walk", r) for r in range(len(members))]
        positions, first, steps = np.zeros((len(members), 3)), 0, members[0].config.steps
        stored = run.checkpoint.load() if run.checkpoint else None
        if stored is not None:
            positions, first = np.array(stored["positions"]), int(stored["step"])
            for walker in walkers:
                walker.normal(size=(first, 3))  # what has been drawn already
        happened(f"fit of {len(members)} from {first}")
        for step in range(first, steps):
            run.report(step, steps, "walking")
            if step == int(os.environ.get("PATIENT_FAILS_AT", "-1")):
                raise MemoryError("too far")
            positions += [walker.normal(size=3) for walker in walkers]
            time.sleep(float(os.environ.get("PATIENT_STEP_SECONDS", "0")))
            if run.checkpoint and run.checkpoint.due():
                run.checkpoint.save({"positions": positions, "step": np.array(step + 1)})
                happened(f"saved {step + 1}")
        for member, position in zip(members, positions, strict=True):
            member.position = position
            member.told = {"distance": np.float32(np.abs(position).sum()), "loss": float("nan"), "seconds": {"fit": 2}}

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        happened("generate")
        amount = data.n_steps if run.budget.amount is None else run.budget.amount
        if amount == 0 or data.n_episodes == 0:
            return OfflineDataset.empty(data.spec)
        drawn = run.generator("copies").integers(data.n_episodes, size=amount)
        copies = data.without_privileged().take(
            drawn[: int(np.searchsorted(np.cumsum(data.lengths[drawn]), amount)) + 1]
        )
        self.told = {**self.told, "acceptance_rate": 0.5, "seconds": {**self.told.get("seconds", {}), "sampling": 3}}
        return copies.replace(rewards=copies.rewards + np.float32(self.position.sum() + self.config.shift))

    def state(self) -> Arrays:
        return {"position": self.position}

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        self.position = arrays["position"]

    def diagnosis(self) -> dict[str, Any]:
        return self.told


def happened(event: str) -> None:
    if log := os.environ.get("PATIENT_LOG"):
        with open(log, "a") as file:  # noqa: PTH123  # as plugins do
            file.write(f"{event}\n")
