"""MADiTS and its ablations, on networks that were trained for a moment: what is kept, drawn again, and given up."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.augmenters.madits import MADiTS
from methods.base import Budget, DiffusionBudget, Run
from methods.diffusion.known import Known, RepaintConditioning
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import NoiseSource, numpy_noise
from methods.diffusion.schedule import CosineSchedule
from methods.synthesis.model_policy import ModelPolicy
from methods.synthesis.stitch_policy import Jobs
from tasks.common.errors import MethodError, UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.views import SegmentBatch, segments

LIMIT = 6  # of the sample datasets: one window of 8 rows reaches beyond it
DATA = sample_dataset("continuous", episodes=20).without_privileged()
RUN = Run(seeds=(3,), budget=Budget(amount=60))


@cache
def fitted(shape: str = "continuous", horizon: int = 4) -> MADiTS:
    augmenter = MADiTS.tiny({"horizon": horizon})
    augmenter.fit(sample_dataset(shape, episodes=20).without_privileged(), RUN)
    return augmenter


def variant(shape: str = "continuous", **params: Any) -> MADiTS:
    """Another generation from the same fit."""
    base = fitted(shape)
    augmenter = MADiTS(replace(base.config, **params))
    augmenter.load_state(base.state(), sample_dataset(shape).spec)
    return augmenter


def generate(augmenter: MADiTS, **budget: Any) -> tuple[OfflineDataset, dict[str, Any]]:
    run = replace(RUN, budget=replace(RUN.budget, **budget))
    data = augmenter.generate(DATA, run)
    return data, augmenter.diagnosis()["generation"]


def test_with_a_threshold_of_infinity_every_window_counts_whole() -> None:
    data, told = generate(variant(partial_noising=False))
    assert data.lengths.tolist() == [LIMIT] * 10
    assert told["valid_beyond_step"] == [1.0, 1.0, 1.0]
    assert told["windows"] == told["accepted"] == 20  # two windows of three transitions each
    assert told["second_passes"] == told["episodes_discarded"] == 0
    assert told["threshold"] is None
    assert told["threshold_kind"] == "fixed"


def test_with_a_threshold_of_zero_every_attempt_is_given_up() -> None:
    augmenter = variant(delta=0.0)
    with pytest.raises(MethodError) as error:
        generate(augmenter)
    message = str(error.value)
    assert "madits: none of the last" in message
    assert "0 of " in message
    assert "threshold is 0 (fixed)" in message
    assert f"held-out real data it is {fitted()._model.thresholds['transition']['sse']['0.99']:.4g}" in message  # type: ignore[union-attr]


def test_ablations_differ_in_generation_alone() -> None:
    for name in ("madits-no-dc", "madits-no-pn", "madits-no-dc-pn"):
        entry = AUGMENTERS.entry(name)
        assert AUGMENTERS.load(name) is MADiTS
        assert set(entry.params) <= MADiTS.generation_fields
    assert not {"circular_shift", "gamma", "updates", "horizon", "width"} & MADiTS.generation_fields


def test_without_the_constraint_nothing_is_rejected() -> None:
    _, told = generate(variant(delta=0.0, dynamics_constraint=False))
    assert told["threshold_kind"] == "none"
    assert told["rejected"] == {}
    assert told["second_passes"] > 0
    _, told = generate(variant(delta=0.0, dynamics_constraint=False, partial_noising=False))
    assert told["second_passes"] == 0


def test_calibrated_threshold_is_the_quantile_of_real_transitions() -> None:
    augmenter = variant(delta=None, quantile=0.9, metric="l2")
    report = augmenter.new_report(augmenter.model_on("cpu"))
    assert report.threshold_kind == "calibrated"
    assert report.threshold == augmenter.model_on("cpu").thresholds["transition"]["l2"]["0.9"]
    with pytest.raises(UsageError, match="quantile=0.42, expected one of 0.5, 0.9"):
        variant(quantile=0.42)


def test_threshold_of_generated_windows_lets_their_share_pass() -> None:
    """A model that was trained for a moment passes no test of real data, but always its own."""
    patient = {"failures_in_a_row": 50, "total_failures": 50}
    own = variant(delta=None, calibrate="generated", quantile=0.5, partial_noising=False, **patient)
    _, told = generate(own, amount=300)
    assert told["threshold_kind"] == "generated"
    assert told["threshold"] > told["calibrated_threshold"]
    first, second = told["valid_beyond_step"][:2]
    assert 0.2 < second < first < 0.8
    _, told = generate(variant(calibrate="generated", delta=0.5, dynamics_constraint=False))
    assert told["threshold_kind"] == "none"


@pytest.mark.parametrize(
    "params",
    [
        {"metric": "norm"},
        {"credit": "shapley"},
        {"pn_known": "x"},
        {"delta": -1.0},
        {"delta_rank": "auto"},
        {"start": "last"},
        {"calibrate": "never"},
        {"quantile": 0.42},
        {"slots": 0},
        {"failures_in_a_row": 0},
    ],
    ids=str,
)
def test_impossible_configs_are_refused(params: dict[str, Any]) -> None:
    (name,) = params
    with pytest.raises(UsageError, match=f"{name}="):
        MADiTS.from_params(params)


@pytest.mark.parametrize("pn_known", ["clamp", "repaint"])
def test_partial_noising_leaves_the_others_as_they_are(pn_known: str) -> None:
    policy, windows, jobs = first_pass(variant(pn_known=pn_known, delta_rank=2.0))
    verdict = policy.judge(windows, jobs)
    kept = np.full(len(windows), 2)
    mask = policy.known_again(windows, verdict, kept)
    assert mask is not None
    assert mask[:, 0].all()
    assert not mask[:, 3:].any()  # beyond what is kept nothing is known
    weak = ~mask[:, 1]  # (B, N)
    assert torch.equal(mask[:, 2], ~weak)
    assert weak.any()
    assert not weak.all()
    second = replace(jobs, known=Known(windows, mask), second=np.ones(len(windows), dtype=np.bool_), usable=kept)
    again = policy.sample(second, noise(8))
    assert torch.equal(again[mask], windows[mask])
    assert not torch.isclose(again, windows)[:, 1:][weak[:, None].expand(-1, 3, -1)].all(dim=-1).any()


def test_who_is_drawn_again_contributes_least() -> None:
    augmenter = variant(delta_rank=2.0, credit="rtg", credit_steps=64)
    policy, windows, jobs = first_pass(augmenter)
    mask = policy.known_again(windows, policy.judge(windows, jobs), np.full(len(windows), 2))
    assert mask is not None
    model, actions = augmenter.model_on("cpu"), policy.judge(windows, jobs).actions
    difference = to_go_gradient(model, windows, actions)  # (B, N): the credit of the first of two transitions
    for b in range(len(windows)):
        weak = ~mask[b, 1]
        ranks = difference[b].argsort().argsort() + 1
        assert torch.equal(weak, ranks < 2)


def to_go_gradient(model: SegmentModel, windows: Tensor, actions: Tensor) -> Tensor:
    """(B, N) integrated gradients between points 0 and 1 on a fine grid, one agent after another."""
    points = torch.cat([windows[:, :2], actions[:, :2]], dim=-1)
    total = torch.zeros(points[:, 0].shape[:2])
    for alpha in (torch.arange(64) + 0.5) / 64:
        at = (points[:, 1] + alpha * (points[:, 0] - points[:, 1])).requires_grad_()
        value = model.return_to_go(at[..., : model.features], at[..., model.features :])
        (gradient,) = torch.autograd.grad(value.sum(), at)
        total += ((points[:, 0] - points[:, 1]) * gradient).sum(-1) / 64
    return total


def noise(seed: int) -> NoiseSource:
    return numpy_noise(np.random.Generator(np.random.Philox(seed)), "cpu")


def first_pass(augmenter: MADiTS, batch: int = 6) -> tuple[ModelPolicy, Tensor, Jobs]:
    model = augmenter.model_on("cpu")
    sampler = make_sampler("ddpm", CosineSchedule(4), 4)
    policy = augmenter.policy(model, DATA, sampler, augmenter.new_report(model))
    starts = model.encode(DATA.observations[DATA.row_starts[:batch]])
    jobs = Jobs(
        known=Known.first_row(starts, 4),
        condition=policy.first_condition(starts),
        second=np.zeros(batch, dtype=np.bool_),
        usable=np.full(batch, 3),
    )
    return policy, policy.sample(jobs, noise(7)), jobs


def test_guidance_in_the_papers_own_words_is_one_more() -> None:
    assert first_pass(variant())[0].draw.guidance == 1.2
    assert first_pass(variant(cfg_text_convention=True))[0].draw.guidance == 2.2


def test_repainting_keeps_the_first_row_clean() -> None:
    known = Known.first_row(torch.ones(2, 3, 5), 4)
    x = torch.zeros(2, 4, 3, 5)
    seen = RepaintConditioning(level="repaint").before_call(x, known)
    assert torch.equal(seen[:, 0], torch.ones(2, 3, 5))
    assert not seen[:, 1:].any()


def test_single_slots_and_wide_batches_give_the_same_episodes() -> None:
    """Up to float error, which the noisiest step magnifies; the engine's own test is exact."""
    wide, _ = generate(variant(), amount=24)
    single, _ = generate(variant(slots=1), amount=24)
    assert wide.lengths.tolist() == single.lengths.tolist() == [LIMIT] * 4
    for name in ("observations", "actions", "rewards"):
        difference = np.abs(getattr(wide, name) - getattr(single, name))
        assert np.median(difference) < 1e-4
        assert difference.max() < 0.1


