"""Whole episodes as signals (L, F) of many channels, and back (EAQ, Sec. 3.1, Eq. 4).

Column t of an episode holds what every agent saw and did at step t, agent by agent, then the global state where it is
asked for, the team's reward, the reward-to-go Q and whether the episode ends here. The observation after the last step
stands in a column of its own, whose other channels are 0 (inferred: Eq. 4 leaves it out).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from methods.diffusion.normalisers import LimitsNormaliser
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_END = 0.5  # of the channel of ends; above it the episode is over
_LEAST_DEVIATION = 0.02  # of an entry, in normalised units (inferred): one that never varies can still be corrected


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedEpisodes:
    """B signals in the task's units, T = T_max; what lies beyond an episode's length is to be ignored.

    Attributes:
        observations: (B, T + 1, N, D).
        states: (B, T + 1, K), or None where the signal has none.
        actions: (B, T, N, A): values, or how much speaks for each choice.
        rewards, returns_to_go: (B, T) of the team.
        lengths: (B,) transitions, 1..T.
        marked: (B,) whether the end is clear: above one half.
    """

    observations: NDArray[np.float32]
    states: NDArray[np.float32] | None
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    returns_to_go: NDArray[np.float32]
    lengths: NDArray[np.int64]
    marked: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of each entry of the normalised signals of the data, padding included.

    Attributes:
        mean: (L, F).
        deviation: (L, F), 0.02 at least.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor, data: OfflineDataset, padding: Tensor, length: int) -> Self:
        """Those of normalised rows (S + E, F), with padding (F,) up to `length` columns; one column at a time."""
        mean, deviation = (padding.new_zeros(length, len(padding), dtype=torch.float64) for _ in range(2))
        first, pad = data.row_starts[: data.n_episodes], padding.double()
        for column in range(length):
            there = first[data.lengths >= column] + column  # the row after an episode's last step too
            found = rows[torch.from_numpy(there).to(rows.device)].double()
            share = len(there) / data.n_episodes
            mean[column] = found.sum(dim=0) / data.n_episodes + (1 - share) * pad
            square = (found - mean[column]).square().sum(dim=0) / data.n_episodes
            deviation[column] = (square + (1 - share) * (pad - mean[column]).square()).sqrt()
        return cls(mean.float(), deviation.float().clamp_(min=_LEAST_DEVIATION))


class EpisodeMatrix:
    """Between episodes and normalised signals (..., L, F), F = N (D + A) + 3, with the state N (D + A) + K + 3.

    Every channel is scaled to [−1, 1] by its range over the valid rows. Padding is 0 in the task's units, as far as the
    range of a channel allows.

    Attributes:
        longest: T_max, steps of the longest episode.
        length: L, T_max + 1 rounded up to a multiple of `multiple`.
        channels: F.
        value_channel: where Q is.
        padding: (F,) normalised.
        moments: of the signals of the data.
    """

    def __init__(
        self,
        spec: TaskSpec,
        longest: int,
        multiple: int,
        with_state: bool,
        limits: LimitsNormaliser,
        moments: Moments,
        device: str,
    ) -> None:
        self.spec, self.longest, self.with_state, self.device = spec, longest, with_state, device
        self.length = _columns(longest, multiple)
        self._of_agents = spec.n_agents * (spec.obs_dim + spec.action.size)
        self.channels = self._of_agents + (spec.state_dim or 0) * with_state + 3
        self.value_channel = self.channels - 2
        self._multiple, self._limits = multiple, limits.to(device)
        self.padding = _scaled(self._limits, torch.zeros(self.channels, device=device))  # (F,)
        self.moments = Moments(moments.mean.to(device), moments.deviation.to(device))

    @classmethod
    def fit(
        cls, data: OfflineDataset, *, gamma: float, multiple: int, with_state: bool, device: str
    ) -> tuple[Self, Tensor]:
        """The codec of these episodes, and their rows: (S + E, F) normalised, on the device.

        Args:
            data: at least one episode.
            gamma: discount of Q.
            multiple: what L is divisible by.
            with_state: whether the global state has channels.
            device: of the rows.

        Raises:
            UsageError: with `with_state` on a task without a global state.
        """
        spec = data.spec
        if with_state and data.states is None:
            raise UsageError(f"{spec.id}: model_state=true, but the task has no global state.")
        rows, seen = cls._rows(data, gamma, with_state)
        steps = rows[data.row_of_step()]
        ranges = [
            np.where(seen, rows.min(axis=0), steps.min(axis=0)),
            np.where(seen, rows.max(axis=0), steps.max(axis=0)),
        ]
        limits = LimitsNormaliser.fit(np.stack(ranges)).to(device)  # both ends say all that it asks of the rows
        scaled, longest = _scaled(limits, torch.from_numpy(rows).to(device)), int(data.lengths.max())
        padding = _scaled(limits, torch.zeros(rows.shape[1], device=device))
        moments = Moments.of(scaled, data, padding, _columns(longest, multiple))
        return cls(spec, longest, multiple, with_state, limits, moments, device), scaled

    @staticmethod
    def _rows(data: OfflineDataset, gamma: float, with_state: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(S + E, F) in the task's units, and (F,) which channels every row has, the last of an episode included."""
        spec, at = data.spec, data.row_of_step()
        n, d, a = spec.n_agents, spec.obs_dim, spec.action.size
        count = len(data.observations)
        agents = np.zeros((count, n, d + a), dtype=np.float32)
        agents[..., :d] = data.observations
        if spec.action.discrete:
            agents[at[:, None], np.arange(n), d + np.asarray(data.actions)] = 1.0
        else:
            agents[at, :, d:] = data.actions
        ends = np.zeros((count, 3), dtype=np.float32)
        ends[at, 0] = data.team_rewards()
        ends[at, 1] = data.returns_to_go(gamma)
        ends[at[data.episode_starts[1:] - 1], 2] = 1.0
        seen = np.zeros((n, d + a), dtype=np.bool_)
        seen[:, :d] = True
        parts, marks = [agents.reshape(count, -1)], [seen.ravel()]
        if with_state and data.states is not None:
            parts.append(np.asarray(data.states))
            marks.append(np.ones(data.states.shape[1], dtype=np.bool_))
        return np.concatenate([*parts, ends], axis=1), np.concatenate([*marks, np.zeros(3, dtype=np.bool_)])

    def decode(self, signals: Tensor) -> DecodedEpisodes:
        """Signals (B, L, F) in the task's units, cut where they end.

        That is the first step whose end is above one half, or where none is, the one with the most of it: every episode
        of the data marks exactly one (inferred).
        """
        spec, steps = self.spec, self.longest
        raw: NDArray[np.float32] = self._limits.decode(signals.detach()[:, : steps + 1]).cpu().numpy()
        agents = raw[..., : self._of_agents].reshape(*raw.shape[:2], spec.n_agents, -1)  # (B, T + 1, N, D + A)
        ends = raw[:, :steps, -1]  # (B, T)
        marked: NDArray[np.bool_] = np.asarray((ends > _END).any(axis=1))
        last = np.where(marked, (ends > _END).argmax(axis=1), ends.argmax(axis=1))
        return DecodedEpisodes(
            observations=agents[..., : spec.obs_dim],
            states=raw[..., self._of_agents : -3] if self.with_state else None,
            actions=agents[:, :steps, :, spec.obs_dim :],
            rewards=raw[:, :steps, -3],
            returns_to_go=raw[:, :steps, -2],
            lengths=(last + 1).astype(np.int64),
            marked=marked,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        sizes = np.array([self.longest, self._multiple, self.with_state], dtype=np.int64)
        moments = {name: getattr(self.moments, name).cpu().numpy() for name in ("mean", "deviation")}
        return {**self._limits.state(), "sizes": sizes, **moments}

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str) -> Self:
        """The codec whose `arrays` are given."""
        longest, multiple, with_state = (int(size) for size in arrays["sizes"])
        moments = Moments(*(torch.from_numpy(np.array(arrays[name])) for name in ("mean", "deviation")))
        limits = LimitsNormaliser.from_state(arrays)
        return cls(spec, longest, multiple, bool(with_state), limits, moments, device)


