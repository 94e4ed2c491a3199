"""Shipped policies: small safetensors files with a JSON card, run with numpy alone.

A file holds `w0, b0, w1, b1, w2, b2` with the agent as leading axis (w: (N, in, out), b: (N, out)). A training
history has one more axis in front, the snapshot, in float16, and `episodes`, how long each snapshot acted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BoolArray, FloatArray, HistoryPhase
from tasks.common.errors import DataError, StorageError
from tasks.common.files import sha256_of, write_bytes
from tasks.mpe.products import product

ActionRule = Literal["tanh", "argmax"]
Weights = dict[str, NDArray[Any]]
LAYERS = 3
EXPLORATION_NOISE = 0.1  # of the behaviour learner (docs/tasks.md)


@dataclass(frozen=True, slots=True)
class MLPPolicy:
    """One network of three layers an agent, one after the other: o_i -> ReLU -> ReLU -> tanh or argmax.

    Attributes:
        weights: w_k (N, in, out) and b_k (N, out).
    """

    weights: Mapping[str, FloatArray]
    rule: ActionRule

    def act(self, observations: FloatArray, available_actions: BoolArray | None) -> ActionArray:
        """Greedy joint actions (B, N, 2) float32 or (B, N) int64 for observations (B, N, D)."""
        n_agents = observations.shape[1]
        out = np.stack([self._network(agent, observations[:, agent]) for agent in range(n_agents)], axis=1)  # (B, N, A)
        if self.rule == "tanh":
            return np.asarray(np.tanh(out))
        if available_actions is not None:
            out = np.where(available_actions, out, -np.inf)
        return np.asarray(out.argmax(axis=-1))

    def _network(self, agent: int, x: FloatArray) -> FloatArray:
        """Agent's raw outputs (B, A) for its observations (B, D)."""
        for layer in range(LAYERS):
            x = product(x, self.weights[f"w{layer}"][agent]) + self.weights[f"b{layer}"][agent]
            if layer < LAYERS - 1:
                np.maximum(x, 0.0, out=x)
        return x


def load_weights(path: Path) -> Weights:
    """The arrays of a policy file.

    Raises:
        StorageError: if the file is missing or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"Could not read the policy {path}: {error}. Reinstall augmarl, or train it again."
        ) from error


def load_policy(path: Path, rule: ActionRule) -> MLPPolicy:
    """A shipped policy. Raises StorageError."""
    weights = load_weights(path)
    return MLPPolicy({name: array.astype(np.float32) for name, array in weights.items()}, rule)


def load_history(path: Path, rule: ActionRule) -> list[HistoryPhase]:
    """The phases of a training run: uniform exploration, then one actor after the other.

    The actors of continuous tasks acted with Gaussian noise of 0.1; no history is shipped for discrete ones.
    """
    weights = load_weights(path)
    episodes = weights.pop("episodes")
    phases = [HistoryPhase(None, int(episodes[0]))]
    for snapshot, count in enumerate(episodes[1:]):
        layers = {name: array[snapshot].astype(np.float32) for name, array in weights.items()}
        phases.append(HistoryPhase(MLPPolicy(layers, rule), int(count), noise_std=EXPLORATION_NOISE))
    return phases


def save_policy(path: Path, weights: Mapping[str, NDArray[Any]], card: Mapping[str, object]) -> None:
    """Writes the arrays and, beside them, the card with their SHA-256. Raises StorageError."""
    from safetensors.numpy import save

    write_bytes(path, save({name: np.ascontiguousarray(array) for name, array in weights.items()}))
    complete = {**card, "sha256": sha256_of(path)}
    write_bytes(path.with_suffix(".json"), (json.dumps(complete, indent=2) + "\n").encode())


def load_card(path: Path) -> dict[str, Any]:
    """The card beside a policy file. Raises DataError if it is damaged."""
    try:
        card = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"The card of {path} cannot be read: {error}.") from error
    if not isinstance(card, dict):
        raise DataError(f"The card of {path} is not a JSON object.")
    return card


def stack_history(snapshots: Sequence[Mapping[str, NDArray[Any]]], episodes: Sequence[int]) -> Weights:
    """The arrays of a history file. `episodes` has the length of the uniform phase first, then one a snapshot."""
    if len(episodes) != len(snapshots) + 1:
        raise DataError(f"{len(episodes)} episode counts for {len(snapshots)} snapshots; expected one more.")
    stacked: Weights = {
        name: np.stack([snapshot[name] for snapshot in snapshots]).astype(np.float16) for name in snapshots[0]
    }
    return {**stacked, "episodes": np.asarray(episodes, dtype=np.int64)}
