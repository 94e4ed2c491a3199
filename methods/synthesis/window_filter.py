"""Which generated windows are believed: one error a window, and its threshold calibrated on held-out real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RULES = ("repo", "mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutWindows:
    """What the networks of a fitted model say of M real windows that they were not trained on.

    Attributes:
        errors: (M, H - 1, N) sum over features of the squared error of each agent's predicted next observation.
        values: (M, H, N) V of each agent's observation; zeros where no value was learned.
        lengths: (M,) transitions that lie within the window's episode, 1..H - 1.
    """

    errors: NDArray[np.float32]
    values: NDArray[np.float32]
    lengths: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For the state of an augmenter."""
        return {"heldout.errors": self.errors, "heldout.values": self.values, "heldout.lengths": self.lengths}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> HeldOutWindows:
        """What `arrays` gave."""
        return cls(errors=arrays["heldout.errors"], values=arrays["heldout.values"], lengths=arrays["heldout.lengths"])


def window_errors(
    errors: NDArray[np.float32], regenerated: NDArray[np.bool_], lengths: NDArray[np.int64], *, rule: str, features: int
) -> NDArray[np.float64]:
    """One error a window, the mean over its transitions and agents.

    `repo`: of the squared error, averaged over features, counted as 0 where the arriving row is the original's
    (MASTARS' repository); with all rows regenerated it is the plain mean squared error. `mean`: of the norm of the
    error, whatever was regenerated (MASTARS, Eq. 6).

    Args:
        errors: (B, H - 1, N) sums of squared errors.
        regenerated: (B, H, N) which rows are new.
        lengths: (B,) transitions that count; those beyond are no part of the mean.
        rule: one of `RULES`.
        features: D', over which `repo` averages.

    Returns:
        (B,) errors; not comparable between the rules, nor under `repo` between methods that keep other rows.
    """
    per_agent = np.where(regenerated[:, 1:], errors / features, 0.0) if rule == "repo" else np.sqrt(errors)
    counted = np.arange(errors.shape[1]) < lengths[:, None]  # (B, H - 1)
    total = np.where(counted[..., None], per_agent, 0.0).sum(axis=(1, 2), dtype=np.float64)  # (B,)
    result: NDArray[np.float64] = total / (lengths * errors.shape[2])
    return result


def calibrated_threshold(
    windows: HeldOutWindows, regenerated: NDArray[np.bool_], *, rule: str, features: int, quantile: float
) -> float:
    """The quantile of the same error over held-out real windows, so that about that share of real data would pass.

    Under `repo` an error depends on how many rows count, so the real windows are masked as if they had been
    regenerated themselves, by the method's own rule.

    Args:
        windows: of held-out real data.
        regenerated: (M, H, N) the rows of each that the method would have made anew.
        rule: one of `RULES`.
        features: D'.
        quantile: share of real windows that passes, in [0, 1].
    """
    real = window_errors(windows.errors, regenerated, windows.lengths, rule=rule, features=features)
    return float(np.quantile(real, quantile))
