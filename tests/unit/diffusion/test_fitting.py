"""Fits of tiny models: replicas apart, stages resumed, averages by hand, errors in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from methods.base import Run
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.model import SegmentModel
from methods.diffusion.settings import HEADS, SegmentSettings
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.checkpoints import KilledError, Memory

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]


def weights(model: SegmentModel) -> dict[str, np.ndarray]:
    return {name: a for name, a in model.arrays().items() if name.startswith(("denoiser/", "heads/", "scales/"))}


def difference(one: SegmentModel, other: SegmentModel) -> float:
    """The largest of two weights, biases aside that the group norm after them cancels (their gradient is rounding)."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    counted = [name for name in ours if not name.endswith("convolution.bias")]
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in counted)


@pytest.mark.parametrize("discrete", [False, True])
def test_replicas_together_equal_replicas_alone(
    tiny: Make, episodes: Episodes, discrete: bool, monkeypatch: Any
) -> None:
    # Rounding that depends on the number of replicas is Adam's to blow up: the plain products keep it small.
    monkeypatch.setattr("methods.networks.precision._decide", lambda: (("matmul", "highest"),))
    data, settings = episodes(discrete=discrete), tiny(heads=HEADS, circular_shift=0.3)
    together = fit_segment_models(settings, data, Run(seeds=(3, 8)))
    alone = fit_segment_models(settings, data, Run(seeds=(8,)))[0]
    assert difference(together[1], alone) < 1e-4
    assert difference(together[0], alone) > 1e-2
    assert together[1].held_out.tolist() == alone.held_out.tolist()
    loss = alone.diagnosis["heldout_denoising_loss"]
    assert together[1].diagnosis["heldout_denoising_loss"] == pytest.approx(loss, abs=1e-4)


def test_heads_learn_from_the_data_as_they_are(tiny: Make, episodes: Episodes) -> None:
    """A circular shift changes what the denoiser sees, and nothing else."""
    plain, shifted = (
        weights(fit_segment_models(tiny(heads=HEADS, circular_shift=share), episodes(), Run(seeds=(3,)))[0])
        for share in (0.0, 1.0)
    )
    for name, array in plain.items():
        if name.startswith("heads/"):
            np.testing.assert_array_equal(array, shifted[name], err_msg=name)
    assert any(not np.array_equal(array, shifted[name]) for name, array in plain.items())


def test_a_diverging_replica_disturbs_nobody(tiny: Make, episodes: Episodes, monkeypatch: Any) -> None:
    data, settings = episodes(), tiny(heads=("inverse", "dynamics"))
    healthy = fit_segment_models(settings, data, Run(seeds=(3, 8)))
    create = Denoiser.create

    def poisoned(*args: Any) -> Denoiser:
        denoiser = create(*args)
        with torch.no_grad():
            denoiser.unet.head.weight[1] = torch.nan
        return denoiser

    monkeypatch.setattr(Denoiser, "create", poisoned)
    models = fit_segment_models(settings, data, Run(seeds=(3, 8)))
    assert difference(models[0], healthy[0]) == 0
    assert [model.diverged for model in models] == [False, True]
    assert models[1].diagnosis["heldout_denoising_loss"] is None
    json.dumps(models[1].diagnosis, allow_nan=False)


def test_a_killed_fit_ends_as_if_it_had_not_been_killed(tiny: Make, episodes: Episodes, monkeypatch: Any) -> None:
    monkeypatch.setattr("methods.diffusion.draws._CHUNK_UPDATES", 2)
    monkeypatch.setattr("methods.diffusion.head_training._CHUNK_UPDATES", 2)
    data = episodes()
    settings = tiny(heads=("inverse", "dynamics", "value"), updates=3, head_updates=3, ema_every=1, ema_start=2)
    never = Memory()
    whole = fit_segment_models(settings, data, Run(seeds=(3, 8), checkpoint=never))
    assert never.saves == 3  # after 2 updates of the denoisers, at their end, after 2 updates of the heads
    for last_save in range(1, 4):
        killer = Memory(last_save)
        with pytest.raises(KilledError):
            fit_segment_models(settings, data, Run(seeds=(3, 8), checkpoint=killer))
        killer.kill_at = None
        resumed = fit_segment_models(settings, data, Run(seeds=(3, 8), checkpoint=killer))
        assert killer.saves == 3  # nothing was done twice
        assert [difference(*pair) for pair in zip(whole, resumed, strict=True)] == [0, 0]
        for name in ("loss_curve", "heads", "heldout_denoising_loss", "thresholds"):
            assert resumed[1].diagnosis[name] == whole[1].diagnosis[name]


def test_the_average_is_a_copy_at_first_and_then_trails(tiny: Make, episodes: Episodes) -> None:
    def after(updates: int, **given: Any) -> np.ndarray:
        settings = tiny(heads=(), updates=updates, ema_every=2, ema_start=4, ema_decay=0.75, **given)
        model = fit_segment_models(settings, episodes(), Run(seeds=(3,)))[0]
        return weights(model)["denoiser/unet.head.weight"]

    raw = {updates: after(updates, use_ema=False) for updates in (2, 3, 4, 6)}
    np.testing.assert_array_equal(after(3), raw[3])  # over before the start: a copy of the end
    fourth = 0.75 * raw[2] + 0.25 * raw[4]
    np.testing.assert_allclose(after(4), fourth, rtol=1e-5)
    np.testing.assert_allclose(after(5), fourth, rtol=1e-5)
    np.testing.assert_allclose(after(6), 0.75 * fourth + 0.25 * raw[6], rtol=1e-5)


