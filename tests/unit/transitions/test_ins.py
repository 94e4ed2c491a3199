"""`ins`: interaction between agents, its ablations, and the selection by value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.augmenters.ins import INS
from methods.base import Budget, Run
from methods.run import TransitionBudget
from methods.transitions.selection import candidates_for
from tasks.common.errors import UsageError
from tests.unit.transitions.toy import SPEC, facts, toy

DATA = sample_dataset("discrete").without_privileged()
RUN = Run(seeds=(0,))


def fitted(**params: Any) -> INS:
    augmenter = INS.tiny(params)
    augmenter.fit(DATA, RUN)
    return augmenter


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "together"), [("sparse", True), ("none", False)])
def test_what_agents_share_is_learned_with_attention_alone(attention: str, together: bool) -> None:
    data = toy()
    budget = TransitionBudget(width=64, updates=600, batch_size=128, learning_rate=2e-3, sampling_steps=16)
    run = Run(seeds=(0,), budget=Budget(amount=1600, transition=budget))
    augmenter = INS.from_params({"attention": attention, "attn_scale": "pre"})
    augmenter.fit(data, run)
    found, real = facts(augmenter.generate(data, run)), facts(data)
    assert found["deviation"] == pytest.approx(real["deviation"], rel=0.2)
    assert found["motion error"] < 0.3
    assert (found["between agents"] > 0.9) == together
    assert (abs(found["between agents"]) < 0.3) != together
    told = augmenter.diagnosis()
    assert ("attention_one_hot" in told) == together
    assert told["generation"]["value_of_kept"] > told["generation"]["value_of_candidates"]


def test_without_attention_the_noise_of_one_agent_changes_that_agent_alone() -> None:
    model = fitted(attention="none").model_on("cpu")

    def sampled(shift: float) -> torch.Tensor:
        rng = np.random.Generator(np.random.Philox(0))

        def noise(shape: tuple[int, ...]) -> torch.Tensor:
            drawn = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
            drawn[:, 1] += shift
            return drawn

        return INS.tiny({"attention": "none"}).draw(model, RUN, 6, noise, lambda share: None)

    before, after = sampled(0.0), sampled(1.0)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1] != after[:, 1]).any()


def test_the_variants_that_differ_in_selection_share_a_fit() -> None:
    fields = INS.generation_fields
    assert {"select", "eta", "select_temperature"} <= fields
    for name, shares in (("ins-topk", True), ("ins-no-select", True), ("ins-no-sparse", False)):
        assert (set(AUGMENTERS.entry(name).params) <= fields) == shares


@pytest.mark.parametrize("select", ["softmax", "topk", "none"])
def test_candidates_compete_all_at_once(select: str) -> None:
    augmenter = fitted(select=select, eta=0.5)
    found = augmenter.generate(DATA, Run(seeds=(0,), budget=Budget(amount=70)))
    told = augmenter.diagnosis()["generation"]
    assert found.n_steps == 70
    assert told.get("candidates") == (None if select == "none" else candidates_for(70, 0.5))
    if select == "topk":
        assert told["value_of_kept"] > told["value_of_candidates"] + 0.5 * told["deviation_of_values"]


def test_keeping_everything_is_no_selection() -> None:
    augmenter, run = fitted(), Run(seeds=(0,), budget=Budget(amount=40))
    arrays = augmenter.state()
    results = []
    for params in ({"eta": 1.0}, {"select": "none"}, {"eta": 1.0, "select": "topk"}):
        other = INS.tiny(params)
        other.load_state(arrays, DATA.spec)
        results.append(other.generate(DATA, run))
    for result in results[1:]:
        np.testing.assert_allclose(result.observations, results[0].observations, atol=1e-6)
        np.testing.assert_array_equal(result.actions, results[0].actions)


def test_agents_have_an_index_only_in_teams_of_different_ones() -> None:
    mixed = replace(SPEC, agent_groups=((0,), (1,)))
    assert (INS()._agent_ids(SPEC), INS()._agent_ids(mixed)) == (0, 2)
    assert INS.from_params({"agent_ids": "always"})._agent_ids(SPEC) == 2
    assert INS.from_params({"agent_ids": "never"})._agent_ids(mixed) == 0
    fitted(agent_ids="always").generate(DATA, RUN).validate()


def test_the_defaults_are_those_of_the_table() -> None:
    plan, config = INS().plan(1000), INS().config
    assert (plan.updates, plan.batch_size, plan.learning_rate, plan.weight_decay) == (1_000_000, 1024, 2e-4, 1e-4)
    assert (config.embedding, config.heads, config.blocks, config.dropout, config.eta) == (64, 4, 2, 0.1, 0.8)
    assert INS().sampler(RUN).evaluations == 255


def test_the_value_is_stored_with_the_model() -> None:
    augmenter = fitted()
    tokens = torch.zeros(1, 4, 3, augmenter.model_on("cpu").layout.features)
    restored = INS.tiny()
    restored.load_state(augmenter.state(), DATA.spec)
    before, after = (a.model_on("cpu").module["value"](tokens) for a in (augmenter, restored))
    assert torch.equal(before, after)


def test_bad_parameters_are_refused() -> None:
    for params, message in (
        ({"select": "best"}, "softmax or topk or none"),
        ({"eta": 0.0}, "a share above 0"),
        ({"select_temperature": 0.0}, "above 0, or none"),
        ({"embedding": 10}, "a multiple of the heads"),
        ({"attention": "full"}, "sparse or dense or none"),
        ({"agent_ids": "maybe"}, "auto or always or never"),
    ):
        with pytest.raises(UsageError, match=message):
            INS.from_params(params)


class Known(torch.nn.Module):
    """In place of the network: two blocks of two heads, and what it was shown."""

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, kept: None, seen: list[torch.Tensor]) -> torch.Tensor:
        self.shown = x, c_noise
        eye, shifted = torch.eye(3), torch.eye(3).roll(1, dims=1)  # agent i attends to itself, to agent i + 1
        for second in (eye, shifted):
            seen.append(torch.stack([eye, second]).expand(1, x.shape[1], 2, 3, 3))
        return x


def test_attention_is_that_of_the_last_step_to_real_transitions() -> None:
    augmenter = fitted()
    model, network = augmenter.model_on("cpu"), Known()
    model.module["main"] = network
    steps = np.array([4, 0, 7])
    weights = augmenter.attention(DATA, steps)
    assert weights is not None
    # Three heads of four look at the agent itself, one at the next.
    assert weights == pytest.approx(np.repeat((np.eye(3) * 0.75 + np.roll(np.eye(3), 1, 1) * 0.25)[None], 3, axis=0))
    shown, level = network.shown
    tokens = model.normaliser.encode(torch.from_numpy(model.layout.assemble(DATA, steps)))
    torch.testing.assert_close(shown[0], tokens / np.sqrt(1 + 0.002**2))
    assert level.numpy() == pytest.approx(np.log(0.002) / 4)


def test_attention_of_a_fitted_model_is_a_distribution_for_each_agent() -> None:
    for kind in ("sparse", "dense"):
        weights = fitted(attention=kind).attention(DATA, np.arange(5))
        assert weights is not None
        assert weights.shape == (5, 3, 3)
        assert weights.sum(axis=-1) == pytest.approx(1.0, abs=1e-5)
        assert (weights >= 0).all()
    assert fitted(attention="none").attention(DATA, np.arange(5)) is None
    assert INS.tiny().attention(DATA, np.arange(5)) is None  # nothing was fitted
