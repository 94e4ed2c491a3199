"""Fitting R segment models in one program: data to the device, denoiser, auxiliary networks, thresholds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.data.window_tensors import DeviceWindows
from methods.data.windows import WindowIndex, held_out_split, require_finite, steps_of, training_entries
from methods.diffusion.codec import Codec, conditioning_returns
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.head_fitting import fit_heads
from methods.diffusion.head_training import TrainedHeads
from methods.diffusion.model import SegmentModel
from methods.diffusion.settings import SegmentSettings
from methods.diffusion.trainer import DenoiserTraining, held_out_losses
from methods.diffusion.training import TrainedDenoiser
from methods.diffusion.validity import calibrate
from methods.journal import Journal
from methods.networks.precision import fast_matmul
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset

_COMPUTE = ("width", "first_skip", "prediction", "updates", "batch_size", "learning_rate", "head_updates")
_ROWS = 16_384  # encoded at a time
_CALIBRATING = 4_096  # held-out windows, and as many transitions, that thresholds are measured on, at most


def fit_segment_models(
    settings: SegmentSettings,
    data: OfflineDataset,
    run: Run,
    labels: Sequence[NDArray[np.float32]] | None = None,
) -> list[SegmentModel]:
    """Fits one model a seed of `run`, all in one program; model r depends on `run.seeds[r]` alone.

    Progress goes to `run.report`; `run.checkpoint` is saved when due, and a fit that starts with one goes on where
    it was, bit for bit on a CPU. A replica that diverges does not disturb the others.

    Args:
        settings: already `within` the budget.
        data: original episodes.
        run: seeds, device, progress, checkpoint.
        labels: for each seed (W, N) label vectors z, one for each of the W windows of
            `WindowIndex(data, settings.horizon, padded=settings.pad_windows)`, iff `settings.labels`.

    Raises:
        DataError: for values that are not finite.
        UnsupportedError: if no window fits into an episode.
        TimeoutError: after `run.deadline`.
    """
    if run.device != "cpu":
        return _fit(settings, data, run, labels, {"matmul": torch.get_float32_matmul_precision()})
    with fast_matmul() as precision:
        return _fit(settings, data, run, labels, precision)


def _fit(
    settings: SegmentSettings,
    data: OfflineDataset,
    run: Run,
    labels: Sequence[NDArray[np.float32]] | None,
    precision: dict[str, Any],
) -> list[SegmentModel]:
    began = time.monotonic()
    require_finite(data)
    index = WindowIndex(data, settings.horizon, padded=settings.pad_windows)
    z = _labels(settings, labels, len(index), run)
    codec = Codec.fit(settings, data, run.device)
    journal = Journal(run, settings.updates + settings.head_updates)
    journal.report(0, "preparing the data", now=True)
    windows = windows_on_device(index, codec, settings)

    replicas = range(len(run.seeds))
    splits = [held_out_split(data.n_episodes, run.generator("diffusion/held-out", r)) for r in replicas]
    held_out = [index.of_episodes(judged) for _, judged in splits]
    held_out = [found if len(found) else np.arange(len(index)) for found in held_out]  # too short for a window
    taught = [index.of_episodes(kept) for kept, _ in splits]
    taught = [found if len(found) else np.arange(len(index)) for found in taught]
    entries = [training_entries(index, found, settings.circular_shift, settings.gamma) for found in taught]
    preparing = time.monotonic() - began

    weights = [run.generator("diffusion/denoiser/weights", r) for r in replicas]
    denoiser = Denoiser.create(settings, data.spec.n_agents, codec.features, weights).to(run.device)
    denoisers = DenoiserTraining(settings, denoiser, windows, entries, z, run, journal).run_once()

    heads, scales = fit_heads(settings, windows, codec.features, splits, run, journal)
    shared = _Shared(settings, windows, codec, scales, precision, denoisers, heads, preparing)
    return [
        shared.model(r, run, held_out[r], splits[r][1], None if z is None else z[r], len(entries[r].windows))
        for r in replicas
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What the models of one fit are made of."""

    settings: SegmentSettings
    windows: DeviceWindows
    codec: Codec
    scales: dict[str, Tensor]
    precision: dict[str, Any]
    denoisers: TrainedDenoiser
    heads: TrainedHeads
    preparing: float

    def model(
        self,
        replica: int,
        run: Run,
        held_out: NDArray[np.int64],
        episodes: NDArray[np.int64],
        labels: Tensor | None,
        entries: int,
    ) -> SegmentModel:
        """One replica, judged on its held-out windows."""
        began, settings = time.monotonic(), self.settings
        denoisers, heads = self.denoisers, self.heads
        model = SegmentModel(
            settings,
            self.windows.index.data.spec,
            run.device,
            self.codec,
            {name: array[replica] for name, array in denoisers.weights.items()},
            {name: array[replica] for name, array in heads.weights.items()},
            self.scales,
            episodes,
            {},
        )
        judging = run.generator("diffusion/judging", replica)
        losses = held_out_losses(settings, model.denoise, self.windows, held_out, labels, judging)
        parameters = sum(p.numel() for module in (model.denoiser, model.heads) for p in module.parameters())
        model.diagnosis |= {
            "heldout_denoising_loss": finite(losses.noise),
            "heldout_reconstruction_loss": finite(losses.data),
            "training_loss": finite(denoisers.training_loss[replica]),
            "loss_curve": [[int(point[0]), finite(point[1 + replica])] for point in denoisers.curve],
            "heads": {
                name: {"training": finite(heads.training[name][replica]), "heldout": finite(lost[replica])}
                for name, lost in heads.held_out.items()
            },
            "diverged": model.diverged,
            "precision": self.precision,
            "windows": entries,
            "heldout_windows": len(held_out),
            "returns_scale": self.codec.returns_scale,
            "returns_shift": self.codec.returns_shift,
            "compute": {
                **{name: getattr(settings, name) for name in _COMPUTE},
                "parameters": parameters,
            },
        }
        if model.has("inverse") and model.has("dynamics") and not model.diverged:
            chosen = torch.from_numpy(judging.permutation(held_out)[:_CALIBRATING]).to(run.device)
            steps = torch.arange(settings.horizon - 1, device=run.device)
            inside = steps < self.windows.left(chosen)[:, None]
            own = steps_of(self.windows.index.data, episodes)
            single = torch.from_numpy(judging.permutation(own)[:_CALIBRATING]).to(run.device)
            model.diagnosis["thresholds"] = calibrate(
                model, self.windows.observations(chosen), inside, self.windows.pairs(single)
            )
        model.diagnosis["seconds"] = {
            "preparing": round(self.preparing, 3),
            "denoiser": round(denoisers.seconds, 3),
            "heads": round(heads.seconds, 3),
            "judging": round(time.monotonic() - began, 3),
        }
        return model


