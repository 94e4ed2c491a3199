"""Whether generated rows could follow one another: does a forward model reproduce what an inverse model explains?

For consecutive rows: a = f_inv(x_k, x_{k+1}), y = f_fwd(x_k, a), and the error between y and x_{k+1} (MADiTS, Alg. 3;
MASTARS, Eq. 6; CODI, Sec. 3.3). The papers leave open what norm, reduction and space they mean; three readings:

    sse   sum over dimensions (and agents) of squares
    l2    its square root
    mse   mean over dimensions (and agents) of squares

A threshold means the same everywhere only if it is calibrated: the quantile of an error over real transitions that the
networks were not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import require
from methods.diffusion.sampling import in_batches

if TYPE_CHECKING:
    from methods.diffusion.model import SegmentModel

METRICS = ("sse", "l2", "mse")
SCOPES = ("transition", "agent", "window")
"""One error of a joint transition, one of an agent's, or the mean of the agents' over the transitions of a window."""

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
Thresholds = Mapping[str, Mapping[str, Mapping[str, float]]]
_BATCH = 1_024  # windows a pass of the networks


@torch.no_grad()
def squared_errors(model: SegmentModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares over dimensions (B, H − 1, N) and explaining actions (B, H − 1, N, A) of windows (B, H, N, D').

    The actions are chosen among those that the model believes available.
    """

    def of_windows(rows: Tensor) -> tuple[Tensor, Tensor]:
        before, after = rows[:, :-1], rows[:, 1:]
        available = model.availability(before) if model.has("availability") else None
        actions = model.act(before, after, available)
        return (model.forward_dynamics(before, actions) - after).square().sum(dim=-1), actions

    squares, actions = in_batches(of_windows, _BATCH, x)
    return squares, actions


def transition_errors(model: SegmentModel, x: Tensor, metric: str = "sse") -> tuple[Tensor, Tensor]:
    """Joint errors (B, H − 1) of the transitions of windows (B, H, N, D'), and their actions (B, H − 1, N, A)."""
    errors, actions = squared_errors(model, x)
    return reduced(errors.sum(dim=-1), metric, x.shape[-2] * x.shape[-1]), actions


def per_agent_errors(model: SegmentModel, x: Tensor, metric: str = "sse") -> tuple[Tensor, Tensor]:
    """Errors (B, H − 1, N) of every agent, and the actions (B, H − 1, N, A)."""
    errors, actions = squared_errors(model, x)
    return reduced(errors, metric, x.shape[-1]), actions


def reduced(squares: Tensor, metric: str, count: int) -> Tensor:
    """A sum of `count` squares as `sse`, `l2` or `mse`.

    Raises:
        UsageError: for another metric.
    """
    require(metric in METRICS, "validity", f"metric={metric}", ", ".join(METRICS))
    ways: dict[str, Callable[[Tensor], Tensor]] = {"sse": lambda s: s, "l2": torch.sqrt, "mse": lambda s: s / count}
    return ways[metric](squares)


def valid_prefix(errors: Tensor, threshold: float) -> Tensor:
    """(B, M) errors -> (B,) int64, how many leading ones are at most the threshold; NaN is above any."""
    return (errors <= threshold).long().cumprod(dim=1).sum(dim=1)


def calibrate(
    model: SegmentModel, windows: Tensor, inside: Tensor, pairs: Tensor
) -> dict[str, dict[str, dict[str, float]]]:
    """Quantiles of the errors of real transitions and windows: {scope: {metric: {quantile: value}}}.

    Args:
        model: with inverse and forward heads.
        windows: (M, H, N, D') real windows that nothing was trained on, for the scope `window`.
        inside: (M, H − 1) bool, False where a transition is padding.
        pairs: (M', 2, N, D') such transitions, each once and all alike, for the other scopes.
    """
    squares, single = squared_errors(model, windows)[0], squared_errors(model, pairs)[0]  # (M, H − 1, N), (M', 1, N)
    n, features = windows.shape[-2:]
    counts = inside.sum(dim=1).clamp(min=1)
    found: dict[str, dict[str, dict[str, float]]] = {scope: {} for scope in SCOPES}
    for metric in METRICS:
        window = (reduced(squares, metric, features).mean(dim=-1) * inside).sum(dim=1) / counts
        joint, agents = reduced(single.sum(dim=-1), metric, n * features), reduced(single, metric, features)
        for scope, values in (("transition", joint), ("agent", agents), ("window", window)):
            found[scope][metric] = _quantiles(values.double().cpu().numpy().ravel())
    return found


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {str(q): float(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def calibrated_threshold(model: SegmentModel, metric: str, quantile: float = 0.99, scope: str = "transition") -> float:
    """δ such that a share `quantile` of held-out real data has an error of at most δ.

    Args:
        model: fitted with inverse and forward heads.
        metric: `sse`, `l2` or `mse`.
        quantile: one of `QUANTILES`.
        scope: one of `SCOPES`.

    Raises:
        UsageError: for what was not measured.
    """
    measured = model.thresholds.get(scope, {}).get(metric, {})
    known = f"{' or '.join(SCOPES)}, {' or '.join(METRICS)}, {' or '.join(map(str, QUANTILES))}; dynamics fitted"
    require(str(quantile) in measured, "validity", f"scope={scope}, metric={metric}, quantile={quantile}", known)
    return measured[str(quantile)]
