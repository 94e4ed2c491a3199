"""Windows of observation rows, as long as the method's own."""

from __future__ import annotations

import numpy as np

from benchmark.quality.subject import Subject, UndefinedError, Which
from tasks.datasets.views import SegmentBatch, segments

HORIZON = 8
"""Observation rows of a window where the method's config has no `horizon`: H of MADiTS, MASTARS and CODI."""


def sample_windows(subject: Subject, which: Which, count: int, purpose: str) -> SegmentBatch:
    """At most `count` windows inside episodes, drawn without replacement, in their order.

    Raises:
        UndefinedError: where no episode is that long.
    """
    horizon = HORIZON if subject.augmenter is None else int(getattr(subject.augmenter.config, "horizon", HORIZON))
    windows = segments(subject.data(which), horizon)
    if not len(windows):
        raise UndefinedError(f"no {which} episode has {horizon} observation rows")
    picked = subject.generator(purpose).choice(len(windows), size=min(count, len(windows)), replace=False)
    return windows.gather(np.sort(picked))