def test_protocol_fixes_the_sampler() -> None:
    _, told = generate(variant(), diffusion=DiffusionBudget(sampler="ddim", sampling_steps=3))
    assert told["sampler"] == {"name": "ddim", "steps": 3}


def test_as_many_episodes_as_the_data_have_without_an_amount() -> None:
    data, _ = generate(variant(), amount=None)
    assert data.n_episodes == DATA.n_episodes


def test_progress_counts_up_to_what_is_wanted() -> None:
    seen: list[tuple[int, int]] = []
    run = replace(RUN, progress=lambda done, total, message: seen.append((done, total)))
    variant().generate(DATA, run)
    assert seen[0] == (0, 60)
    assert seen[-1] == (60, 60)
    with pytest.raises(TimeoutError):
        variant().generate(DATA, replace(RUN, deadline=0.0))


def test_the_dead_stay_dead_and_lie_on_zeros() -> None:
    augmenter = variant("states-and-deaths")
    data = sample_dataset("states-and-deaths", episodes=20).without_privileged()
    result = augmenter.generate(data, RUN)
    assert result.alive is not None
    for episode in result.episodes():
        assert (np.diff(episode["alive"].astype(int), axis=0) <= 0).all()
        assert not episode["observations"][~episode["alive"]].any()


# -- credit of real windows ---------------------------------------------------------------------------------------


