"""DIRE: how badly a diffusion model of the original data rebuilds a window from its own encoding."""

from __future__ import annotations

import numpy as np

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError, Which
from benchmark.quality.windows import sample_windows

WINDOWS = 128
"""Windows of each dataset that are rebuilt."""


def measure(subject: Subject) -> Measured:
    """`dire`: mean |x_0 - R(I(x_0))| over synthetic windows, and over original ones (MASTARS, Sec. 4.7, App. G.3).

    I is the DDIM process run forwards and R its deterministic reverse, both of a model fitted to the original data.
    The model is the method's own: methods without one have no DIRE, and values of two methods come from two models.
    Higher is further from the original data.
    """
    if subject.augmenter is None:
        raise UndefinedError("the fitted augmenter is not at hand")
    made, real = _errors(subject, "synthetic"), _errors(subject, "original")
    return Measured({"dire": Measurement(value=made, original=real, details={"ratio": made / real if real else None})})


FAMILY = Family(("dire",), measure)


def _errors(subject: Subject, which: Which) -> float:
    assert subject.augmenter is not None
    errors = subject.augmenter.reconstruction_errors(sample_windows(subject, which, WINDOWS, f"DIRE {which}"))
    if errors is None:
        raise UndefinedError("the method has no diffusion model of the original data")
    return float(np.mean(errors, dtype=np.float64))
