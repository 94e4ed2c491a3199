"""Episodes that a model is not trained on: nothing is learned from them, and they alone judge it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Run
from methods.data.window_tensors import DeviceWindows
from methods.data.windows import WindowIndex, steps_of
from methods.diffusion import fitting, head_fitting
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.model import SegmentModel
from methods.diffusion.settings import SegmentSettings
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]

RUN = Run(seeds=(3,))
LENGTHS = [1 + 3 * e % 10 for e in range(21)]  # of which two episodes are held out


def spied(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType = fitting) -> list[tuple[Any, ...]]:
    """The arguments of every call of a function of a module from here on."""
    calls: list[tuple[Any, ...]] = []
    function = getattr(module, name)

    def spy(*given: Any) -> Any:
        calls.append(given)
        return function(*given)

    monkeypatch.setattr(module, name, spy)
    return calls


def test_few_episodes_are_held_out_and_their_windows_judge(
    tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, judged = episodes(LENGTHS), spied(monkeypatch, "held_out_losses")
    model = fit_segment_models(tiny(heads=(), updates=1), data, RUN)[0]
    assert len(model.held_out) == 2
    own = WindowIndex(data, 8).of_episodes(model.held_out)
    assert model.diagnosis["heldout_windows"] == len(own) == sum(LENGTHS[e] for e in model.held_out)
    assert model.diagnosis["windows"] == data.n_steps - len(own)
    ((_, _, _, windows, _, _),) = judged
    assert windows.tolist() == own.tolist()


def test_what_held_out_episodes_hold_moves_no_weight(
    tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = episodes()
    settings = tiny(heads=("inverse", "reward", "return_to_go", "value"), circular_shift=0.5)
    clean = fit_segment_models(settings, data, RUN)[0]
    on_device = fitting.windows_on_device

    def poisoned(*given: Any) -> DeviceWindows:
        windows = on_device(*given)
        steps = torch.from_numpy(steps_of(data, clean.held_out))
        rows = windows._row_of_step[steps]
        windows._observations[torch.cat([rows, rows + 1])] = torch.nan
        for column in ("_actions", "_rewards", "_returns_to_go", "_conditions"):
            values = getattr(windows, column).clone()
            values[steps] = torch.nan
            setattr(windows, column, values)
        return windows

    monkeypatch.setattr(fitting, "windows_on_device", poisoned)
    model = fit_segment_models(settings, data, RUN)[0]
    for name, array in clean.arrays().items():
        if name.startswith(("denoiser/", "heads/")):
            np.testing.assert_array_equal(model.arrays()[name], array, err_msg=name)
    assert model.diagnosis["loss_curve"] == clean.diagnosis["loss_curve"]
    assert model.diagnosis["heldout_denoising_loss"] is None
    for name, losses in model.diagnosis["heads"].items():
        assert losses == {"training": clean.diagnosis["heads"][name]["training"], "heldout": None}


@pytest.mark.parametrize(("lengths", "padded"), [(LENGTHS, True), ([7 + e % 4 for e in range(21)], False)])
def test_thresholds_come_from_held_out_windows_and_transitions(
    tiny: Make, episodes: Episodes, lengths: list[int], padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, calls = episodes(lengths), spied(monkeypatch, "calibrate")
    settings = tiny(heads=("inverse", "dynamics"), updates=1, head_updates=1, pad_windows=padded)
    model = fit_segment_models(settings, data, RUN)[0]
    x = model.encode(data.observations)
    index, rows = WindowIndex(data, 8, padded=padded), data.row_of_step()
    own, steps = index.of_episodes(model.held_out), steps_of(data, model.held_out)
    ((told, windows, inside, pairs),) = calls
    assert isinstance(told, SegmentModel)

    within = [[j < left for j in range(7)] for left in index.left[own]]  # which transitions are in the episode
    expected = {x[at].numpy().tobytes(): mask for at, mask in zip(index.rows(own), within, strict=True)}
    found = {window.numpy().tobytes(): mask.tolist() for window, mask in zip(windows, inside, strict=True)}
    assert found == expected
    assert len(windows) == len(own)

    def pair(row: int) -> bytes:
        return x[row : row + 2].numpy().tobytes()

    assert sorted(both.numpy().tobytes() for both in pairs) == sorted(pair(row) for row in rows[steps])


def test_actions_are_encoded_once_and_for_all(tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the heads are taught is what the model decodes."""
    data, calls = episodes(), spied(monkeypatch, "HeadTraining", head_fitting)
    model = fit_segment_models(tiny(updates=1, head_updates=1), data, RUN)[0]
    ((_, _, windows, *_),) = calls
    actions: Tensor = windows.transitions(torch.arange(data.n_steps)[None]).actions[0]
    assert torch.equal(actions, model.encode_actions(data.actions))
    assert not np.allclose(actions, data.actions, atol=0.01)
    np.testing.assert_allclose(model.decode_actions(actions), data.actions, atol=1e-3)
