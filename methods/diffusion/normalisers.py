"""Maps between the raw dimensions of observations and about [−1, 1], fitted on rows (M, D) of original data.

`cdf` is MADiff's choice, and that of DoF and MASTARS; `standard` is SynthER's. They live on a device and never change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from tasks.common.errors import DataError, UnknownNameError

_KNOTS = 10_000  # a dimension, at most
_SLICE = 1 << 16  # rows at a time: the indices of a whole dataset would take several times its memory
_HEAVIEST_ATOM = 0.5  # inferred: cdf_mixed, share of rows with one value above which a dimension uses `limits`
_FEWEST_VALUES = 3  # inferred: cdf_mixed, distinct values below which a dimension uses `limits`
_NARROWEST = 1e-6  # half-range of `limits`, relative to the magnitude, below which a dimension counts as constant
_EPSILON = 1e-5  # added to the deviation of `standard`, as SynthER has it


@dataclass(frozen=True)
class Normaliser(ABC):
    """An invertible map of every dimension.

    Subclasses are frozen dataclasses of tensors; the fields are the state.
    """

    name: ClassVar[str]

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Raw (..., D) -> normalised (..., D), float32."""

    @abstractmethod
    def decode(self, y: Tensor) -> Tensor:
        """Normalised (..., D) -> raw (..., D), float32."""

    def to(self, device: str | torch.device) -> Self:
        """The same map on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def state(self) -> Arrays:
        """Named arrays, enough for `restore_normaliser`."""
        name = np.frombuffer(self.name.encode(), dtype=np.uint8).copy()
        return {"name": name, **{key: tensor.cpu().numpy() for key, tensor in self._tensors().items()}}

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """The normaliser whose `state` returned the arrays, on the CPU."""
        return cls(**{field.name: torch.from_numpy(np.array(arrays[field.name])) for field in fields(cls)})

    def _tensors(self) -> Mapping[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class LimitsNormaliser(Normaliser):
    """The range of the data to [−1, 1], linearly; decoded values are clipped to the range.

    A constant dimension becomes 0.

    Attributes:
        low, high: (D,) range of the data.
        scale: (D,) half the range, 1 for a constant dimension.
        offset: (D,) encoded = (x − low) / scale − offset: 1, and 0 for a constant dimension.
    """

    name = "limits"
    low: Tensor
    high: Tensor
    scale: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, rows: NDArray[Any]) -> Self:
        """Fits to rows (M, D).

        Raises:
            DataError: without rows, or for values that are not finite.
        """
        values = _checked(rows).astype(np.float64)
        low, high = values.min(axis=0), values.max(axis=0)  # (D,)
        half = (high - low) / 2
        # Each dimension on its own: a constant one must not touch the others.
        wide = half > _NARROWEST * np.maximum(np.abs(high), 1)
        scale, offset = np.where(wide, half, 1.0), np.where(wide, 1.0, 0.0)
        return cls(*(torch.from_numpy(array.astype(np.float32)) for array in (low, high, scale, offset)))

    def encode(self, x: Tensor) -> Tensor:
        """(x − low) / scale − offset; from `low`, not the centre, which float32 would round."""
        return (x - self.low).div_(self.scale).sub_(self.offset)

    def decode(self, y: Tensor) -> Tensor:
        """Back, and clipped to the range of the data."""
        return torch.addcmul(self.low, y + self.offset, self.scale).clamp(self.low, self.high)


@dataclass(frozen=True)
class StandardNormaliser(Normaliser):
    """(x − mean) / (deviation + 1e-5), as in SynthER.

    Attributes:
        mean, scale: (D,).
    """

    name = "standard"
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, rows: NDArray[Any], skip_dims: Sequence[int] = ()) -> Self:
        """Fits to rows (M, D); dimensions in `skip_dims`, e.g. a flag of 0 and 1, stay as they are.

        Raises:
            DataError: without rows, or for values that are not finite.
        """
        values = _checked(rows).astype(np.float64)
        mean, scale = values.mean(axis=0), values.std(axis=0) + _EPSILON  # (D,)
        mean[list(skip_dims)], scale[list(skip_dims)] = 0.0, 1.0
        return cls(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(scale.astype(np.float32)))

    def encode(self, x: Tensor) -> Tensor:
        """(x − mean) / scale."""
        return (x - self.mean) / self.scale

    def decode(self, y: Tensor) -> Tensor:
        """Mean + scale · y."""
        return torch.addcmul(self.mean, y, self.scale)


@dataclass(frozen=True)
class CdfNormaliser(Normaliser):
    """2 P(X ≤ x) − 1 of the data's empirical distribution, linear between its distinct values (MADiff).

    Inputs are clipped to the observed range. The smallest value maps to 2 P(X = min) − 1, the largest to 1. A constant
    dimension stays raw, and decodes to its constant. Exact up to 10,000 distinct values a dimension; with more, half of
    that many knots are spread evenly over the probability and half over the range.

    Attributes:
        values: (D, P) ascending knots, the last one repeated to fill the row.
        levels: (D, P) what they map to, ascending.
        counts: (D,) int64, knots of each dimension.
        constant: (D,) bool.
        shift: (D,) what a constant dimension is lowered by: 0.
    """

    name = "cdf"
    values: Tensor
    levels: Tensor
    counts: Tensor
    constant: Tensor
    shift: Tensor

    @classmethod
    def fit(cls, rows: NDArray[Any]) -> Self:
        """Fits to rows (M, D).

        Raises:
            DataError: without rows, or for values that are not finite.
        """
        columns = [cls._knots(column) for column in _checked(rows).T]  # (values, levels) of each
        counts = np.array([len(values) for values, _ in columns], dtype=np.int64)
        width = max(int(counts.max()), 2)
        padded = [[np.pad(a, (0, width - len(a)), mode="edge") for a in column] for column in columns]
        values, levels = (np.stack(arrays) for arrays in zip(*padded, strict=True))  # (D, P) each
        constant = counts == 1
        shift = cls._shift(values, constant)
        return cls(*(torch.from_numpy(array) for array in (values, levels, counts, constant, shift)))

    @classmethod
    def _knots(cls, column: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distinct values of one dimension (M,) and what they map to."""
        values, counts = np.unique(column, return_counts=True)
        probability = np.cumsum(counts) / len(column)
        if len(values) > _KNOTS:
            chosen = np.union1d(_evenly(probability, _KNOTS // 2), _evenly(values, _KNOTS // 2))
            values, probability = values[chosen], probability[chosen]
        return invertible_knots(values, probability)

    @classmethod
    def _shift(cls, values: NDArray[np.float32], constant: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.zeros(len(values), dtype=np.float32)

    def encode(self, x: Tensor) -> Tensor:
        """Through the distribution function."""
        low, high = self.values[:, 0], self.values[:, -1]
        inside = self._interpolate(self.values, self.levels, x.clamp(low, high))
        return torch.where(self.constant, x - self.shift, inside)

    def decode(self, y: Tensor) -> Tensor:
        """Through its inverse; the result lies within the observed range."""
        low, high = self.levels[:, 0], self.levels[:, -1]
        inside = self._interpolate(self.levels, self.values, y.clamp(low, high))
        return torch.where(self.constant, self.values[:, 0], inside)

    def _interpolate(self, sources: Tensor, targets: Tensor, x: Tensor) -> Tensor:
        """Piecewise linear through the knots (D, P): (..., D) -> (..., D). Exact at the knots."""
        columns = x.reshape(-1, x.shape[-1]).T  # (D, V)
        parts = [self._interpolate_columns(sources, targets, part) for part in torch.split(columns, _SLICE, dim=1)]
        return torch.cat(parts, dim=1).T.contiguous().view(x.shape)

    def _interpolate_columns(self, sources: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
        """The same for columns (D, V) -> (D, V)."""
        columns = columns.contiguous()
        upper = torch.searchsorted(sources, columns)
        upper = torch.minimum(upper, self.counts.unsqueeze(1) - 1).clamp_(min=1)
        lower = upper - 1
        start, end = sources.gather(1, lower), sources.gather(1, upper)
        weight = columns.sub(start).div_(end.sub_(start))
        return torch.lerp(targets.gather(1, lower), targets.gather(1, upper), weight)


@dataclass(frozen=True)
class MixedCdfNormaliser(CdfNormaliser):
    """`cdf`, but `limits` for dimensions that are (nearly) categorical.

    Those have fewer than 3 distinct values, or one that more than half of the rows share; a constant one becomes 0.
    Between the two values of a flag `cdf` would be lopsided, and an atom would take up most of [−1, 1].
    """

    name = "cdf_mixed"

    @classmethod
    def _knots(cls, column: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Two knots, the range, stand for `limits`."""
        values, counts = np.unique(column, return_counts=True)
        if len(values) > 1 and (len(values) < _FEWEST_VALUES or counts.max() > _HEAVIEST_ATOM * len(column)):
            return values[[0, -1]], np.array([-1, 1], dtype=np.float32)
        return super()._knots(column)

    @classmethod
    def _shift(cls, values: NDArray[np.float32], constant: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.where(constant, values[:, 0], 0).astype(np.float32)


_NORMALISERS: dict[str, type[Any]] = {
    normaliser.name: normaliser
    for normaliser in (CdfNormaliser, MixedCdfNormaliser, LimitsNormaliser, StandardNormaliser)
}


def make_normaliser(name: str, rows: NDArray[Any]) -> Normaliser:
    """Fits `cdf`, `cdf_mixed`, `limits` or `standard` to rows (M, D).

    Raises:
        UnknownNameError: for another name.
        DataError: without rows, or for values that are not finite.
    """
    fitted: Normaliser = _class_of(name).fit(rows)
    return fitted


def restore_normaliser(arrays: Arrays) -> Normaliser:
    """The normaliser whose `state` returned the arrays, on the CPU."""
    restored: Normaliser = _class_of(arrays["name"].tobytes().decode()).from_state(arrays)
    return restored


def _class_of(name: str) -> type[Any]:
    if name not in _NORMALISERS:
        raise UnknownNameError("normaliser", name, _NORMALISERS)
    return _NORMALISERS[name]


def invertible_knots(
    values: NDArray[np.float32], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values and levels 2p − 1, both (P,), less those whose levels are one number in float32; both ends stay."""
    levels, first = np.unique((2 * probability - 1).astype(np.float32), return_index=True)
    return np.append(values[first[:-1]], values[-1]), levels


def _evenly(ascending: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Indices of about `count` entries that are spread evenly over the range of an ascending array, ends included."""
    wanted = np.linspace(ascending[0], ascending[-1], count)
    return np.unique(np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)).astype(np.int64)


def _checked(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The rows as float32 (M, D).

    Raises:
        DataError: without rows, or for values that are not finite.
    """
    if rows.ndim != 2 or len(rows) == 0:
        raise DataError(
            f"A normaliser got rows of shape {rows.shape}, expected (M, D) with at least one row. "
            "Fit it on data with episodes."
        )
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise DataError(
            f"{int((~finite).sum())} of {rows.size} values that a normaliser should fit are NaN or infinite (first: "
            f"row {row}, dimension {column}), expected finite numbers. Remove or repair these rows before fitting."
        )
    return np.ascontiguousarray(rows, dtype=np.float32)
