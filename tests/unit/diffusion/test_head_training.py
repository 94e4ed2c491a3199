"""How the auxiliary networks are trained: on which transitions, at which rate, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from methods.base import Run
from methods.data.window_tensors import DeviceWindows, Transitions
from methods.data.windows import steps_of
from methods.diffusion import head_training
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.head_training import end_weight, rate_share
from methods.diffusion.heads import HeadNetworks
from methods.diffusion.settings import SegmentSettings
from methods.diffusion.stacked_adam import StackedAdam
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]


def test_true_ends_weigh_more_the_rarer_they_are() -> None:
    assert end_weight(np.array([True, False, False, False])) == 3
    assert end_weight(np.arange(1000) == 0) == 100
    assert end_weight(np.zeros(5, np.bool_)) == 1


def test_the_learning_rate_rises_and_falls() -> None:
    # a twentieth of 100 updates is 5: shares 1/5 and 5/5 of a cosine that is still near 1, then one half, then nothing
    assert rate_share(0, 100) == pytest.approx(0.2)
    assert rate_share(4, 100) == pytest.approx(0.5 * (1 + np.cos(0.04 * np.pi)))
    assert rate_share(50, 100) == pytest.approx(0.5)
    assert rate_share(99, 100) < 1e-3
    assert rate_share(0, 1) == 1.0


def test_rate_and_weight_of_ends_reach_every_update(
    tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    weights: list[float] = []
    step, losses = StackedAdam.step, head_training.head_losses

    def stepping(adam: StackedAdam, of_replicas: Tensor, learning_rate: float | None = None) -> None:
        step(adam, of_replicas, learning_rate)
        rates.append(adam._adam.param_groups[0]["lr"])

    def weighing(heads: HeadNetworks, batch: Transitions, weight: float) -> dict[str, Tensor]:
        weights.append(weight)
        return losses(heads, batch, weight)

    monkeypatch.setattr(StackedAdam, "step", stepping)
    monkeypatch.setattr(head_training, "head_losses", weighing)
    settings = tiny(heads=("termination",), updates=1, head_updates=4, head_learning_rate=0.01)
    fit_segment_models(settings, episodes([10, 4, 9], discrete=True), Run(seeds=(3,)))
    # after the one update of the denoiser: cosines of 0, 45, 90 and 135 degrees
    assert rates[1:] == pytest.approx([0.01, 0.005 * (1 + 0.5**0.5), 0.005, 0.005 * (1 - 0.5**0.5)])
    assert weights == pytest.approx([20 / 3] * 5)  # 3 of 23 steps are ends; four updates and the judging


def test_taught_steps_are_drawn_alike_and_only_the_others_judge(
    tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []
    gather = DeviceWindows.transitions

    def recording(windows: DeviceWindows, steps: Tensor) -> Transitions:
        batches.append(steps.clone())
        return gather(windows, steps)

    monkeypatch.setattr(DeviceWindows, "transitions", recording)
    data = episodes([10, 3, 7])  # drawn by windows, steps early in an episode would come too rarely
    settings = tiny(heads=("reward",), updates=1, head_updates=4, head_batch_size=4_000)
    models = fit_segment_models(settings, data, Run(seeds=(3, 5)))
    assert models[0].held_out.tolist() != models[1].held_out.tolist()
    *training, judging = batches
    for r, model in enumerate(models):
        held_out = steps_of(data, model.held_out)
        counts = np.bincount(torch.stack(training)[:, r].flatten().numpy(), minlength=data.n_steps)
        assert counts[held_out].sum() == 0
        assert chisquare(np.delete(counts, held_out)).pvalue > 0.01
        assert set(judging[r].tolist()) == set(held_out.tolist())


def test_the_training_loss_is_the_mean_over_the_last_twentieth(
    tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def counted(heads: HeadNetworks, *_: Any) -> dict[str, Tensor]:
        """The number of the update, ten times that in the second replica."""
        nonlocal calls
        calls += 1
        nothing = sum(p.sum() for p in heads.parameters()) * 0
        return {"reward": torch.tensor([1.0, 10.0]) * calls + nothing}

    monkeypatch.setattr(head_training, "head_losses", counted)
    settings = tiny(heads=("reward",), updates=1, head_updates=100)
    told = [model.diagnosis["heads"]["reward"] for model in fit_segment_models(settings, episodes(), Run(seeds=(3, 5)))]
    assert 97.5 <= told[0]["training"] <= 98  # of updates 95 .. 100, or 96 .. 100
    assert told[1]["training"] == pytest.approx(10 * told[0]["training"])
    assert [loss["heldout"] for loss in told] == [101, 1010]
