"""What measuring a set of synthetic episodes gives, and its JSON form (docs/quality.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.common.errors import DataError
from tasks.common.files import write_bytes

QUALITY_FILE = "quality.json"
QUALITY_SCHEMA = 2  # 1 had no curves


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measurement(_Model):
    """One metric. A number that is not finite counts as none.

    Attributes:
        value: of the synthetic data; None where the metric is undefined, and `reason` then says why.
        original: the same number of the original data, where that means something.
        details: further numbers behind it, by name.
    """

    value: float | None
    original: float | None = None
    reason: str | None = None
    details: dict[str, float | int | str | None] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _without_infinities(cls, fields: dict[str, Any]) -> dict[str, Any]:
        known = {name: _finite(value) for name, value in fields.items()}
        if known.get("value") is None and not known.get("reason"):
            known["reason"] = "the value is not finite"
        known["details"] = {name: _finite(value) for name, value in fields.get("details", {}).items()}
        return known

    @classmethod
    def undefined(cls, reason: str) -> Self:
        """A metric without a value."""
        return cls(value=None, reason=reason)


class PairedHistogram(_Model):
    """Counts of original and synthetic values between the same edges."""

    edges: list[float]
    original: list[int]
    synthetic: list[int]


class Curve(_Model):
    """Points (x, y) in the order of x."""

    x: list[float]
    y: list[float]


class QualityReport(_Model):
    """All metrics of one set of synthetic episodes.

    Attributes:
        metrics: by name, every metric of `benchmark.quality.measure.METRICS`, also where it is undefined.
            Reports from before a metric was added lack it.
        histograms: `episode_return`, or `episode_reward_per_step` where lengths differ; `step_reward`; `return_to_go`
            where episodes run their course; and where the engine can replay, `oracle_reward` (what it pays a step) and
            `dynamics_error` (decimal logarithms of root mean squared errors).
        curves: `attention_by_inverse_distance`, where the method's model has attention and the task a map.
        wall_seconds: what measuring took, by metric.
    """

    schema_version: int = QUALITY_SCHEMA
    task: str
    augmenter: str | None
    seed: int
    metrics: dict[str, Measurement]
    histograms: dict[str, PairedHistogram]
    curves: dict[str, Curve] = Field(default_factory=dict)
    wall_seconds: dict[str, float]

    def values(self) -> dict[str, float | None]:
        """The value of every metric, by name."""
        return {name: measured.value for name, measured in self.metrics.items()}

    def details(self) -> dict[str, dict[str, Any]]:
        """By metric: `original` and `details`, what is known of them; metrics without either are left out."""
        known = {name: {"original": measured.original, **measured.details} for name, measured in self.metrics.items()}
        told = {name: {k: v for k, v in values.items() if v is not None} for name, values in known.items()}
        return {name: values for name, values in told.items() if values}

    def document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return self.model_dump()

    def write(self, folder: Path) -> None:
        """Writes `quality.json` into a folder, whole or not at all. Raises StorageError."""
        write_bytes(folder / QUALITY_FILE, (self.model_dump_json(indent=1) + "\n").encode())


def read_report(folder: Path) -> QualityReport | None:
    """The report in a folder, or None where there is none.

    Raises:
        DataError: if it is damaged, or written by a newer AugMARL.
    """
    path = folder / QUALITY_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not readable as JSON ({error}). Delete its folder and run the cell again."
        ) from error
    version = document.get("schema_version") if isinstance(document, Mapping) else None
    if not isinstance(version, int) or version > QUALITY_SCHEMA:
        raise DataError(
            f"{path} has schema {version!r}, and this AugMARL reads up to {QUALITY_SCHEMA}. Update AugMARL."
        )
    try:
        return QualityReport.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: field {where!r}: {problem['msg']}. Run the cell again.") from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