def _labels(
    settings: SegmentSettings, labels: Sequence[NDArray[np.float32]] | None, windows: int, run: Run
) -> Tensor | None:
    """(R, W, N) on the device, checked; None without labels."""
    if settings.labels != (labels is not None):
        raise UsageError(f"diffusion: labels={settings.labels}, but labels were {'not ' * (labels is None)}given.")
    if labels is None:
        return None
    if len(labels) != len(run.seeds) or any(len(z) != windows for z in labels):
        raise UsageError(
            f"diffusion: labels of {[len(z) for z in labels]} windows, expected {windows} for each of {len(run.seeds)}."
        )
    return torch.from_numpy(np.stack(labels).astype(np.float32)).to(run.device)


def windows_on_device(index: WindowIndex, codec: Codec, settings: SegmentSettings) -> DeviceWindows:
    """The whole dataset, normalised and encoded."""
    data = index.data
    states = data.states if settings.append_state else None
    observations = torch.cat(
        [
            codec.encode(data.observations[row : row + _ROWS], None if states is None else states[row : row + _ROWS])
            for row in range(0, len(data.observations), _ROWS)
        ]
    )
    discrete = data.spec.action.discrete
    actions = (
        torch.from_numpy(np.array(data.actions)).to(codec.device) if discrete else codec.encode_actions(data.actions)
    )
    conditions = codec.condition(conditioning_returns(settings, data))
    return DeviceWindows(index, observations, actions, conditions)


def finite(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None
