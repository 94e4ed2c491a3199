"""How good synthetic data are: metrics against the original data and the real engine (docs/quality.md)."""

from benchmark.quality.measure import METRICS, measure
from benchmark.quality.report import QUALITY_FILE, Curve, Measurement, PairedHistogram, QualityReport, read_report

__all__ = [
    "METRICS",
    "QUALITY_FILE",
    "Curve",
    "Measurement",
    "PairedHistogram",
    "QualityReport",
    "measure",
    "read_report",
]
