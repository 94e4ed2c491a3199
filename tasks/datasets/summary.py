"""What `bench data inspect` shows: sizes, returns, lengths, who acted and how, as plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from tasks.datasets.card import DatasetCard, ReturnStatistics, behaviour_mix
from tasks.datasets.offline import OfflineDataset

RETURN_BINS = 24
ACTION_BINS = 21
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges; `edges` has one entry more than `counts`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: NDArray[Any], bins: int, bounds: tuple[float, float] | None = None) -> Histogram:
        """Equal bins over `bounds`, by default from the smallest finite value to the largest."""
        finite = values[np.isfinite(values)]
        counts, edges = np.histogram(finite, bins=bins, range=bounds)
        return cls(tuple(map(float, edges)), tuple(map(int, counts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of one dataset.

    Attributes:
        returns: statistics of the undiscounted team returns of the episodes.
        mean_interval: ends of the 95% interval of their mean over episodes, by bootstrap.
        normalised_mean: mean return on the task's scale of random 0, expert 100; None without references.
        agent_returns: mean return of each agent's own reward.
        lengths: episodes by their number of transitions.
        action_names: of the discrete actions, or of the dimensions.
        action_use: discrete: share of each action by agent, N x A. Empty for continuous tasks.
        action_histograms: continuous: of each dimension, over all agents.
        action_mean, action_std: continuous: by agent and dimension, N x A.
        saturated: continuous: share of action entries within 1% of a bound.
        behaviour_by_agent: share of each behaviour, by agent; empty where unknown.
        state_coverage: per feature, smallest and largest observed value.
    """

    task: str
    dataset: str
    source: str
    seed: int | None
    episodes: int
    steps: int
    mean_return: float | None
    returns: ReturnStatistics | None
    mean_interval: tuple[float, float] | None
    return_histogram: Histogram
    normalised_mean: float | None
    agent_returns: tuple[float, ...]
    mean_length: float | None
    lengths: dict[int, int]
    terminal_share: float
    win_rate: float | None
    action_names: tuple[str, ...]
    action_use: tuple[tuple[float, ...], ...]
    action_histograms: tuple[Histogram, ...]
    action_mean: tuple[tuple[float, ...], ...]
    action_std: tuple[tuple[float, ...], ...]
    saturated: float | None
    behaviour_mix: dict[str, float]
    behaviour_by_agent: tuple[dict[str, float], ...]
    observation_ranges: dict[str, tuple[float, float]]
    bytes: int

    def document(self) -> dict[str, Any]:
        """The summary as JSON values."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: _plain(value) for name, value in fields.items()}
        return plain


def summarise(data: OfflineDataset, card: DatasetCard) -> Summary:
    """Reads the data once and counts."""
    spec, returns = data.spec, data.returns()
    statistics = ReturnStatistics.of(returns)
    references = spec.score_references
    mean = None if statistics is None else statistics.mean
    lengths, length_counts = np.unique(data.lengths, return_counts=True)
    episode_of_agent = np.add.reduceat(data.rewards, data.episode_starts[:-1], axis=0) if data.n_episodes else None
    return Summary(
        task=card.task,
        dataset=card.dataset,
        source=card.source,
        seed=card.seed,
        episodes=data.n_episodes,
        steps=data.n_steps,
        mean_return=mean,
        returns=statistics,
        mean_interval=None if statistics is None else _mean_interval(returns),
        return_histogram=Histogram.of(returns, RETURN_BINS),
        normalised_mean=None if references is None or mean is None else float(references.normalise(np.array(mean))),
        agent_returns=() if episode_of_agent is None else tuple(map(float, episode_of_agent.mean(axis=0))),
        mean_length=float(data.lengths.mean()) if data.n_episodes else None,
        lengths={int(length): int(count) for length, count in zip(lengths, length_counts, strict=True)},
        terminal_share=float(data.terminals.sum() / max(1, data.n_episodes)),
        win_rate=None if data.won is None or not data.n_episodes else float(data.won.mean()),
        **_actions(data),
        behaviour_mix=behaviour_mix(data),
        behaviour_by_agent=_by_agent(data),
        observation_ranges=_ranges(data),
        bytes=sum(column.nbytes for column in data.columns().values()),
    )


def _mean_interval(returns: NDArray[np.float64]) -> tuple[float, float]:
    """By percentiles of the means of resampled episodes; both ends are the mean where all returns are one."""
    if (returns == returns[0]).all():
        return float(returns[0]), float(returns[0])
    rng = np.random.default_rng(0)
    found = bootstrap((returns,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _actions(data: OfflineDataset) -> dict[str, Any]:
    spec = data.spec.action
    names = spec.names or tuple(f"action {i}" if spec.discrete else f"dimension {i}" for i in range(spec.size))
    use, histograms, mean, std, saturated = [], [], [], [], None
    if spec.discrete:
        for agent in range(data.spec.n_agents):
            counts = np.bincount(data.actions[:, agent], minlength=spec.size)[: spec.size]
            use.append(tuple(float(count) / max(1, data.n_steps) for count in counts))
    elif data.n_steps:
        bounds = (spec.low, spec.high)
        histograms = [Histogram.of(data.actions[..., i], ACTION_BINS, bounds) for i in range(spec.size)]
        mean = [tuple(map(float, row)) for row in data.actions.mean(axis=0)]
        std = [tuple(map(float, row)) for row in data.actions.std(axis=0)]
        near = 0.01 * (spec.high - spec.low)
        saturated = float(((data.actions < spec.low + near) | (data.actions > spec.high - near)).mean())
    return {
        "action_names": names,
        "action_use": tuple(use),
        "action_histograms": tuple(histograms),
        "action_mean": tuple(mean),
        "action_std": tuple(std),
        "saturated": saturated,
    }


def _by_agent(data: OfflineDataset) -> tuple[dict[str, float], ...]:
    if data.behaviour is None or not data.n_steps:
        return ()
    return tuple(
        behaviour_mix(data.replace(behaviour=np.broadcast_to(data.behaviour[:, [agent]], data.behaviour.shape)))
        for agent in range(data.spec.n_agents)
    )


def _ranges(data: OfflineDataset) -> dict[str, tuple[float, float]]:
    if not data.n_episodes:
        return {}
    low, high = data.observations.min(axis=(0, 1)), data.observations.max(axis=(0, 1))  # (D,)
    pairs = zip(data.spec.observation_features, low, high, strict=True)
    return {name: (float(smallest), float(largest)) for name, smallest, largest in pairs}


def _plain(value: Any) -> Any:
    """Dataclasses and models as dictionaries; numbers that JSON lacks as None."""
    if isinstance(value, ReturnStatistics):
        return value.model_dump()
    if isinstance(value, Histogram):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
