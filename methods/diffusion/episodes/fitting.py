"""Fitting R models of whole episodes in one program: data to the device, network, auxiliary networks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.data.windows import WindowIndex, held_out_split, require_finite
from methods.diffusion.codec import Codec
from methods.diffusion.episodes.matrix import EpisodeMatrix, EpisodeSignals
from methods.diffusion.episodes.model import EpisodeModel, unet_config
from methods.diffusion.episodes.settings import EpisodeSettings
from methods.diffusion.episodes.training import EpisodeTraining, judge_episodes
from methods.diffusion.fitting import finite, windows_on_device
from methods.diffusion.head_fitting import fit_heads
from methods.diffusion.head_training import TrainedHeads
from methods.diffusion.training import TrainedDenoiser
from methods.journal import Journal
from methods.networks.conv_unet import ConvUNet, ConvUNetConfig
from methods.networks.precision import fast_matmul
from tasks.datasets.offline import OfflineDataset

_COMPUTE = ("width", "prediction", "updates", "batch_size", "learning_rate", "head_updates")


def fit_episode_models(settings: EpisodeSettings, data: OfflineDataset, run: Run) -> list[EpisodeModel]:
    """Fits one model a seed of `run`, all in one program; model r depends on `run.seeds[r]` alone.

    Progress goes to `run.report`; `run.checkpoint` is saved when due, and a fit that starts with one goes on where
    it was, bit for bit on a CPU. A replica that diverges does not disturb the others.

    Args:
        settings: already `within` the budget.
        data: at least one episode.
        run: seeds, device, progress, checkpoint.

    Raises:
        DataError: for values that are not finite.
        TimeoutError: after `run.deadline`.
    """
    if run.device != "cpu":
        return _fit(settings, data, run, {"matmul": torch.get_float32_matmul_precision()})
    with fast_matmul() as precision:
        return _fit(settings, data, run, precision)


def _fit(settings: EpisodeSettings, data: OfflineDataset, run: Run, precision: dict[str, Any]) -> list[EpisodeModel]:
    began = time.monotonic()
    require_finite(data)
    journal = Journal(run, settings.updates + settings.head_updates)
    journal.report(0, "preparing the data", now=True)
    matrix, rows = EpisodeMatrix.fit(
        data,
        gamma=settings.gamma,
        multiple=ConvUNetConfig.factor(),
        with_state=settings.model_state,
        device=run.device,
    )
    signals, replicas = EpisodeSignals(data, matrix, rows), range(len(run.seeds))
    splits = [held_out_split(data.n_episodes, run.generator("diffusion/held-out", r)) for r in replicas]
    preparing = time.monotonic() - began

    weights = [run.generator("diffusion/denoiser/weights", r) for r in replicas]
    unet = ConvUNet(unet_config(settings, matrix), weights).to(run.device)
    denoisers = EpisodeTraining(settings, unet, signals, [taught for taught, _ in splits], run, journal).run_once()

    of_rows = settings.rows()
    codec = Codec.fit(of_rows, data, run.device)
    windows = windows_on_device(WindowIndex(data, of_rows.horizon), codec, of_rows)
    heads, scales = fit_heads(of_rows, windows, codec.features, splits, run, journal)
    shared = _Shared(settings, signals, codec, scales, precision, denoisers, heads, preparing)
    return [shared.model(r, data, run, *splits[r]) for r in replicas]


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What the models of one fit are made of."""

    settings: EpisodeSettings
    signals: EpisodeSignals
    codec: Codec
    scales: dict[str, Tensor]
    precision: dict[str, Any]
    denoisers: TrainedDenoiser
    heads: TrainedHeads
    preparing: float

    def model(
        self, replica: int, data: OfflineDataset, run: Run, taught: NDArray[np.int64], held_out: NDArray[np.int64]
    ) -> EpisodeModel:
        """One replica, judged on its held-out episodes."""
        began, settings, matrix = time.monotonic(), self.settings, self.signals.matrix
        denoisers, heads = self.denoisers, self.heads
        model = EpisodeModel(
            settings,
            data.spec,
            run.device,
            matrix,
            self.codec,
            {name: array[replica] for name, array in denoisers.weights.items()},
            {name: array[replica] for name, array in heads.weights.items()},
            self.scales,
            {},
        )
        judging = run.generator("diffusion/judging", replica)
        judged = judge_episodes(settings, model.predict, self.signals, held_out, judging)
        parameters = sum(p.numel() for module in (model.unet, model.heads) for p in module.parameters())
        model.diagnosis |= {
            "heldout_denoising_loss": finite(judged.noise),
            "heldout_reconstruction_loss": finite(judged.data),
            "heldout_value_gap": finite(judged.gap),
            "training_loss": finite(denoisers.training_loss[replica]),
            "loss_curve": [[int(point[0]), finite(point[1 + replica])] for point in denoisers.curve],
            "heads": {
                name: {"training": finite(heads.training[name][replica]), "heldout": finite(lost[replica])}
                for name, lost in heads.held_out.items()
            },
            "diverged": model.diverged,
            "precision": self.precision,
            "episodes": len(taught),
            "heldout_episodes": len(held_out),
            "signal": {"length": matrix.length, "channels": matrix.channels},
            "compute": {**{name: getattr(settings, name) for name in _COMPUTE}, "parameters": parameters},
        }
        model.diagnosis["seconds"] = {
            "preparing": round(self.preparing, 3),
            "denoiser": round(denoisers.seconds, 3),
            "heads": round(heads.seconds, 3),
            "judging": round(time.monotonic() - began, 3),
        }
        return model
