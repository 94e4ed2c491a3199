"""CODI: what is composed, how episodes are stitched under it, and what its oracle leaves in the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset, sample_spec
from methods.augmenters import AUGMENTERS
from methods.augmenters.codi import CODI, CODIConfig, PrivilegedCODI
from methods.base import Budget, DiffusionBudget, Run
from methods.diffusion.known import Known
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.schedule import CosineSchedule
from methods.diffusion.validity import transition_errors
from methods.synthesis.composed_policy import ComposedPolicy, agents_composition, team_composition
from methods.synthesis.model_policy import Draw
from methods.synthesis.stitch_policy import FailureRule, Jobs
from tasks.common.errors import DataError, UsageError
from tests.chat_server import chat_server, said

LOOSE = {"rtol": 1e-3, "atol": 1e-3}  # an untrained network after four steps of a sampler


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BASE_URL", "API_KEY", "MODEL"):
        monkeypatch.delenv(f"AUGMARL_LLM_{name}", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUGMARL_LLM_CACHE", str(tmp_path / "answers"))


@pytest.fixture(scope="module")
def model() -> SegmentModel:
    augmenter = CODI.tiny()
    augmenter.fit(sample_dataset("continuous").without_privileged(), Run(seeds=(3,)))
    return augmenter.model_on("cpu")


def known_of(model: SegmentModel, batch: int = 4) -> Known:
    rows = sample_dataset("continuous").observations[:batch]
    return Known.first_row(model.encode(rows), model.settings.horizon)


def sampled(model: SegmentModel, **options: Any) -> Tensor:
    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    generator = torch.Generator().manual_seed(0)
    sampler = make_sampler("ddim", CosineSchedule(model.settings.diffusion_steps), 4)
    return model.sample(known_of(model), target=1.1, noise=noise, sampler=sampler, **options)


# -- composition -----------------------------------------------------------------------------------------------------


def test_each_branch_gives_one_label_and_masks_the_others() -> None:
    shared = agents_composition("shared", 3, 1.2, 0.6)
    assert shared.labels.tolist() == np.eye(3).tolist()
    assert shared.mask.tolist() == np.eye(3, dtype=bool).tolist()
    assert shared.weights == pytest.approx((0.4, 0.4, 0.4))
    assert agents_composition("per_agent", 3, 1.2, 0.6).weights == (1.2, 1.2, 1.2)


def test_decoupled_counts_the_return_once() -> None:
    """ε_u + g (ε_R − ε_u) + w Σ (ε_i − ε_R), the branch of the return first."""
    composition = agents_composition("decoupled", 2, 1.2, 0.5)
    assert not composition.mask[0].any()
    eps_u, eps_r, eps = 1.0, 3.0, (4.0, 8.0)
    by_hand = eps_u + 1.2 * (eps_r - eps_u) + 0.5 * ((eps[0] - eps_r) + (eps[1] - eps_r))
    branches = (eps_r, *eps)
    assert eps_u + sum(w * (e - eps_u) for w, e in zip(composition.weights, branches, strict=True)) == pytest.approx(
        by_hand
    )
    even = agents_composition("decoupled", 2, 1.2, 0.6).weights
    assert even == pytest.approx((0.0, *agents_composition("shared", 2, 1.2, 0.6).weights))


def test_without_composition_all_labels_are_one_in_a_single_branch() -> None:
    team = team_composition(3, 1.2)
    assert (team.labels.tolist(), team.mask.tolist(), team.weights) == ([[1, 1, 1]], [[True] * 3], (1.2,))


def test_one_agent_composed_is_ordinary_guidance() -> None:
    assert asdict_of(agents_composition("shared", 1, 1.2, 0.6)) == asdict_of(team_composition(1, 1.2))
    assert asdict_of(agents_composition("per_agent", 1, 1.2, 0.6)) == asdict_of(team_composition(1, 1.2))


def asdict_of(composition: Any) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in asdict(composition).items()}


def test_equal_branches_that_share_the_weight_are_ordinary_guidance(model: SegmentModel) -> None:
    team = team_composition(3, 1.2)
    thrice = type(team)(labels=team.labels.repeat(3, 0), mask=team.mask.repeat(3, 0), weights=(0.4,) * 3)
    torch.testing.assert_close(sampled(model, composition=thrice), sampled(model, composition=team), **LOOSE)


def test_weights_of_zero_leave_the_unconditional_model(model: SegmentModel) -> None:
    some, other = agents_composition("shared", 3, 0.0, 0.6), team_composition(3, 0.0)
    torch.testing.assert_close(sampled(model, composition=some), sampled(model, composition=other), **LOOSE)


def test_the_agents_labels_are_rolled_to_begin_with_their_own(model: SegmentModel) -> None:
    composition = agents_composition("shared", 3, 1.2, 0.6)
    values = composition.labels * np.array([[0.2], [0.5], [0.9]], dtype=np.float32)
    marked = type(composition)(labels=values, mask=composition.mask, weights=composition.weights)
    inputs = marked.inputs("cpu")  # (1 + C, N, 2N): z m and m, for the unconditional branch first
    assert (inputs[0] == 0).all()
    for branch, value in enumerate((0.2, 0.5, 0.9)):
        own = inputs[1 + branch, branch]
        assert own.tolist() == pytest.approx([value, 0, 0, 1, 0, 0])  # the agent that the branch is about
        nxt = inputs[1 + branch, (branch - 1) % 3]
        assert nxt.tolist() == pytest.approx([0, value, 0, 0, 1, 0])  # its left neighbour sees it in second place


def test_everything_masked_is_the_unconditional_estimate(model: SegmentModel) -> None:
    x, k = torch.randn(1, 2, 8, 3, 5), torch.zeros(1, 2, dtype=torch.int64)
    returns, keep = torch.tensor([[[0.3] * 3, [0.9] * 3]]), torch.zeros(1, 2, 3, dtype=torch.bool)
    nothing = torch.zeros(1, 2, 3, 6)
    first = model.denoise(x, k, returns, keep, nothing)
    torch.testing.assert_close(model.denoise(x, k, returns + 5, keep, nothing), first)
    assert not torch.allclose(model.denoise(x, k, returns, ~keep, nothing), first)


def test_labels_reach_the_samples(model: SegmentModel) -> None:
    composed, team = agents_composition("shared", 3, 1.2, 0.6), team_composition(3, 1.2)
    assert not torch.allclose(sampled(model, composition=composed), sampled(model, composition=team))


# -- stitching -------------------------------------------------------------------------------------------------------


def policy_of(model: SegmentModel, threshold: float, whole: bool = True) -> ComposedPolicy:
    sampler = make_sampler("ddim", CosineSchedule(model.settings.diffusion_steps), 2)
    return ComposedPolicy(
        model,
        Draw(sampler=sampler, target=1.1, guidance=1.2),
        composition=team_composition(3, 1.2),
        whole_windows=whole,
        threshold=threshold,
        metric="sse",
        failures=FailureRule(in_a_row=4),
    )


def jobs_of(model: SegmentModel, usable: list[int]) -> Jobs:
    batch = len(usable)
    return Jobs(
        known=known_of(model, batch),
        condition=torch.full((batch,), 1.1),
        second=np.zeros(batch, dtype=np.bool_),
        usable=np.asarray(usable),
    )


def test_a_window_counts_whole_or_not_at_all(model: SegmentModel) -> None:
    candidates = torch.rand(20, 8, 3, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1
    errors, _ = transition_errors(model, candidates)
    chosen = int((errors[:, 3:6].amax(dim=1) / errors[:, :3].amax(dim=1)).argmax())
    threshold = 1.001 * float(errors[chosen, :3].max())
    first_bad = int((errors[chosen] > threshold).int().argmax())
    assert 3 <= first_bad < 6
    windows = candidates[chosen].repeat(3, 1, 1, 1)
    jobs = jobs_of(model, [7, first_bad + 1, first_bad])
    assert policy_of(model, threshold).judge(windows, jobs).valid.tolist() == [0, 0, first_bad]
    assert policy_of(model, threshold, whole=False).judge(windows, jobs).valid.tolist() == [first_bad] * 3


def test_the_return_to_go_falls_by_what_was_collected(model: SegmentModel) -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]) * model.returns_scale
    after = policy_of(model, 1.0).condition_after(torch.tensor([9.0, 9.0]), rewards, np.array([2, 3]))
    torch.testing.assert_close(after, torch.tensor([6.0, 2.0]))


def test_an_episode_is_abandoned_after_the_new_draws_that_are_allowed(model: SegmentModel) -> None:
    augmenter = CODI.tiny({"max_resample": 2})
    sampler = make_sampler("ddim", CosineSchedule(4), 2)
    policy = augmenter.policy(model, sample_dataset("continuous"), sampler, augmenter.new_report(model))
    assert policy.failures == FailureRule(total=None, in_a_row=3)  # the first draw and two more


def test_the_return_is_not_discounted_and_the_reward_sees_the_next_observation() -> None:
    settings = CODI.tiny().settings(sample_spec("continuous"))
    assert (settings.gamma, settings.labels, settings.reward_next) == (1.0, True, True)
    assert (settings.inverse_scope, settings.dynamics_scope) == ("joint", "joint")


# -- variants and configs --------------------------------------------------------------------------------------------


def test_the_variant_without_composition_shares_the_fit_and_the_privileged_one_does_not() -> None:
    codi, ablation, privileged = (AUGMENTERS.entry(name) for name in ("codi", "codi-no-com", "codi-priv"))
    assert codi.target == ablation.target != privileged.target
    assert set(ablation.params) <= CODI.generation_fields
    assert (CODI.privileged, PrivilegedCODI.privileged) == (False, True)


def test_auto_is_resolved_before_anything_is_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CODIConfig()
    assert (config.oracle, config.model) == ("heuristic", "")
    monkeypatch.setenv("AUGMARL_LLM_API_KEY", "sk-secret")
    assert (CODIConfig().oracle, CODIConfig().model) == ("llm", "gpt-4o-mini")
    monkeypatch.setenv("AUGMARL_LLM_MODEL", "llama3")
    assert (CODIConfig().model, CODIConfig(model="mine").model) == ("llama3", "mine")
    assert CODIConfig(oracle="heuristic").oracle == "heuristic"
    assert PrivilegedCODI().config.oracle == "privileged"
    assert "sk-secret" not in json.dumps(asdict(CODIConfig()))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"oracle": "privileged"}, "codi-priv has these labels"),
        ({"oracle": "oracle"}, "no oracle 'oracle'"),
        ({"model": "gpt"}, "oracle=llm beside it"),
        ({"comp_weights": "equal"}, "comp_weights=equal"),
        ({"label_mode": "mixed"}, "soft or hard"),
        ({"resample": "part"}, "window or suffix"),
        ({"labeller": "mlp"}, "joint or per_agent"),
        ({"labelled_share": 0.0}, "labelled_share=0.0"),
        ({"max_labels": 0}, "max_labels=0"),
        ({"max_resample": -1}, "max_resample=-1"),
        ({"quantile": 0.3}, "quantile=0.3"),
        ({"metric": "max"}, "metric=max"),
        ({"delta": -1.0}, "delta=-1.0"),
    ],
)
def test_senseless_configs_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CODI.from_params(params)
    with pytest.raises(UsageError, match="oracle=heuristic, expected privileged"):
        PrivilegedCODI.from_params({"oracle": "heuristic"})


# -- the whole -------------------------------------------------------------------------------------------------------


def test_the_labelling_is_in_the_diagnosis() -> None:
    augmenter, data = CODI.tiny(), sample_dataset("continuous").without_privileged()
    augmenter.fit(data, Run(seeds=(3,)))
    labelling = augmenter.diagnosis()["labelling"]
    assert (labelling["oracle"], labelling["rule"], labelling["shown"]) == ("heuristic", "credit", 8)
    assert labelling["labeller"]["chance"] == pytest.approx(1 / 3)
    run = Run(seeds=(3,), budget=Budget(amount=12, diffusion=DiffusionBudget(sampler="ddim", sampling_steps=2)))
    augmenter.generate(data, run)
    assert augmenter.diagnosis()["generation"]["acceptance_rate"] > 0
    json.dumps(augmenter.diagnosis(), allow_nan=False)


def test_replicas_fitted_together_have_labels_of_their_own() -> None:
    data = sample_dataset("continuous").without_privileged()
    members = [CODI.tiny(), CODI.tiny()]
    CODI.fit_together(members, data, Run(seeds=(3, 4)))
    alone = CODI.tiny()
    alone.fit(data, Run(seeds=(4,)))
    assert members[1].diagnosis()["labelling"] == alone.diagnosis()["labelling"]
    assert members[0].diagnosis()["labelling"] != members[1].diagnosis()["labelling"]
    for name, array in alone.state().items():
        if name.startswith("denoiser/"):
            np.testing.assert_allclose(members[1].state()[name], array, atol=1e-4)


@pytest.fixture
def agent_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An endpoint that finds agent 2 the best one, named by the environment."""
    pytest.importorskip("openai")
    with chat_server(lambda number, document: said('They differ. {"agent": 2}')) as server:
        monkeypatch.setenv("AUGMARL_LLM_BASE_URL", server.base_url)
        monkeypatch.setenv("AUGMARL_LLM_MODEL", "local-model")
        monkeypatch.setenv("AUGMARL_LLM_REQUESTS_PER_MINUTE", "1000000")
        yield server


