"""What a generation tells about itself: how many windows were made, kept and why not, and where the time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

STAGES = ("sampling", "heads", "bookkeeping")


@dataclass(slots=True, kw_only=True)
class GenerationReport:
    """Counts of generated windows; filled while generating, told to the artefact's card at the end.

    Attributes:
        threshold: largest error of a window that is kept, in the filter's metric; None: nothing is filtered.
        threshold_kind: `calibrated` on real data, `generated`: on unfiltered windows, `fixed` or `none`.
        calibrated: what the calibrated threshold is or would have been; None where the filter has none.
        sampler: name, steps and network evaluations, as the method wants them told.
        windows, accepted: windows sampled, and those kept.
        rejected: windows dropped, by reason. windows = accepted + sum of these.
        episodes_discarded: whole episodes given up; their windows were counted when they were made.
        extra: further numbers of one method, e.g. `regenerated_share`.
    """

    threshold: float | None = None
    threshold_kind: str = "none"
    calibrated: float | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict)
    windows: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    episodes_discarded: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    extra: dict[str, Any] = field(default_factory=dict)
    _seen_at: Counter[int] = field(default_factory=Counter)
    _accepted_at: Counter[int] = field(default_factory=Counter)

    @property
    def acceptance_rate(self) -> float | None:
        """Share of the windows that were kept; None before the first."""
        return self.accepted / self.windows if self.windows else None

    def count(self, accepted: NDArray[np.bool_], positions: NDArray[np.int64], reason: str = "dynamics") -> None:
        """Counts one batch of windows.

        Args:
            accepted: (B,) which ones are kept.
            positions: (B,) where each stands: its number within its episode, or the step it starts at. 0 or more.
            reason: why the others are not.
        """
        kept = int(accepted.sum())
        self.windows += len(accepted)
        self.accepted += kept
        if kept < len(accepted):
            self.rejected[reason] += len(accepted) - kept
        self._seen_at.update(positions.tolist())
        self._accepted_at.update(positions[accepted].tolist())

    def summary(self) -> str:
        """For an error: what was accepted, why the rest was not, the threshold and what it is calibrated to."""
        rate = 100 * (self.acceptance_rate or 0.0)
        limit = "none" if self.threshold is None else f"{self.threshold:.4g} ({self.threshold_kind})"
        calibrated = "unknown" if self.calibrated is None else f"{self.calibrated:.4g}"
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejected.most_common()) or "none"
        return (
            f"{self.accepted} of {self.windows} ({rate:.2g}%) were accepted in all, rejected: {reasons}. The validity "
            f"threshold is {limit}; calibrated on held-out real data it is {calibrated}."
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall-clock time of a block to one of the stages."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def to_json(self) -> dict[str, Any]:
        """Plain values. `acceptance_by_position`: None where no window was seen, empty where all begin alike."""
        last = max(self._seen_at, default=-1)
        by_position = [
            self._accepted_at[position] / self._seen_at[position] if self._seen_at[position] else None
            for position in range(last + 1)
        ]
        return {
            "windows": self.windows,
            "accepted": self.accepted,
            "acceptance_rate": self.acceptance_rate,
            "rejected": dict(self.rejected),
            "acceptance_by_position": by_position if len(by_position) > 1 else [],
            "threshold": _finite(self.threshold),
            "threshold_kind": self.threshold_kind,
            "calibrated_threshold": _finite(self.calibrated),
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "episodes_discarded": self.episodes_discarded,
            "sampler": dict(self.sampler),
            **self.extra,
        }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: a threshold that lets everything pass is told as None."""
    return value if value is not None and np.isfinite(value) else None
