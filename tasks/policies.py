"""Shipped policies: small safetensors files with a JSON card, run with numpy alone.

A file holds `w0, b0, w1, b1, w2, b2` with the agent as leading axis (w: (N, in, out), b: (N, out)), or a single network
that all agents share and that sees each agent's number (1, D + N, out). A training history has one more axis in front,
the snapshot, in float16, and `episodes`, how long each snapshot acted. Policies of discrete actions explored with
`epsilon`, or were drawn from where there is none; those of continuous actions with deviation `noise`, 0.1 where there
is none. `medium` is the number of episodes until that level was reached, in histories that go on to the expert. A
single policy is drawn from if its file has an array `drawn`, else greedy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BehaviourPolicy, BoolArray, FloatArray, HistoryPhase, StochasticPolicy, Task
from tasks.common.errors import DataError, StorageError, UsageError
from tasks.common.files import sha256_of, write_bytes
from tasks.common.products import product

ActionRule = Literal["tanh", "argmax"]
Weights = dict[str, NDArray[Any]]
LAYERS = 3
DRAWN = "drawn"
EXPLORATION_NOISE = 0.1  # of the behaviour learner (docs/tasks.md)


@dataclass(frozen=True, slots=True)
class MLPPolicy:
    """Networks of three layers, one agent after the other: o_i -> ReLU -> ReLU -> tanh or argmax.

    Attributes:
        weights: w_k (N, in, out) and b_k (N, out), one network an agent; or (1, in, out) and (1, out), one for all,
            whose input ends with the agent's number, one-hot.
    """

    weights: Mapping[str, FloatArray]
    rule: ActionRule

    def act(self, observations: FloatArray, available_actions: BoolArray | None) -> ActionArray:
        """Greedy joint actions (B, N, A) float32 or (B, N) int64 for observations (B, N, D)."""
        if self.rule == "tanh":
            return np.asarray(np.tanh(self._outputs(observations)))
        return np.asarray(self.logits(observations, available_actions).argmax(axis=-1))

    def logits(self, observations: FloatArray, available_actions: BoolArray | None) -> FloatArray:
        """Outputs (B, N, A), -inf where an action is unavailable."""
        out = self._outputs(observations)
        return out if available_actions is None else np.where(available_actions, out, np.float32(-np.inf))

    def _outputs(self, observations: FloatArray) -> FloatArray:
        """Raw outputs (B, N, A)."""
        n_agents = observations.shape[1]
        if len(self.weights["w0"]) < n_agents:
            observations = with_agent_numbers(observations)
        return np.stack([self._network(agent, observations[:, agent]) for agent in range(n_agents)], axis=1)

    def _network(self, agent: int, x: FloatArray) -> FloatArray:
        """Agent's raw outputs (B, A) for its observations (B, D)."""
        network = min(agent, len(self.weights["w0"]) - 1)
        for layer in range(LAYERS):
            x = product(x, self.weights[f"w{layer}"][network]) + self.weights[f"b{layer}"][network]
            if layer < LAYERS - 1:
                np.maximum(x, 0.0, out=x)
        return x