def test_training_learns(tiny: Make, episodes: Episodes) -> None:
    sizes = {"width": 16, "updates": 40, "batch_size": 16, "head_updates": 80}
    settings = tiny(heads=("reward",), learning_rate=3e-3, head_learning_rate=1e-2, **sizes)
    model = fit_segment_models(settings, episodes(), Run(seeds=(3,)))[0]
    curve = model.diagnosis["loss_curve"]
    assert curve[-1][0] == 40
    assert np.mean([loss for _, loss in curve[-8:]]) < 0.9 * np.mean([loss for _, loss in curve[:8]])
    assert model.diagnosis["heads"]["reward"]["training"] < 0.7  # of a variance of 1


def test_progress_counts_all_stages_and_the_deadline_ends_them(
    tiny: Make, episodes: Episodes, monkeypatch: Any
) -> None:
    monkeypatch.setattr("methods.journal._REPORT_SECONDS", 0.0)
    told: list[tuple[int, int]] = []
    run = Run(seeds=(3,), progress=lambda done, total, message: told.append((done, total)))
    fit_segment_models(tiny(), episodes(), run)
    assert told == [(done, 11) for done in range(12)]
    with pytest.raises(TimeoutError, match="of 11 steps"):
        fit_segment_models(tiny(), episodes(), Run(seeds=(3,), deadline=time.monotonic()))


def test_the_diagnosis_tells_what_was_computed(tiny: Make, episodes: Episodes) -> None:
    settings = tiny(heads=("inverse", "dynamics", "alive"))
    diagnosis = fit_segment_models(settings, episodes(), Run(seeds=(3,)))[0].diagnosis
    assert diagnosis["compute"] == {
        "width": 8,
        "first_skip": False,
        "prediction": "noise",
        "updates": 6,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "head_updates": 5,
        "parameters": diagnosis["compute"]["parameters"],
    }
    assert diagnosis["compute"]["parameters"] > 100_000
    assert set(diagnosis["heads"]) == {"inverse", "dynamics"}
    assert set(diagnosis["seconds"]) == {"preparing", "denoiser", "heads", "judging"}
    assert diagnosis["windows"] + diagnosis["heldout_windows"] == 23
    assert diagnosis["thresholds"]["transition"]["sse"]["0.99"] > 0
    json.dumps(diagnosis, allow_nan=False)


@pytest.mark.parametrize("lengths", [[1], [1, 1], [3]])
def test_very_little_data_suffice(tiny: Make, episodes: Episodes, lengths: list[int]) -> None:
    settings = tiny(heads=("inverse", "dynamics"), updates=1, head_updates=1)
    model = fit_segment_models(settings, episodes(lengths), Run(seeds=(3,)))[0]
    assert np.isfinite(model.diagnosis["heldout_denoising_loss"])


def test_held_out_episodes_too_short_for_a_window_are_replaced(tiny: Make, episodes: Episodes) -> None:
    # Without padding only the episode of 10 steps has windows, whichever of the two is held out.
    for seed in range(3):
        settings = tiny(heads=(), updates=1, pad_windows=False)
        model = fit_segment_models(settings, episodes([10, 2]), Run(seeds=(seed,)))[0]
        assert model.diagnosis["windows"] == model.diagnosis["heldout_windows"] == 4


def test_values_that_are_not_finite_are_refused(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    observations = data.observations.copy()
    observations[5, 1, 2] = np.inf
    with pytest.raises(DataError, match="1 of 26 rows of 'observations'"):
        fit_segment_models(tiny(), data.replace(observations=observations), Run(seeds=(3,)))


def test_labels_are_given_iff_they_are_wanted(tiny: Make, episodes: Episodes) -> None:
    data, z = episodes(), np.full((23, 3), 1 / 3, np.float32)
    with pytest.raises(UsageError, match="labels=True, but labels were not given"):
        fit_segment_models(tiny(labels=True), data, Run(seeds=(3,)))
    with pytest.raises(UsageError, match="labels=False, but labels were given"):
        fit_segment_models(tiny(), data, Run(seeds=(3,)), [z])
    with pytest.raises(UsageError, match=r"labels of \[22\] windows, expected 23 for each of 1"):
        fit_segment_models(tiny(labels=True), data, Run(seeds=(3,)), [z[1:]])
    assert fit_segment_models(tiny(labels=True), data, Run(seeds=(3,)), [z])[0].settings.labels


def test_heads_draw_their_weights_apart(tiny: Make, episodes: Episodes) -> None:
    # Another head beside it changes neither the weights nor the batches of a head.
    one = fit_segment_models(tiny(heads=("inverse",)), episodes(), Run(seeds=(3,)))[0]
    two = fit_segment_models(tiny(heads=("inverse", "reward")), episodes(), Run(seeds=(3,)))[0]
    name = "heads/networks.inverse.layers.0.weight"
    np.testing.assert_array_equal(one.arrays()[name], two.arrays()[name])