def _columns(longest: int, multiple: int) -> int:
    """L: room for the row after the last step, rounded up."""
    return -(-(longest + 1) // multiple) * multiple


def _scaled(limits: LimitsNormaliser, raw: Tensor) -> Tensor:
    """(..., F) in the task's units -> [−1, 1]; only zeros that stand for nothing can lie outside of the range."""
    return limits.encode(raw).clamp_(-1, 1)


class EpisodeSignals:
    """The episodes of a dataset as signals, gathered from their rows; never stacked.

    Args:
        data: the episodes.
        matrix: their codec.
        rows: (S + E, F) normalised, as `EpisodeMatrix.fit` gives them.
    """

    def __init__(self, data: OfflineDataset, matrix: EpisodeMatrix, rows: Tensor) -> None:
        self.matrix, self._rows = matrix, rows
        self._first = torch.from_numpy(np.array(data.row_starts[: data.n_episodes])).to(rows.device)
        self._lengths = torch.from_numpy(np.array(data.lengths)).to(rows.device)
        self._columns = torch.arange(matrix.length, device=rows.device)

    def lengths(self, episodes: Tensor) -> Tensor:
        """(...) episode numbers -> (...) transitions."""
        return self._lengths[episodes]

    def signals(self, episodes: Tensor) -> Tensor:
        """(...) episode numbers -> (..., L, F)."""
        last = self._lengths[episodes][..., None]  # (..., 1)
        index = self._first[episodes][..., None] + torch.minimum(self._columns, last)  # (..., L)
        found = self._rows.index_select(0, index.flatten()).view(*index.shape, -1)
        return torch.where((self._columns <= last)[..., None], found, self.matrix.padding)

    def steps(self, episodes: Tensor, *, own: bool) -> Tensor:
        """(..., L) bool: the columns over which Q is averaged: an episode's `own` steps, or all T_max."""
        last = self._lengths[episodes][..., None] if own else self.matrix.longest
        return (self._columns < last).expand(*episodes.shape, -1)
