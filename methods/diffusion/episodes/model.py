"""A fitted diffusion model of whole episodes with its auxiliary networks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from methods.diffusion.codec import Codec
from methods.diffusion.episodes.matrix import EpisodeMatrix
from methods.diffusion.episodes.settings import HEADS, EpisodeSettings
from methods.diffusion.episodes.training import clean_estimate
from methods.diffusion.heads import HeadNetworks, HeadQueries
from methods.diffusion.samplers import Sampler
from methods.diffusion.sampling import Batches, NoiseSource, sample
from methods.diffusion.schedule import make_schedule
from methods.networks.conv_unet import ConvUNet, ConvUNetConfig, Inference, prepared
from methods.networks.precision import fast_matmul
from tasks.common.errors import MethodError
from tasks.spec import TaskSpec

_SIGNALS = 1_024  # a forward pass, fewer where memory runs out


def unet_config(settings: EpisodeSettings, matrix: EpisodeMatrix) -> ConvUNetConfig:
    """The network that the settings ask for."""
    return ConvUNetConfig(rows=matrix.length, channels=matrix.channels, width=settings.width)


class EpisodeModel(HeadQueries):
    """One fitted model: signals (B, L, F) of whole episodes, and heads that read single rows of them.

    Rows x (..., N, D') are normalised as the heads know them, D' = D, or D + K with `settings.model_state`.

    Args:
        settings, spec, device: as fitted; device is where it computes.
        matrix: between episodes and signals.
        codec: between rows in the task's units and those of the heads.
        unet: weights by name, of one replica.
        heads: weights by name.
        scales: of the heads' targets.
        diagnosis: JSON-able, see below.

    Attributes:
        features: D'.
        diverged: whether a parameter is not finite; `sample` then raises MethodError.
        diagnosis: heldout_denoising_loss (of ε̂), heldout_reconstruction_loss (of x̂_0), heldout_value_gap,
            training_loss, loss_curve [[updates, loss], ...], heads {name: {training, heldout}}, seconds {stage: s},
            precision, compute {width, updates, ..., parameters}, episodes, heldout_episodes, signal {length, channels}.
    """

    def __init__(
        self,
        settings: EpisodeSettings,
        spec: TaskSpec,
        device: str,
        matrix: EpisodeMatrix,
        codec: Codec,
        unet: Arrays,
        heads: Arrays,
        scales: Mapping[str, Tensor],
        diagnosis: dict[str, Any],
    ) -> None:
        self.settings, self.spec, self.device, self.matrix, self.codec = settings, spec, device, matrix, codec
        self.features, self.diagnosis = codec.features, diagnosis
        self.diverged = not all(np.isfinite(array).all() for array in (*unet.values(), *heads.values()))
        self._arrays = {"unet": dict(unet), "heads": dict(heads)}
        unused = [np.random.default_rng(0)]  # for weights that are overwritten at once
        self.unet = ConvUNet(unet_config(settings, matrix), unused).to(device)
        self.unet.load_state_dict({key: torch.from_numpy(np.array(a))[None] for key, a in unet.items()})
        names = [name for name in HEADS if any(key.startswith(f"networks.{name}.") for key in heads)]
        on_device = {name: scale.to(device) for name, scale in scales.items()}
        self.heads = HeadNetworks(settings.rows(), spec, self.features, on_device, names, lambda _: unused).to(device)
        self.heads.load_state_dict({key: torch.from_numpy(np.array(a))[None] for key, a in heads.items()})
        self.heads.requires_grad_(False)
        self._schedule = make_schedule(settings.schedule, settings.diffusion_steps).to(device)
        self._predict: Inference | None = None
        self._batches = Batches(_SIGNALS)  # where it shrank, it stays small

    # -- between the task's units and those of the heads ---------------------------------------------------------

    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor:
        """(..., N, D) in the task's units -> (..., N, D') normalised; `states` (..., K) iff `model_state`."""
        return self.codec.encode(observations, states)

    def decode(self, x: Tensor) -> NDArray[np.float32]:
        """(..., N, D') -> (..., N, D) in the task's units, within the range of the data."""
        return self.codec.decode(x)

    def decode_actions(self, encoded: Tensor) -> NDArray[Any]:
        """(..., N, A) -> actions within their bounds, or (..., N) int64, the largest entry."""
        return self.codec.decode_actions(encoded)

    def chosen_actions(self, actions: NDArray[np.float32], x: Tensor) -> Tensor:
        """Encoded actions (..., N, A) from what a signal says of them, at rows x (..., N, D').

        Values keep to their range; of choices, the one that the signal speaks for most among those that are available.
        """
        if not self.spec.action.discrete:
            return self.heads.act(self.codec.encode_actions(actions), None)
        available = self.availability(x) if self.has("availability") else None
        return self.heads.act(torch.from_numpy(np.array(actions)).to(self.device), available)

    def state(self, x: Tensor) -> Tensor:
        """(..., K) global state in the task's units: from the head, or as the signal has it with `model_state`."""
        if self.settings.model_state:
            return torch.from_numpy(self.codec.decode_state(x)).to(self.device)
        return super().state(x)

    # -- sampling ------------------------------------------------------------------------------------------------

    def predict(self, x: Tensor, k: Tensor) -> Tensor:
        """x̂_0 (1, B, L, F) without gradients; arguments as of `ConvUNet.forward` with one replica."""
        if self._predict is None:
            self._predict = prepared(self.unet)
        return clean_estimate(self.settings, self._schedule, self.matrix.moments, self._predict(x, k), x, k)

    def sample(
        self, count: int, *, noise: NoiseSource, sampler: Sampler, before_pass: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Signals (count, L, F) from pure noise of standard deviation 1.

        Noise is drawn for all of them at once; a pass of the network that does not fit into memory is halved.
        `before_pass` is called before every pass.

        Raises:
            MethodError: if the weights are not finite.
        """
        if self.diverged:
            raise MethodError(f"{self.spec.id}: the diffusion model diverged: a weight is not finite. Lower its rate.")

        def denoise(x: Tensor, k: int) -> Tensor:
            return self._batches(lambda part: predict(part, k), x)

        def predict(x: Tensor, k: int) -> Tensor:
            before_pass()
            return self.predict(x[None], torch.full((1, len(x)), k, device=x.device))[0]

        shape = (count, self.matrix.length, self.matrix.channels)
        with fast_matmul() if self.device == "cpu" else contextlib.nullcontext():
            return sample(denoise, sampler, shape, noise, init_noise_scale=1.0, predicts_data=True)

    # -- storing -------------------------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """All of the model, for `from_arrays`."""
        parts: dict[str, Arrays] = {
            "matrix": self.matrix.arrays(),
            "codec": self.codec.arrays(),
            **self._arrays,
            "scales": {name: scale.cpu().numpy() for name, scale in self.heads.scales.items()},
        }
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        of_the_run = ("seconds", "precision")  # not of the model: they hold times
        lasting = {name: value for name, value in self.diagnosis.items() if name not in of_the_run}
        told = np.frombuffer(json.dumps(lasting).encode(), dtype=np.uint8).copy()
        return {**named, "settings": self.settings.array(), "diagnosis": told}

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str) -> Self:
        """The model whose `arrays` are given: on the same device, its samples are the same to the last bit."""
        parts: dict[str, dict[str, NDArray[Any]]] = {
            part: {} for part in ("matrix", "codec", "unet", "heads", "scales")
        }
        for key, array in arrays.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        settings = EpisodeSettings.from_array(arrays["settings"])
        return cls(
            settings,
            spec,
            device,
            EpisodeMatrix.from_arrays(parts["matrix"], spec, device),
            Codec.from_arrays(parts["codec"], spec, device, settings.model_state),
            parts["unet"],
            parts["heads"],
            {name: torch.from_numpy(np.array(a)) for name, a in parts["scales"].items()},
            json.loads(arrays["diagnosis"].tobytes()),
        )
