"""What turns generated observations into valid rows of a dataset: auxiliary networks, and emission (card 1.12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays, Run
from methods.data.windows import Index, WindowIndex
from methods.diffusion.codec import Codec
from methods.diffusion.fitting import windows_on_device
from methods.diffusion.head_fitting import fit_heads
from methods.diffusion.head_training import TrainedHeads
from methods.diffusion.heads import HeadNetworks, HeadQueries, useful_heads
from methods.diffusion.settings import HEADS, SegmentSettings
from methods.journal import Journal
from methods.synthesis.bits import decode_bits
from methods.synthesis.emission import GeneratedRows, emit_episodes
from methods.transitions.tokens import RawTransitions
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_HEADS = ("availability", "alive", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """Size and training of the auxiliary networks; they see observations scaled to [−1, 1], which keeps ranges."""

    hidden: int
    updates: int
    batch_size: int
    learning_rate: float

    def segment_settings(self, *, append_state: bool, before: int) -> SegmentSettings:
        """The same in the words of the models of windows, whose networks and training these are.

        `before` are the updates of the networks that were trained first, for the progress alone.
        """
        return SegmentSettings(
            horizon=2,
            normaliser="limits",
            action_normaliser="bounds",
            append_state=append_state,
            updates=before,
            heads=_HEADS,
            head_hidden=self.hidden,
            head_updates=self.updates,
            head_batch_size=self.batch_size,
            head_learning_rate=self.learning_rate,
        )


class RowHeads(HeadQueries):
    """The auxiliary networks of one fitted model, as `methods.synthesis.emission.RowModel` asks for them.

    Normalised rows are (..., N, D'), D' = D, or D + K where tokens have the state. Actions pass as they are: values of
    continuous ones, one-hot choices of discrete ones.
    """

    def __init__(
        self, settings: SegmentSettings, codec: Codec, heads: Arrays, scales: Mapping[str, NDArray[np.float32]]
    ) -> None:
        self.settings, self.codec, self.spec = settings, codec, codec.spec
        self.features, self._weights = codec.features, dict(heads)
        names = [name for name in HEADS if any(key.startswith(f"networks.{name}.") for key in heads)]
        tensors = {name: torch.from_numpy(np.array(scale)).to(codec.device) for name, scale in scales.items()}
        unused = [np.random.default_rng(0)]  # for weights that are overwritten at once
        networks = HeadNetworks(settings, self.spec, self.features, tensors, names, lambda _: unused)
        networks.load_state_dict({key: torch.from_numpy(np.array(a))[None] for key, a in heads.items()})
        self.heads = networks.to(codec.device).requires_grad_(False)

    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor:
        """(..., N, D) in the task's units -> (..., N, D') normalised."""
        return self.codec.encode(observations, states)

    def decode(self, x: Tensor) -> NDArray[np.float32]:
        """(..., N, D') -> (..., N, D), within the range of the data."""
        return self.codec.decode(x)

    def decode_actions(self, actions: Tensor) -> NDArray[Any]:
        """(..., N, A) values as they are, or the chosen actions (..., N)."""
        array: NDArray[Any] = actions.cpu().numpy()
        return array.argmax(axis=-1) if self.spec.action.discrete else array

    def state(self, x: Tensor) -> Tensor:
        """(..., K) in the task's units: from the tokens where they have it, else from the head."""
        if self.settings.append_state:
            return torch.from_numpy(self.codec.decode_state(x)).to(x.device)
        return super().state(x)

    @torch.no_grad()
    def emit(self, drawn: RawTransitions, data: OfflineDataset) -> OfflineDataset:
        """Drawn transitions as episodes of one step: a true end where one was drawn, else no flag.

        Bits become the nearest available action of the observation. What else holds is told at
        `methods.synthesis.emission.emit_episodes`.
        """
        x = self.encode(drawn.observations, drawn.states)  # (M, 2, N, D')
        actions = drawn.actions
        if self.spec.action.discrete:
            available = np.ones((*actions.shape[:2], self.spec.action.size), dtype=np.bool_)
            if self.has("availability"):
                available = self.availability(x[:, 0]).cpu().numpy()
            chosen = decode_bits(actions, available)  # (M, N)
            actions = np.eye(self.spec.action.size, dtype=np.float32)[chosen]
        rows = GeneratedRows(
            observations=x,
            actions=torch.from_numpy(actions[:, None]),
            rewards=torch.from_numpy(drawn.rewards[:, None]),
            lengths=np.ones(len(x), dtype=np.int64),
            terminal=drawn.terminal,
        )
        emitted = emit_episodes(self, rows, data)
        return emitted.replace(truncations=np.zeros(emitted.n_steps, dtype=np.bool_))

    def arrays(self) -> Arrays:
        """All of it, for `from_arrays`."""
        parts: dict[str, Arrays] = {
            "codec": self.codec.arrays(),
            "heads": self._weights,
            "scales": {name: scale.cpu().numpy() for name, scale in self.heads.scales.items()},
        }
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return {**named, "settings": self.settings.array()}

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str) -> Self:
        """What `arrays` returned."""
        parts: dict[str, dict[str, NDArray[Any]]] = {"codec": {}, "heads": {}, "scales": {}}
        for key, array in arrays.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        settings = SegmentSettings.from_array(arrays["settings"])
        codec = Codec.from_arrays(parts["codec"], spec, device, settings.append_state)
        return cls(settings, codec, parts["heads"], parts["scales"])


def fit_row_heads(
    settings: SegmentSettings,
    data: OfflineDataset,
    splits: Sequence[tuple[Index, Index]],
    run: Run,
    journal: Journal,
) -> tuple[list[RowHeads], TrainedHeads | None]:
    """The heads that these data can teach, R replicas in one program, and what their training tells.

    Args:
        settings: of the heads.
        data: original episodes.
        splits: R pairs of episodes, to train on and to judge by.
        run: seeds and device.
        journal: progress and checkpoints; theirs is the last stage.
    """
    codec = Codec.fit(settings, data, run.device)
    if not useful_heads(settings, data):
        return [RowHeads(settings, codec, {}, {}) for _ in splits], None
    windows = windows_on_device(WindowIndex(data, settings.horizon), codec, settings)
    trained, scales = fit_heads(settings, windows, codec.features, splits, run, journal, stream="transitions/heads")
    stored = {name: scale.cpu().numpy() for name, scale in scales.items()}
    return [
        RowHeads(settings, codec, {name: array[r] for name, array in trained.weights.items()}, stored)
        for r in range(len(splits))
    ], trained
