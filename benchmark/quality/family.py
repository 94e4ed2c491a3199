"""What a family of metrics returns: metrics that share a computation, and histograms and curves for drawing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.report import Curve, Measurement, PairedHistogram
from benchmark.quality.subject import Subject


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics of one family, and histograms and curves, each by name."""

    metrics: dict[str, Measurement]
    histograms: dict[str, PairedHistogram] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics that are computed together. `names`: all that `measure` returns, also where it fails."""

    names: tuple[str, ...]
    measure: Callable[[Subject], Measured]


def paired_histogram(
    original: NDArray[np.floating],
    synthetic: NDArray[np.floating],
    bins: int,
    bounds: tuple[float, float] | None = None,
) -> PairedHistogram:
    """Equal bins over both, by default from the smallest value to the largest; outside values go to the end bins."""
    both = [values[np.isfinite(values)].astype(np.float64) for values in (original, synthetic)]
    if bounds is None:
        joined = np.concatenate(both)
        bounds = (float(joined.min()), float(joined.max())) if joined.size else (0.0, 1.0)
    edges = np.histogram_bin_edges(np.empty(0), bins=bins, range=bounds)  # widens equal bounds
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0] for values in both]
    return PairedHistogram(edges=edges.tolist(), original=counts[0].tolist(), synthetic=counts[1].tolist())


def central_histogram(
    original: NDArray[np.floating], synthetic: NDArray[np.floating], bins: int, tail: float = 0.005
) -> PairedHistogram:
    """Equal bins over all but the `tail` share of either dataset at each end, which goes to the end bins."""
    both = [values[np.isfinite(values)].astype(np.float64) for values in (original, synthetic)]
    ranges = np.array([np.quantile(values, (tail, 1 - tail)) for values in both if values.size])  # (2, 2)
    low, high = ranges[:, 0].min(initial=np.inf), ranges[:, 1].max(initial=-np.inf)
    return paired_histogram(original, synthetic, bins, (float(low), float(high)) if low < high else None)
