"""The auxiliary networks that a dataset can teach: made, trained together, and their scales."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from methods.base import Run
from methods.data.window_tensors import DeviceWindows
from methods.data.windows import Index, steps_of
from methods.diffusion.head_training import HeadTraining, TrainedHeads
from methods.diffusion.heads import HeadNetworks, target_scales, useful_heads
from methods.diffusion.settings import SegmentSettings
from methods.journal import Journal


def fit_heads(
    settings: SegmentSettings,
    windows: DeviceWindows,
    features: int,
    splits: Sequence[tuple[Index, Index]],
    run: Run,
    journal: Journal,
    *,
    stream: str = "diffusion/heads",
) -> tuple[TrainedHeads, dict[str, Tensor]]:
    """R replicas of every head in one program, the journal's last stage, and the scales of their targets.

    Args:
        settings: of the heads.
        windows: the data on the device.
        features: of a normalised row of one agent.
        splits: R pairs of episodes, to train on and to judge by.
        run: seeds and device.
        journal: progress and checkpoints.
        stream: of the random weights.
    """
    data = windows.index.data
    names = useful_heads(settings, data)
    scales = {name: scale.to(run.device) for name, scale in target_scales(data, names, settings).items()}
    networks = HeadNetworks(
        settings,
        data.spec,
        features,
        scales,
        names,
        lambda name: [run.generator(f"{stream}/{name}", r) for r in range(len(splits))],
    ).to(run.device)
    taught, judged = ([steps_of(data, split[part]) for split in splits] for part in range(2))
    return HeadTraining(settings, networks, windows, taught, judged, run, journal).run(), scales