def test_an_endpoint_drives_the_whole_fit(agent_two: Any) -> None:
    augmenter, data = CODI.tiny({"oracle": "auto"}), sample_dataset("continuous").without_privileged()
    assert augmenter.config.oracle == "llm"
    run = Run(seeds=(3,), budget=Budget(amount=20))
    augmenter.fit(data, run)
    labelling = augmenter.diagnosis()["labelling"]
    assert (labelling["model"], labelling["decided"], labelling["asked"]) == ("local-model", 8, 8)
    assert augmenter.generate(data, run).n_steps >= 20
    CODI.tiny({"oracle": "llm"}).fit(data, run)  # a second fit finds its answers on disk
    assert len(agent_two.requests) == 8


def test_without_an_endpoint_the_error_comes_before_any_training() -> None:
    with pytest.raises(UsageError, match=r"AUGMARL_LLM_BASE_URL.*oracle=heuristic"):
        CODI.tiny({"oracle": "llm"}).fit(sample_dataset("continuous").without_privileged(), Run(seeds=(3,)))


def test_rows_that_are_not_finite_are_told_before_anybody_is_asked() -> None:
    data = sample_dataset("continuous").without_privileged()
    observations = data.observations.copy()
    observations[5, 1, 2] = np.nan
    with pytest.raises(DataError, match="'observations'"):
        CODI.tiny({"oracle": "llm"}).fit(data.replace(observations=observations), Run(seeds=(3,)))


def test_the_privileged_one_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="`behaviour` column"):
        PrivilegedCODI.tiny().fit(sample_dataset("continuous").without_privileged(), Run(seeds=(3,)))