@dataclass(frozen=True, slots=True)
class SoftmaxPolicy:
    """A policy that is drawn from; see `MLPPolicy` for its weights."""

    weights: Mapping[str, FloatArray]

    def sample(
        self, observations: FloatArray, available_actions: BoolArray | None, uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Joint actions (B, N) from the softmax over available actions, by inversion of uniform numbers (B, N)."""
        logits = MLPPolicy(self.weights, "argmax").logits(observations, available_actions).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        below = weights.cumsum(axis=-1)
        # The first action whose cumulated weight exceeds the number: one of weight 0 never is.
        return np.asarray((below <= uniform[..., None] * below[..., -1:]).sum(axis=-1))


def with_agent_numbers(observations: FloatArray) -> FloatArray:
    """Observations (B, N, D) with each agent's number behind them, one-hot: (B, N, D + N)."""
    batch, n_agents, _ = observations.shape
    numbers = np.broadcast_to(np.eye(n_agents, dtype=np.float32), (batch, n_agents, n_agents))
    return np.concatenate([observations, numbers], axis=-1)


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


def load_policy(path: Path, rule: ActionRule) -> MLPPolicy | SoftmaxPolicy:
    """A shipped policy. Raises StorageError."""
    weights = load_weights(path)
    drawn = weights.pop(DRAWN, None) is not None
    layers = {name: array.astype(np.float32) for name, array in weights.items()}
    return SoftmaxPolicy(layers) if drawn else MLPPolicy(layers, rule)


def load_history(path: Path, rule: ActionRule, until: str = "medium") -> list[HistoryPhase]:
    """The phases of a training run: uniform exploration, then one actor after the other.

    The actors of continuous tasks acted with the file's Gaussian noise, or one of 0.1; those of discrete ones with the
    file's ε, or as they were drawn.

    Raises:
        StorageError: if the file cannot be read.
        UsageError: if it ends before `until`.
    """
    weights = load_weights(path)
    episodes, medium = weights.pop("episodes"), weights.pop("medium", None)
    if until == "expert" and medium is None:
        raise UsageError(
            f"The training history {path} ends at the medium level, so `replay` is not possible. Choose medium-replay."
        )
    drawn = rule == "argmax" and "epsilon" not in weights
    epsilon = weights.pop("epsilon", np.zeros(len(episodes) - 1))
    usual = EXPLORATION_NOISE if rule == "tanh" else 0.0
    noises = weights.pop("noise", np.full(len(episodes) - 1, usual))
    left = int(episodes.sum()) if until == "expert" or medium is None else int(medium[0])
    phases = [HistoryPhase(None, min(left, int(episodes[0])))]
    for snapshot, (count, explored, noise) in enumerate(zip(episodes[1:], epsilon, noises, strict=True)):
        left -= phases[-1].episodes
        layers = {name: array[snapshot].astype(np.float32) for name, array in weights.items()}
        policy = SoftmaxPolicy(layers) if drawn else MLPPolicy(layers, rule)
        phases.append(HistoryPhase(policy, min(left, int(count)), float(noise), float(explored)))
    return [phase for phase in phases if phase.episodes]


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


def stack_history(
    snapshots: Sequence[Mapping[str, NDArray[Any]]],
    episodes: Sequence[int],
    *,
    epsilon: Sequence[float] | None = None,
    noise: Sequence[float] | None = None,
    medium: int | None = None,
) -> Weights:
    """The arrays of a history file. `episodes` has the length of the uniform phase first, then one a snapshot."""
    if len(episodes) != len(snapshots) + 1:
        raise DataError(f"{len(episodes)} episode counts for {len(snapshots)} snapshots; expected one more.")
    stacked: Weights = {
        name: np.stack([snapshot[name] for snapshot in snapshots]).astype(np.float16) for name in snapshots[0]
    }
    explored = {"epsilon": epsilon, "noise": noise}
    extra: Weights = {name: np.asarray(values, np.float32) for name, values in explored.items() if values is not None}
    if medium is not None:
        extra["medium"] = np.asarray([medium], dtype=np.int64)
    return {**stacked, "episodes": np.asarray(episodes, dtype=np.int64), **extra}


class PolicyTask(Task):
    """A task whose behaviour policies are files of this package.

    Attributes:
        checkpoints: the folder of its family's policies.
        folder: that of the task within it.
        rule: how the outputs of its policies become actions.
    """

    checkpoints: ClassVar[Path]
    folder: str
    rule: ActionRule

    def checkpoint(self, level: str, root: Path | None = None) -> Path:
        """Where the policy of a level lies, below the family's folder or another."""
        return (self.checkpoints if root is None else root) / self.folder / f"{level}.safetensors"

    def behaviour_policy(self, level: str) -> BehaviourPolicy | StochasticPolicy:
        """The shipped policy of a level."""
        return load_policy(self._existing(level), self.rule)

    def training_history(self, until: str = "medium") -> Sequence[HistoryPhase]:
        """Uniform exploration, if there was any, then the policies of the expert's run."""
        return load_history(self._existing("history"), self.rule, until)

    def behaviour_digest(self, level: str) -> str:
        """SHA-256 of the file of a level, or of the "history"."""
        return sha256_of(self._existing(level))

    def _existing(self, level: str) -> Path:
        if level not in (*self.behaviour_levels, "history"):
            raise UsageError(f"{self.spec.id}: level {level!r} is none of {', '.join(self.behaviour_levels)}.")
        path = self.checkpoint(level)
        if not path.exists():
            raise UsageError(
                f"{self.spec.id}: no {level} policy is shipped for this task. "
                f"Train it with `bench policy train '{self.spec.id}'`."
            )
        return path
