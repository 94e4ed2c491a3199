"""Between the task's units and those of a diffusion model: observations, actions and conditioning returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from methods.diffusion.normalisers import Normaliser, make_normaliser, restore_normaliser
from methods.diffusion.settings import SegmentSettings
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class Codec:
    """Normalised observations (..., N, D'), encoded actions (..., N, A) and conditions, and back.

    D' is D, or D + K where every agent's observation is followed by the state. All agents share the normalisers,
    as they share the network. A dimension that never changes is 0 throughout: left raw, as MADiff's code has it, it
    could lie outside of [−1, 1], where no sampler ends.

    Attributes:
        spec: the task.
        features: D'.
        returns_scale, returns_shift: c = (R − shift) / scale.
    """

    def __init__(
        self,
        spec: TaskSpec,
        device: str,
        append_state: bool,
        observations: Normaliser,
        actions: Normaliser | None,
        limits: NDArray[np.float32],
        returns: tuple[float, float],
    ) -> None:
        self.spec, self.device, self.append_state = spec, device, append_state
        self.features = spec.obs_dim + (spec.state_dim or 0) * append_state
        self._observations = observations.to(device)
        self._actions = None if actions is None else actions.to(device)
        self._limits = limits  # (2, D'), smallest and largest of the data
        self._constant = torch.from_numpy(limits[0] == limits[1]).to(device)
        self.returns_scale, self.returns_shift = returns

    @classmethod
    def fit(cls, settings: SegmentSettings, data: OfflineDataset, device: str) -> Self:
        """Normalisers of the valid rows of the data, and the scale of its returns."""
        spec = data.spec
        if settings.append_state and data.states is None:
            raise UsageError(f"{spec.id}: append_state=true, but the task has no global state.")
        rows = _with_state(data.observations, data.states if settings.append_state else None)
        flat = rows.reshape(-1, rows.shape[-1])  # (rows · N, D')
        actions = None
        if not spec.action.discrete:
            bounds = np.array([[spec.action.low], [spec.action.high]], np.float32).repeat(spec.action.size, axis=1)
            own = settings.action_normaliser == "data"
            sample = data.actions.reshape(-1, spec.action.size).astype(np.float32, copy=False) if own else bounds
            actions = make_normaliser(settings.normaliser if own else "limits", sample)
        return cls(
            spec,
            device,
            settings.append_state,
            make_normaliser(settings.normaliser, flat),
            actions,
            np.stack([flat.min(axis=0), flat.max(axis=0)]),
            _returns_scale(settings, data),
        )

    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor:
        """(..., N, D) and, with `append_state`, (..., K) -> (..., N, D') normalised."""
        if self.append_state and states is None:
            raise UsageError(f"{self.spec.id}: a model of observations with states needs the states to encode.")
        rows = _with_state(observations, states if self.append_state else None)
        x = self._observations.encode(torch.from_numpy(np.array(rows, np.float32)).to(self.device))
        return torch.where(self._constant, 0.0, x)

    def decode(self, x: Tensor) -> NDArray[np.float32]:
        """(..., N, D') -> (..., N, D), clipped to the range of the data."""
        return self._decode_all(x)[..., : self.spec.obs_dim]

    def decode_state(self, x: Tensor) -> NDArray[np.float32]:
        """(..., N, D + K) -> (..., K), the mean of the agents' copies."""
        mean: NDArray[np.float32] = self._decode_all(x)[..., self.spec.obs_dim :].mean(axis=-2)
        return mean

    def _decode_all(self, x: Tensor) -> NDArray[np.float32]:
        raw = self._observations.decode(x.detach()).cpu().numpy()
        clipped: NDArray[np.float32] = np.clip(raw, *self._limits)
        return clipped

    def encode_actions(self, actions: NDArray[Any]) -> Tensor:
        """(..., N, A) floats -> normalised; (..., N) int -> one-hot (..., N, A)."""
        if self._actions is None:
            chosen = torch.from_numpy(np.array(actions, np.int64)).to(self.device)
            return torch.nn.functional.one_hot(chosen, self.spec.action.size).float()
        return self._actions.encode(torch.from_numpy(np.array(actions, np.float32)).to(self.device))

    def decode_actions(self, encoded: Tensor) -> NDArray[Any]:
        """(..., N, A) -> values within the bounds, or (..., N) the largest entry."""
        if self._actions is None:
            return encoded.detach().argmax(dim=-1).cpu().numpy()
        raw: NDArray[np.float32] = self._actions.decode(encoded.detach()).cpu().numpy()
        return np.clip(raw, self.spec.action.low, self.spec.action.high)

    def condition(self, returns: NDArray[np.floating[Any]] | float) -> Tensor:
        """Returns-to-go in the task's units -> c."""
        scaled = (np.asarray(returns, np.float64) - self.returns_shift) / self.returns_scale
        return torch.from_numpy(np.asarray(scaled, np.float32)).to(self.device)

    def arrays(self) -> Arrays:
        """All of it, for `from_arrays`."""
        parts: dict[str, Mapping[str, NDArray[Any]]] = {"observations": self._observations.state()}
        if self._actions is not None:
            parts["actions"] = self._actions.state()
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        returns = np.array([self.returns_scale, self.returns_shift])
        return {**named, "limits": self._limits, "returns": returns}

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str, append_state: bool) -> Self:
        """The codec whose `arrays` are given."""
        parts = {
            part: {name.removeprefix(f"{part}/"): a for name, a in arrays.items() if name.startswith(f"{part}/")}
            for part in ("observations", "actions")
        }
        actions = None if spec.action.discrete else restore_normaliser(parts["actions"])
        returns = (float(arrays["returns"][0]), float(arrays["returns"][1]))
        observations = restore_normaliser(parts["observations"])
        return cls(spec, device, append_state, observations, actions, arrays["limits"], returns)


def _with_state(observations: NDArray[np.float32], states: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(..., N, D) and (..., K) -> (..., N, D + K): each agent's copy of the state behind its observation."""
    if states is None:
        return observations
    copies = np.broadcast_to(states[..., None, :], (*observations.shape[:-1], states.shape[-1]))
    return np.concatenate([observations, copies], axis=-1)


def conditioning_returns(settings: SegmentSettings, data: OfflineDataset) -> NDArray[np.float64]:
    """(S,) discounted return-to-go of the team, or (S, N) of each agent, in the task's units."""
    return data.returns_to_go(settings.gamma, data.rewards if settings.per_agent_returns else None)


def _returns_scale(settings: SegmentSettings, data: OfflineDataset) -> tuple[float, float]:
    """Scale and shift of the condition: 1 stands for the largest episode return (inferred).

    Where no episode has a positive return, returns are first shifted by the smallest one; a scale of 0 becomes 1.
    """
    if settings.returns_scale is not None:
        return settings.returns_scale, 0.0
    of_episodes = conditioning_returns(settings, data)[data.episode_starts[:-1]]  # (E,) or (E, N)
    largest, smallest = float(of_episodes.max()), float(of_episodes.min())
    if largest > 0:
        return largest, 0.0
    return largest - smallest or 1.0, smallest
