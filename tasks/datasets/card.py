"""The JSON card beside every dataset file: where the data come from, how much, how good."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from tasks.base import Task
from tasks.common.errors import DataError
from tasks.common.selector import Scalar
from tasks.datasets.offline import BEHAVIOURS, OfflineDataset
from tasks.datasets.regimes import DatasetRequest, behaviour_digests, episodes_recorded
from tasks.spec import TaskSpec

CARD_SCHEMA = 1
LIBRARIES = ("numpy", "augmarl")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReturnStatistics(_Model):
    """Of the undiscounted team returns of all episodes; `deciles` are the 10th to the 90th percentile."""

    mean: float
    std: float
    min: float
    max: float
    deciles: list[float]

    @classmethod
    def of(cls, returns: NDArray[np.float64]) -> ReturnStatistics | None:
        """None where there is no episode, or a return is not finite."""
        if not returns.size or not np.isfinite(returns).all():
            return None
        return cls(
            mean=float(returns.mean()),
            std=float(returns.std()),
            min=float(returns.min()),
            max=float(returns.max()),
            deciles=[float(q) for q in np.percentile(returns, np.arange(10, 100, 10))],
        )


class DatasetCard(_Model):
    """What one dataset file holds.

    Attributes:
        dataset: canonical name, e.g. `exp-m[t_imb=8]`; for imported data, where they come from.
        params: every parameter of the regime with its value, also those at their default.
        episodes_recorded: before sub-sampling.
        behaviour_digests: SHA-256 of the policy files, by level.
        behaviour_mix: share of actions by who took them; empty where that is unknown.
        origin: for imported data, the folder's own name.
        augmentation: what the augmenter told of its fit and its generation; None for data of an environment, whose
            cards do not have the field.
        data_sha256: of the data file; empty until it is written.
    """

    schema_version: int = CARD_SCHEMA
    task: str
    engine: str
    engine_version: str
    variant: str
    team_reward: str
    dataset: str
    regime: str
    params: dict[str, Scalar]
    subsample: dict[str, Scalar] | None
    episodes_recorded: int
    seed: int | None
    behaviour_digests: dict[str, str]
    source: Literal["collected", "imported"]
    origin: str | None = None
    episodes: int
    steps: int
    mean_length: float | None
    returns: ReturnStatistics | None
    win_rate: float | None
    behaviour_mix: dict[str, float]
    libraries: dict[str, str]
    augmentation: dict[str, JsonValue] | None = None
    data_sha256: str = ""

    @model_serializer(mode="wrap")
    def _document(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        if self.augmentation is None:
            del document["augmentation"]
        return document


def card_of_collected(
    task: Task, request: DatasetRequest, data: OfflineDataset, *, episodes: int | None, seed: int
) -> DatasetCard:
    """The card of what `regimes.collect` returned for the same arguments."""
    return DatasetCard(
        **_identity(task.spec),
        **_contents(data),
        dataset=request.text,
        regime=request.regime,
        params=dict(request.params),
        subsample=request.subsample.params() if request.subsample else None,
        episodes_recorded=episodes_recorded(task, request, episodes),
        seed=seed,
        behaviour_digests=behaviour_digests(task, request),
        source="collected",
    )


def card_of_imported(
    data: OfflineDataset, *, dataset: str, regime: str, origin: str, augmentation: dict[str, Any] | None = None
) -> DatasetCard:
    """The card of data that no regime recorded: somebody else's, or an augmenter's, which may tell of itself."""
    return DatasetCard(
        **_identity(data.spec),
        **_contents(data),
        dataset=dataset,
        regime=regime,
        params={},
        subsample=None,
        episodes_recorded=data.n_episodes,
        seed=None,
        behaviour_digests={},
        source="imported",
        origin=origin,
        augmentation=augmentation,
    )


def read_card(path: Path) -> DatasetCard:
    """Reads a card.

    Raises:
        DataError: if it is missing, damaged, or written by a newer AugMARL.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: every dataset file has a card beside it. Build the data again.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as JSON ({error}). Build the dataset again.") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise DataError(f"{path} is no dataset card: it has no schema_version.")
    if version > CARD_SCHEMA:
        raise DataError(f"{path} has schema {version}, and this AugMARL reads up to {CARD_SCHEMA}. Update AugMARL.")
    try:
        return DatasetCard.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: field {where!r}: {problem['msg']}. Build the dataset again.") from error


def behaviour_mix(data: OfflineDataset) -> dict[str, float]:
    """Share of actions by who took them; empty where the column is missing."""
    if data.behaviour is None or not data.behaviour.size:
        return {}
    codes, counts = np.unique(data.behaviour, return_counts=True)
    names = {-1: "unknown", **dict(enumerate(BEHAVIOURS))}
    return {
        names.get(int(code), f"code {code}"): float(count / data.behaviour.size)
        for code, count in zip(codes, counts, strict=True)
    }


def _identity(spec: TaskSpec) -> dict[str, Any]:
    fields = ("engine", "engine_version", "variant", "team_reward")
    return {"task": spec.id, **{name: getattr(spec, name) for name in fields}}


def _contents(data: OfflineDataset) -> dict[str, Any]:
    return {
        "episodes": data.n_episodes,
        "steps": data.n_steps,
        "mean_length": float(data.lengths.mean()) if data.n_episodes else None,
        "returns": ReturnStatistics.of(data.returns()),
        "win_rate": None if data.won is None or not data.n_episodes else float(data.won.mean()),
        "behaviour_mix": behaviour_mix(data),
        "libraries": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"
