"""From a dataset's name to its data.

Names are checked without any engine (`resolve`), everything that determines the data is one dictionary (`identity`),
and `collect` records it. Sub-sampling is part of a name, like the parameters of its regime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tasks.base import Task
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.seeding import derive_seed
from tasks.common.selector import Scalar, Selector
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.regime_table import REGIMES, Param, Params
from tasks.datasets.rollout import Progress, collection_batch, record
from tasks.datasets.subsample import SUBSAMPLE_PARAMS, Subsample, parse_subsample, subsample
from tasks.spec import TaskSpec

DEFAULT_EPISODES = 2000
"""Episodes of a dataset when nobody says how many (MASTARS, App. D.3)."""

COLLECTION_VERSION = 1
"""Raise when `rollout`, `perturbation` or `subsample` change what they return; part of a dataset's identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """A checked dataset name: the regime, all of its parameters with their values, and sub-sampling."""

    regime: str
    params: Params
    subsample: Subsample | None
    text: str  # canonical: parameters at their default are left out

    def __str__(self) -> str:
        return self.text


def resolve(task: Task | TaskSpec, dataset: Selector | str) -> DatasetRequest:
    """Checks a dataset's name against a task, without an engine and before anything is recorded.

    Raises:
        UnknownNameError: for an unknown regime, with the three nearest.
        UsageError: for an unknown parameter or a value out of range.
    """
    spec = task if isinstance(task, TaskSpec) else task.spec
    selector = Selector.parse(dataset) if isinstance(dataset, str) else dataset
    if selector.name not in REGIMES:
        raise UnknownNameError("dataset", selector.name, REGIMES)
    chosen = REGIMES[selector.name]
    known = chosen.params_of(spec)
    params: dict[str, Scalar] = {name: param.default for name, param in known.items()}
    for name, value in selector.params.items():
        if name in SUBSAMPLE_PARAMS:
            continue
        if name not in known:
            raise UnknownNameError(f"parameter of dataset {chosen.name!r}", name, (*known, *SUBSAMPLE_PARAMS))
        params[name] = _checked(str(selector), name, value, known[name])
    kept = parse_subsample(selector.params, str(selector))
    shown = {name: value for name, value in params.items() if value != known[name].default}
    text = str(Selector.of(chosen.name, {**shown, **(kept.params() if kept else {})}))
    return DatasetRequest(regime=chosen.name, params=MappingProxyType(params), subsample=kept, text=text)


def undefined(task: Task, request: DatasetRequest) -> str | None:
    """Why a task cannot have these data, whatever is shipped; None: it can."""
    chosen, spec = REGIMES[request.regime], task.spec
    if spec.n_agents < chosen.min_agents:
        return f"{request}: needs {chosen.min_agents} agents or more, and {spec.id} has {spec.n_agents}."
    for level in chosen.levels:
        if level != "history" and level not in task.behaviour_levels:
            return (
                f"{request}: {spec.id} has no {level!r} policy. It has: {', '.join(task.behaviour_levels) or 'none'}."
            )
    return None


def _require_defined(task: Task, request: DatasetRequest) -> None:
    reason = undefined(task, request)
    if reason is not None:
        raise UsageError(reason)


def episodes_recorded(task: Task, request: DatasetRequest, episodes: int | None) -> int:
    """How many episodes are recorded before sub-sampling.

    `episodes` is what was asked for; None: the length of the training run for `medium-replay`, else
    DEFAULT_EPISODES. Sub-sampling to more episodes than that raises the number.

    Raises:
        UsageError: if it is not positive.
    """
    if episodes is None:
        episodes = _history_length(task) if REGIMES[request.regime].whole_run else DEFAULT_EPISODES
    if episodes < 1:
        raise UsageError(f"A dataset of {episodes} episodes cannot be built. Give 1 or more.")
    kept = request.subsample.episodes if request.subsample else None
    return max(episodes, kept or 0)


def identity(task: Task, request: DatasetRequest, episodes: int | None, seed: int) -> dict[str, object]:
    """Everything that determines the data, as JSON values, for an artefact key.

    Raises:
        UsageError: if the task cannot have these data, or a behaviour policy is not shipped.
    """
    _require_defined(task, request)
    chosen, spec = REGIMES[request.regime], task.spec
    return {
        "task": spec.id,
        "engine": spec.engine,
        "engine_version": spec.engine_version,
        "variant": spec.variant,
        "environment_files": dict(task.environment_files()),
        "regime": chosen.name,
        "regime_version": chosen.version,
        "params": dict(request.params),
        "subsample": request.subsample.params() if request.subsample else None,
        "episodes": episodes_recorded(task, request, episodes),
        "seed": seed,
        "behaviour": behaviour_digests(task, request),
        "collection_batch": collection_batch(spec),
        "collection_version": COLLECTION_VERSION,
    }


def behaviour_digests(task: Task, request: DatasetRequest) -> dict[str, str]:
    """SHA-256 of every policy file that the data come from, by level."""
    return {level: task.behaviour_digest(level) for level in REGIMES[request.regime].levels}


def collect(
    task: Task,
    request: DatasetRequest,
    episodes: int | None,
    seed: int,
    progress: Progress,
    folder: Path | None = None,
) -> OfflineDataset:
    """Records a dataset. Without sub-sampling, fewer episodes are a prefix of more.

    `medium-replay` with fewer episodes than the training run had keeps a uniform, nested part of the run.

    With an empty `folder`, batches wait there and the data are mapped from it, so that memory holds one batch (and what
    sub-sampling keeps); without, in memory.

    Raises:
        UsageError: if the task cannot have these data, or a behaviour policy is not shipped.
        DataError: if sub-sampling asks for more than was recorded, or the environment misbehaves.
        StorageError: if a batch cannot be written.
    """
    _require_defined(task, request)
    chosen = REGIMES[request.regime]
    count = episodes_recorded(task, request, episodes)
    passes = count
    if chosen.whole_run:
        length = _history_length(task)
        passes = -(-count // length) * length  # whole passes through the training run
    data = record(task, chosen.plan(task, request.params), passes, seed, progress, folder)
    if passes != count:
        data = subsample(data, Subsample(episodes=count), derive_seed("medium-replay", seed))
    return data if request.subsample is None else subsample(data, request.subsample, seed)


def _history_length(task: Task) -> int:
    return sum(phase.episodes for phase in task.training_history())


def _checked(text: str, name: str, value: Scalar, param: Param) -> int | float:
    whole = isinstance(param.default, int)
    if isinstance(value, bool | str) or (whole and not isinstance(value, int)):
        raise UsageError(f"{text}: {name}={value} is not a {'whole ' if whole else ''}number.")
    if not param.low <= value <= param.high:  # also refuses NaN
        raise UsageError(f"{text}: {name}={value} is out of range; expected {param.low:g} to {param.high:g}.")
    return value if whole else float(value)
