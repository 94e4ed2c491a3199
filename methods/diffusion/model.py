"""A fitted diffusion model of joint windows with its auxiliary networks: what the diffusion augmenters share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays, require
from methods.diffusion.codec import Codec
from methods.diffusion.denoiser import Composition, Denoise, Denoiser
from methods.diffusion.guidance import composed
from methods.diffusion.heads import HeadNetworks, HeadQueries
from methods.diffusion.known import ClampConditioning, Conditioning, Known
from methods.diffusion.samplers import Sampler
from methods.diffusion.sampling import Batches, NoiseSource, sample
from methods.diffusion.settings import HEADS, SegmentSettings
from methods.diffusion.validity import Thresholds
from methods.networks.precision import fast_matmul
from tasks.common.errors import MethodError
from tasks.spec import TaskSpec

__all__ = ["HEADS", "Composition", "SegmentModel", "SegmentSettings"]

_CLAMP = ClampConditioning()


class SegmentModel(HeadQueries):
    """One fitted model. Everything is float32; tensors live on `device`.

    Normalised observations x are (..., N, D'), D' = D, or D + K with `settings.append_state`. Encoded actions are
    (..., N, A): normalised values, or one-hot choices of discrete ones. The heads are methods, see `HeadQueries`; each
    raises MethodError if it was not fitted, which `has` tells.

    Args:
        settings, spec, device: as fitted; device is where it computes.
        codec: normalisers and the scale of the returns.
        denoiser: weights by name, of one replica.
        heads: weights by name.
        scales: of the heads' targets.
        held_out: episodes that it was not trained on.
        diagnosis: JSON-able, see below.

    Attributes:
        features: D'.
        returns_scale, returns_shift: the condition is c = (return-to-go − shift) / scale, 1 at the best episode.
        diverged: whether a parameter is not finite; `sample` then raises MethodError.
        thresholds: {scope: {metric: {quantile: δ}}} of held-out real data, see `methods.diffusion.validity`.
        diagnosis: heldout_denoising_loss (of ε̂), heldout_reconstruction_loss (of x̂_0), training_loss,
            loss_curve [[updates, loss], ...],
            heads {name: {training, heldout}}, seconds {stage: s}, thresholds, precision,
            compute {width, updates, ..., parameters}, windows, heldout_windows.
    """

    def __init__(
        self,
        settings: SegmentSettings,
        spec: TaskSpec,
        device: str,
        codec: Codec,
        denoiser: Arrays,
        heads: Arrays,
        scales: Mapping[str, Tensor],
        held_out: NDArray[np.int64],
        diagnosis: dict[str, Any],
    ) -> None:
        self.settings, self.spec, self.device, self.codec = settings, spec, device, codec
        self.features, self.held_out, self.diagnosis = codec.features, held_out, diagnosis
        self.returns_scale, self.returns_shift = codec.returns_scale, codec.returns_shift
        weights = (*denoiser.values(), *heads.values())
        self.diverged = not all(np.isfinite(array).all() for array in weights)
        self.denoiser = Denoiser.from_arrays(settings, spec.n_agents, self.features, denoiser).to(device)
        self._arrays = {"denoiser": dict(denoiser), "heads": dict(heads)}
        names = [name for name in HEADS if any(key.startswith(f"networks.{name}.") for key in heads)]
        on_device = {name: scale.to(device) for name, scale in scales.items()}
        unused = [np.random.default_rng(0)]  # for weights that are overwritten at once
        self.heads = HeadNetworks(settings, spec, self.features, on_device, names, lambda _: unused).to(device)
        self.heads.load_state_dict({key: torch.from_numpy(np.array(a))[None] for key, a in heads.items()})
        self.heads.requires_grad_(False)
        self._denoise: Denoise | None = None
        self._batches: dict[int, Batches] = {}

    @property
    def thresholds(self) -> Thresholds:
        """Quantiles of the errors of held-out real data; empty without forward dynamics."""
        found: Thresholds = self.diagnosis.get("thresholds", {})
        return found

    # -- between the task's units and the model's ----------------------------------------------------------------

    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor:
        """(..., N, D) in the task's units -> (..., N, D') normalised; `states` (..., K) iff `append_state`."""
        return self.codec.encode(observations, states)

    def decode(self, x: Tensor) -> NDArray[np.float32]:
        """(..., N, D') -> (..., N, D) in the task's units, within the range of the data."""
        return self.codec.decode(x)

    def encode_actions(self, actions: NDArray[Any]) -> Tensor:
        """(..., N, A) floats -> normalised; (..., N) int -> one-hot (..., N, A)."""
        return self.codec.encode_actions(actions)

    def decode_actions(self, encoded: Tensor) -> NDArray[Any]:
        """(..., N, A) -> actions within their bounds, or (..., N) int64, the largest entry."""
        return self.codec.decode_actions(encoded)

    def condition(self, returns: NDArray[np.floating[Any]] | float) -> Tensor:
        """Returns-to-go in the task's units (under `settings.gamma`) as conditions c."""
        return self.codec.condition(returns)

    def state(self, x: Tensor) -> Tensor:
        """(..., K) global state in the task's units: from the head, or the agents' mean copy with `append_state`."""
        if self.settings.append_state:
            return torch.from_numpy(self.codec.decode_state(x)).to(self.device)
        return super().state(x)

    # -- sampling ------------------------------------------------------------------------------------------------

    def denoise(self, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None = None) -> Tensor:
        """ε̂ (1, B, H, N, D') without gradients; arguments as of `TemporalUNet.forward` with one replica."""
        if self._denoise is None:
            self._denoise = self.denoiser.inference()
        return self._denoise(x, k, returns, keep, labels)

    def sample(
        self,
        known: Known,
        *,
        target: float | Tensor,
        noise: NoiseSource,
        sampler: Sampler,
        guidance: float = 1.2,
        conditioning: Conditioning = _CLAMP,
        composition: Composition | None = None,
        null_dropout: float = 1.0,
        init_noise_scale: float = 0.5,
        batch_size: int = 2_048,
    ) -> Tensor:
        """Windows (B, H, N, D') that keep what is known.

        Args:
            known: values (B, H, N, D'), mask (B, H, N); nothing known: a mask of False.
            target: condition c: a number, (B,), or (B, N).
            noise: standard normal values, drawn for all B windows at once whatever `batch_size`.
            sampler: see `methods.diffusion.samplers`.
            guidance: g of ε̂ = ε_u + g (ε_c − ε_u); unused with a `composition`.
            conditioning: how known entries are kept.
            composition: branches on labels in place of the plain return, iff `settings.labels`.
            null_dropout: probability with which the unconditional branch drops the condition of a (window, agent);
                0.25 is the slip of DoF's repository.
            init_noise_scale: of the first x alone; 0.5 as in MADiff's code. With few steps and without noise on the way
                (`ddim`, `dpmpp_2m`) that makes windows too much alike, and 1 is better.
            batch_size: windows a forward pass, each in all its branches; halved when memory runs out.

        Raises:
            MethodError: if the weights are not finite.
        """
        if self.diverged:
            raise MethodError(f"{self.spec.id}: the diffusion model diverged: a weight is not finite. Lower its rate.")
        fits = self.settings.labels == (composition is not None)
        require(fits, "sample", f"composition={composition}", "one iff the model was fitted with labels")
        require(0 < null_dropout <= 1, "sample", f"null_dropout={null_dropout}", "a probability above 0")
        batch, n = known.mask.shape[0], self.spec.n_agents
        returns = torch.as_tensor(target, dtype=torch.float32, device=self.device)
        returns = (returns[:, None] if returns.dim() == 1 else returns).expand(batch, n)
        labels = None if composition is None else composition.inputs(self.device)  # (1 + C, N, 2N)
        weights = (guidance,) if composition is None else composition.weights
        slices = self._batches.setdefault(batch_size, Batches(batch_size))  # where it shrank, it stays small

        def denoise(x: Tensor, k: int) -> Tensor:
            null = torch.zeros(batch, n, dtype=torch.bool, device=self.device)
            if null_dropout < 1:
                null = noise((batch, n)) > torch.special.ndtri(torch.tensor(null_dropout)).item()
            return slices(lambda *of_rows: self._guided(k, labels, weights, *of_rows), x, returns, null)

        shape = tuple(known.values.shape)
        with fast_matmul() if self.device == "cpu" else contextlib.nullcontext():
            return sample(
                denoise,
                sampler,
                shape,
                noise,
                init_noise_scale=init_noise_scale,
                known=known,
                conditioning=conditioning,
            )

    def _guided(
        self, k: int, labels: Tensor | None, weights: tuple[float, ...], x: Tensor, returns: Tensor, null: Tensor
    ) -> Tensor:
        """ε_u + Σ_c w_c (ε_c − ε_u) of windows (B, H, N, D'), all branches in one pass.

        `labels` (1 + C, N, 2N) of the branches, returns (B, N), null (B, N) which agents of the unconditional branch
        see the condition all the same.
        """
        branches, batch = 1 + len(weights), len(x)
        keep = torch.cat([null, torch.ones_like(null).repeat(branches - 1, 1)])  # (branches · B, N)
        eps = self.denoise(
            x.repeat(branches, 1, 1, 1)[None],
            torch.full((1, branches * batch), k, device=x.device),
            returns.repeat(branches, 1)[None],
            keep[None],
            None if labels is None else labels.repeat_interleave(batch, dim=0)[None],
        )[0].view(branches, *x.shape)
        return composed(eps[0], eps[1:], weights)

    # -- storing -------------------------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """All of the model, for `from_arrays`."""
        parts: dict[str, Arrays] = {
            "codec": self.codec.arrays(),
            **self._arrays,
            "scales": {name: scale.cpu().numpy() for name, scale in self.heads.scales.items()},
        }
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        of_the_run = ("seconds", "precision")  # not of the model: they hold times
        lasting = {name: value for name, value in self.diagnosis.items() if name not in of_the_run}
        told = np.frombuffer(json.dumps(lasting).encode(), dtype=np.uint8).copy()
        return {**named, "settings": self.settings.array(), "held_out": self.held_out, "diagnosis": told}

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str) -> Self:
        """The model whose `arrays` are given: on the same device, its samples are the same to the last bit."""
        parts: dict[str, dict[str, NDArray[Any]]] = {"codec": {}, "denoiser": {}, "heads": {}, "scales": {}}
        for key, array in arrays.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        settings = SegmentSettings.from_array(arrays["settings"])
        return cls(
            settings,
            spec,
            device,
            Codec.from_arrays(parts["codec"], spec, device, settings.append_state),
            parts["denoiser"],
            parts["heads"],
            {name: torch.from_numpy(np.array(a)) for name, a in parts["scales"].items()},
            np.array(arrays["held_out"]),
            json.loads(arrays["diagnosis"].tobytes()),
        )
