"""DoF*: agents are diffused apart, however their noise estimates are put together; and what the filter lets pass."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.augmenters.dof import DoF
from methods.base import Budget, Run
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.known import Known
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import SegmentSettings
from methods.synthesis.window_filter import HeldOutWindows
from tasks.common.errors import MethodError, UsageError

DATA = sample_dataset("continuous").without_privileged()


def fitted(**params: Any) -> DoF:
    dof = DoF.tiny(params)
    dof.fit(DATA, Run(seeds=(0,)))
    return dof


@pytest.fixture(scope="module")
def dof() -> DoF:
    return fitted()


def drawn(model: SegmentModel, first: np.ndarray[Any, Any], **options: Any) -> torch.Tensor:
    noise = numpy_noise(np.random.Generator(np.random.Philox(1)), "cpu")
    sampler = make_sampler("ddim", CosineSchedule(4), 3)
    return model.sample(
        Known.first_row(model.encode(first), 8), target=1.0, noise=noise, sampler=sampler, guidance=1.2, **options
    )


@pytest.mark.parametrize("factorisation", ["concat", "wconcat"])
def test_an_agent_never_feels_another(factorisation: str) -> None:
    model = fitted(factorisation=factorisation).model_on("cpu")
    rows = DATA.observations[:4]
    moved = rows.copy()
    moved[:, 1] = DATA.observations[20:24, 1]
    before, after = drawn(model, rows), drawn(model, moved)
    torch.testing.assert_close(before[:, :, [0, 2]], after[:, :, [0, 2]], rtol=0, atol=1e-6)
    assert (before[:, 1:, 1] != after[:, 1:, 1]).any()


def test_equal_weights_on_networks_scaled_by_n_are_a_plain_concatenation() -> None:
    def created(wconcat: bool) -> Denoiser:
        settings = SegmentSettings(width=8, attention=False, wconcat=wconcat)
        return Denoiser.create(settings, 3, 5, [np.random.Generator(np.random.Philox(2))])

    plain, weighted = created(False), created(True)
    rng = np.random.Generator(np.random.Philox(3))
    x = torch.from_numpy(rng.normal(size=(1, 2, 8, 3, 5)).astype(np.float32))
    k, returns = torch.tensor([[1, 3]]), torch.ones(1, 2, 3)
    keep = torch.ones(1, 2, 3, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(3 * weighted(x, k, returns, keep), plain(x, k, returns, keep))
        assert weighted.agent_weights is not None
        weighted.agent_weights.copy_(torch.tensor([[1.0, 2.0, 1.0]]))
        shares = torch.tensor([0.25, 0.5, 0.25])[:, None]
        torch.testing.assert_close(weighted(x, k, returns, keep), shares * plain(x, k, returns, keep))


@pytest.mark.parametrize(("literal", "share"), [(True, 0.75), (False, 0.0)])
def test_the_literal_unconditional_branch_keeps_most_conditions(
    dof: DoF, literal: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[torch.Tensor] = []
    denoise = SegmentModel.denoise

    def recording(model: SegmentModel, *given: Any) -> torch.Tensor:
        kept.append(given[3][0].view(2, -1, 3))  # the unconditional branch, then the conditional one
        return denoise(model, *given)

    slipping = DoF.from_params({**DoF.tiny_params, "literal_uncond": literal, "segments": 1000})
    slipping.load_state(dof.state(), DATA.spec)
    monkeypatch.setattr(SegmentModel, "denoise", recording)
    slipping.generate(DATA, Run(seeds=(1,)))
    unconditional, conditional = torch.cat(kept, dim=1)
    assert conditional.all()
    assert float(unconditional.float().mean()) == (pytest.approx(share, abs=0.03) if literal else share)
    first, second = kept[:2]
    assert literal == bool((first[0] != second[0]).any())  # drawn at every step


def test_segments_begin_with_real_rows_and_end_in_cuts(dof: DoF) -> None:
    data = dof.generate(DATA, Run(seeds=(1,), budget=Budget(amount=20)))
    assert data.lengths.tolist() == [6, 6, 6, 6]  # the task's limit, below the 7 of a window
    assert data.truncations[data.episode_starts[1:] - 1].all()
    real = {row.tobytes() for row in np.round(DATA.observations, 3)}
    assert all(row.tobytes() in real for row in np.round(data.observations[data.row_starts[:-1]], 3))
    told = dof.diagnosis()["generation"]
    assert told["new_row_share"] == pytest.approx(6 / 7)
    assert told["sampler"] == {"name": "ddpm", "steps": 2}


def test_without_an_amount_there_are_as_many_segments_as_the_config_says(dof: DoF) -> None:
    assert dof.generate(DATA, Run(seeds=(1,))).n_episodes == 3


def test_an_unreachable_threshold_names_the_calibrated_one() -> None:
    dof = fitted(epsilon=1e-9, windows_at_once=8)
    with pytest.raises(MethodError, match=r"0 of \d+ .*1e-09 \(fixed\); calibrated on held-out real data it is 0\.\d"):
        dof.generate(DATA, Run(seeds=(1,), budget=Budget(amount=20)))


def test_the_calibrated_threshold_is_used_where_none_is_given(dof: DoF) -> None:
    calibrated = DoF.from_params({**DoF.tiny_params, "epsilon": None, "quantile": 1.0, "windows_at_once": 64})
    calibrated.load_state(dof.state(), DATA.spec)
    held_out = HeldOutWindows.from_arrays(dof.state())
    inside = np.arange(7) < held_out.lengths[:, None]
    mean_squares = (held_out.errors.mean(axis=2) / 5 * inside).sum(axis=1) / inside.sum(axis=1)
    with suppress(MethodError):  # a network trained for a moment may be worse than that
        calibrated.generate(DATA, Run(seeds=(1,), budget=Budget(amount=20)))
    assert calibrated.diagnosis()["generation"]["threshold"] == pytest.approx(mean_squares.max(), rel=1e-5)
    assert calibrated.diagnosis()["generation"]["threshold_kind"] == "calibrated"


def test_a_threshold_calibrated_on_generated_windows_lets_the_asked_share_pass(dof: DoF) -> None:
    params = {"epsilon": None, "calibrate": "generated", "quantile": 0.5, "windows_at_once": 128}
    generated = DoF.from_params({**DoF.tiny_params, **params})
    generated.load_state(dof.state(), DATA.spec)
    generated.generate(DATA, Run(seeds=(1,), budget=Budget(amount=500)))
    told = generated.diagnosis()["generation"]
    assert told["threshold_kind"] == "generated"
    assert 0.35 < told["acceptance_rate"] < 0.65


def test_nothing_can_be_generated_before_a_fit() -> None:
    with pytest.raises(UsageError, match="Call `fit`"):
        DoF.tiny().generate(DATA, Run(seeds=(0,), budget=Budget(amount=5)))


def test_an_unknown_factorisation_is_refused() -> None:
    with pytest.raises(UsageError, match="concat or wconcat"):
        DoF.tiny({"factorisation": "qmix"})
