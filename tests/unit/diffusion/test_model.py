"""A fitted model: sampling around what is known, guidance by returns and labels, and storing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Run
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.known import Known
from methods.diffusion.model import Composition, SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.settings import HEADS, SegmentSettings
from tasks.common.errors import MethodError, UsageError
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]
STEPS = 10


@pytest.fixture
def fit(tiny: Make, episodes: Episodes) -> Callable[..., SegmentModel]:
    """A model of some continuous episodes; keywords are settings."""

    def make(**given: Any) -> SegmentModel:
        settings = tiny(**{"heads": ("inverse", "dynamics"), "updates": 3, "head_updates": 2, **given})
        labels = (
            [np.random.default_rng(1).dirichlet(np.ones(3), size=23).astype(np.float32)] if settings.labels else None
        )
        return fit_segment_models(settings, episodes(), Run(seeds=(3,)), labels)[0]

    return make


def draw(model: SegmentModel, known: Known, seed: int = 0, **given: Any) -> Tensor:
    """Three sampling steps, target 1."""
    sampler = make_sampler("ddpm", CosineSchedule(STEPS), 3)
    given = {"target": 1.0, **given}
    return model.sample(known, noise=numpy_noise(np.random.default_rng(seed), "cpu"), sampler=sampler, **given)


def starts(batch: int = 5) -> Known:
    """Random first rows of three agents with three features."""
    rows = np.random.default_rng(9).uniform(-1, 1, (batch, 3, 3)).astype(np.float32)
    return Known.first_row(torch.from_numpy(rows), 8)


def test_known_rows_are_kept_and_others_are_drawn(fit: Callable[..., SegmentModel]) -> None:
    model, known = fit(), starts()
    x = draw(model, known)
    assert x.shape == (5, 8, 3, 3)
    assert torch.equal(x[:, 0], known.values[:, 0])
    assert float(x.abs().max()) <= 1
    assert torch.equal(draw(model, known), x)
    assert not torch.equal(draw(model, known, seed=1), x)


def test_slices_and_their_size_change_nothing(fit: Callable[..., SegmentModel]) -> None:
    model, known = fit(), starts()
    torch.testing.assert_close(draw(model, known, batch_size=2), draw(model, known), atol=1e-4, rtol=0)


def test_guidance_mixes_what_is_seen_with_and_without_the_return(fit: Callable[..., SegmentModel]) -> None:
    model, known = fit(updates=20, learning_rate=1e-2), starts()
    without = draw(model, known, guidance=0.0)
    assert torch.equal(draw(model, known, guidance=0.0, target=7.0), without)  # blind to the return
    conditional = draw(model, known, guidance=1.0)
    assert not torch.equal(conditional, without)
    assert not torch.equal(draw(model, known, guidance=1.0, target=7.0), conditional)


def test_an_unconditional_branch_that_keeps_the_condition_is_no_guidance(fit: Callable[..., SegmentModel]) -> None:
    model, x, given = fit(), starts().values, torch.ones(5, 3, dtype=torch.bool)
    conditional = model.denoise(x[None], torch.full((1, 5), 4), torch.ones(1, 5, 3), given[None])[0]
    inert = model._guided(4, None, (1.7,), x, torch.ones(5, 3), given)
    torch.testing.assert_close(inert, conditional, atol=1e-4, rtol=0)
    assert not torch.equal(draw(model, starts(), null_dropout=0.25), draw(model, starts()))


def test_a_target_may_be_one_a_window_or_an_agent(fit: Callable[..., SegmentModel]) -> None:
    model, known = fit(), starts()
    expected = draw(model, known, target=0.5)
    assert torch.equal(draw(model, known, target=torch.full((5,), 0.5)), expected)
    assert torch.equal(draw(model, known, target=torch.full((5, 3), 0.5)), expected)


def composition(*weights: float) -> Composition:
    """Branch i: agent i plays well, of the others nothing is said."""
    one = np.eye(3)[: len(weights)]
    return Composition(labels=one.astype(np.float32), mask=one.astype(np.bool_), weights=weights)


def test_labels_guide_by_composition(fit: Callable[..., SegmentModel]) -> None:
    model, known = fit(labels=True, updates=20, learning_rate=1e-2), starts()
    nobody = draw(model, known, composition=composition(0.0, 0.0, 0.0))
    again = draw(model, known, composition=composition(0.0), target=7.0)  # blind to the return
    torch.testing.assert_close(again, nobody, atol=1e-4, rtol=0)
    assert not torch.equal(draw(model, known, composition=composition(1.0)), nobody)
    # Branches that are alike share a weight as one of them would have it.
    alike = Composition(labels=np.ones((3, 3), np.float32), mask=np.ones((3, 3), np.bool_), weights=(0.4, 0.4, 0.4))
    one = Composition(labels=np.ones((1, 3), np.float32), mask=np.ones((1, 3), np.bool_), weights=(1.2,))
    together, alone = draw(model, known, composition=alike), draw(model, known, composition=one)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_labels_follow_a_rotation_of_the_agents(fit: Callable[..., SegmentModel]) -> None:
    # The network treats agents alike: praising agent 1 of rotated agents is praising agent 0 before the rotation.
    model, known = fit(labels=True, updates=20, learning_rate=1e-2), starts()
    k, returns, none = 4, torch.ones(5, 3), torch.zeros(5, 3, dtype=torch.bool)
    first, second = (
        Composition(labels=np.eye(3, dtype=np.float32)[[i]], mask=np.eye(3, dtype=np.bool_)[[i]], weights=(1.0,))
        for i in (0, 1)
    )
    x = known.values
    before = model._guided(k, first.inputs("cpu"), (1.0,), x, returns, none)
    after = model._guided(k, second.inputs("cpu"), (1.0,), x.roll(1, dims=2), returns, none)
    torch.testing.assert_close(after, before.roll(1, dims=2), atol=1e-4, rtol=0)


def test_a_composition_is_for_labels(fit: Callable[..., SegmentModel]) -> None:
    with pytest.raises(UsageError, match="one iff the model was fitted with labels"):
        draw(fit(), starts(), composition=composition(1.0))


def test_a_diverged_model_is_not_sampled(fit: Callable[..., SegmentModel]) -> None:
    model = fit()
    arrays = {name: np.array(array) for name, array in model.arrays().items()}
    arrays["denoiser/unet.head.bias"][:] = np.nan
    broken = SegmentModel.from_arrays(arrays, model.spec, "cpu")
    assert broken.diverged
    with pytest.raises(MethodError, match="diverged"):
        draw(broken, starts())


@pytest.mark.parametrize(
    "given", [{}, {"wconcat": True, "attention": False}, {"prediction": "velocity", "first_skip": True}]
)
def test_arrays_restore_the_model_to_the_bit(fit: Callable[..., SegmentModel], given: dict[str, Any]) -> None:
    model, known = fit(**given), starts()
    again = SegmentModel.from_arrays(model.arrays(), model.spec, "cpu")
    assert torch.equal(draw(again, known), draw(model, known))
    assert again.settings == model.settings
    of_the_run = ("seconds", "precision")
    assert again.diagnosis == {name: told for name, told in model.diagnosis.items() if name not in of_the_run}
    assert again.thresholds == model.thresholds
    x = known.values
    assert torch.equal(again.forward_dynamics(x, again.act(x, x)), model.forward_dynamics(x, model.act(x, x)))
    np.testing.assert_array_equal(again.held_out, model.held_out)


def test_a_discrete_model_is_restored_with_all_heads(tiny: Make, episodes: Episodes) -> None:
    data = episodes(discrete=True)
    model = fit_segment_models(tiny(heads=HEADS, updates=1), data, Run(seeds=(3,)))[0]
    again = SegmentModel.from_arrays(model.arrays(), model.spec, "cpu")
    x = model.encode(data.observations[:4])
    for head in ("state", "value", "availability", "alive", "termination"):
        assert torch.equal(getattr(again, head)(x), getattr(model, head)(x))
    assert again.heads.names == HEADS


def test_a_model_of_observations_and_states(tiny: Make, episodes: Episodes) -> None:
    data = episodes(discrete=True)
    assert data.states is not None
    model = fit_segment_models(tiny(append_state=True, updates=1), data, Run(seeds=(3,)))[0]
    x = model.encode(data.observations[:4], data.states[:4])
    assert model.features == x.shape[-1] == 5
    np.testing.assert_allclose(model.state(x), data.states[:4], atol=1e-4)
    assert draw(model, Known.first_row(x, 8)).shape == (4, 8, 3, 5)