def windows_of(data: OfflineDataset, count: int = 5) -> SegmentBatch:
    return segments(data, 4, padded=True).gather(np.arange(count) + 2)


@pytest.mark.parametrize("shape", ["continuous", "discrete"])
def test_contributions_sum_to_what_the_function_loses(shape: str) -> None:
    data = sample_dataset(shape, episodes=20).without_privileged()
    augmenter = replace_config(variant(shape), credit_steps=1024)
    windows, model = windows_of(data), augmenter.model_on("cpu")
    x, a = model.encode(windows.observations), model.encode_actions(windows.actions)
    last = windows.step_valid.sum(axis=1) - 1
    for credit, function in (("rtg", model.return_to_go), ("reward", model.reward)):
        found = augmenter.contributions(data, windows, credit)
        values = function(x, a).detach().numpy()
        rows = np.arange(len(last))
        np.testing.assert_allclose(found[:, 0].sum(-1), values[:, 0] - values[rows, last], atol=2e-3)
        assert not found[~windows.step_valid].any()


def replace_config(augmenter: MADiTS, **params: Any) -> MADiTS:
    other = MADiTS(replace(augmenter.config, **params))
    other._model = augmenter._model
    return other


def test_credit_follows_the_config_and_knows_all_three_functions() -> None:
    windows = windows_of(DATA)
    found = {credit: variant(credit=credit).credit(DATA, windows) for credit in MADiTS.credit_functions}
    for credit, values in found.items():
        assert values.shape == (5, 3)
        np.testing.assert_array_equal(values, variant().contributions(DATA, windows, credit)[:, 0])
        np.testing.assert_array_equal(values, variant().credit(DATA, windows, credit))
    assert not np.allclose(found["rtg"], found["reward"])
    assert not np.allclose(found["reward"], found["reward_sum"])
    with pytest.raises(UsageError, match="credit=shapley"):
        variant().contributions(DATA, windows, "shapley")
