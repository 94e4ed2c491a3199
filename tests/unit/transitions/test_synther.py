"""`synther`: agents by themselves, the two other modes, what is learned of a known law, amounts and chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from benchmark.checks.sample_data import sample_spec
from methods.augmenters.synther import SynthER
from methods.base import Budget, Run
from methods.networks.token_groups import TokenGroups
from methods.run import TransitionBudget
from methods.transitions.denoising import GroupedMLP
from tasks.common.errors import MethodError, UsageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.transitions.toy import facts, toy

DATA = sample_dataset("discrete").without_privileged()
LEARNING = TransitionBudget(width=64, updates=600, batch_size=128, learning_rate=2e-3, sampling_steps=16)


def fitted(data: OfflineDataset = DATA, run: Run | None = None, **params: Any) -> SynthER:
    augmenter = SynthER.tiny(params)
    augmenter.fit(data, Run(seeds=(0,)) if run is None else run)
    return augmenter


def normal(seed: int, *shape: int) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(seed))
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("apart", [True, False])
def test_no_token_feeds_another(apart: bool) -> None:
    generators = [np.random.Generator(np.random.Philox(seed)) for seed in (0, 1)]
    network = GroupedMLP(TokenGroups(3, apart=apart, ids=not apart), 4, 16, generators)
    x, c = normal(2, 2, 5, 3, 4), normal(3, 2, 5, 3)
    moved = x.clone()
    moved[:, :, 1] += 1
    before, after = network(x, c), network(moved, c)
    assert torch.equal(before[:, :, [0, 2]], after[:, :, [0, 2]])
    assert (before[:, :, 1] != after[:, :, 1]).all()
    same = x[:, :, :1].expand(-1, -1, 3, -1)
    level = c[:, :, :1].expand(-1, -1, 3)
    found = network(same, level)
    assert not torch.allclose(found[:, :, 0], found[:, :, 1])  # weights of its own, or an index that tells it apart


def test_groups_there_and_back() -> None:
    x = normal(0, 2, 5, 3, 4)
    for apart in (True, False):
        groups = TokenGroups(3, apart=apart)
        assert torch.equal(groups.split(groups.join(x)), x)
        losses = x[..., 0]
        mean = losses.mean(dim=1).flatten() if apart else losses.mean(dim=(1, 2))
        torch.testing.assert_close(groups.per_group(losses), mean)


@pytest.mark.parametrize(("mode", "apart"), [("per_agent", True), pytest.param("joint", False, marks=pytest.mark.slow)])
def test_a_known_law_is_learned_within_agents_and_between_them_only_jointly(mode: str, apart: bool) -> None:
    data = toy()
    run = Run(seeds=(0,), budget=Budget(amount=2000, transition=LEARNING))
    augmenter = SynthER.from_params({"agent_mode": mode})
    augmenter.fit(data, run)
    found, real = facts(augmenter.generate(data, run)), facts(data)
    assert found["mean"] == pytest.approx(real["mean"], abs=0.25)
    assert found["deviation"] == pytest.approx(real["deviation"], rel=0.15)
    assert found["motion error"] < 0.2
    assert (abs(found["between agents"]) < 0.1) == apart
    assert (found["between agents"] > 0.95) != apart


def test_the_batch_depends_on_the_size_of_the_data() -> None:
    augmenter = SynthER()
    assert augmenter.plan(799_999).batch_size == 256
    assert augmenter.plan(800_000).batch_size == 1024
    assert SynthER.from_params({"batch_size": 7}).plan(10**6).batch_size == 7


def test_the_protocol_wins_and_the_average_keeps_its_share() -> None:
    budget = TransitionBudget(width=8, updates=20, batch_size=5, learning_rate=0.01, sampling_steps=4)
    run = Run(seeds=(0,), budget=Budget(amount=3, transition=budget))
    augmenter = fitted(run=run, updates=200)
    augmenter.generate(DATA, run)
    told = augmenter.diagnosis()
    found = {name: told["compute"][name] for name in ("width", "updates", "batch_size", "learning_rate")}
    assert found == {"width": 8, "updates": 20, "batch_size": 5, "learning_rate": 0.01}
    assert told["generation"]["sampler"] == {"name": "edm_heun", "steps": 4, "evaluations": 7}
    assert told["generation"]["transitions"] == 3


@pytest.mark.parametrize(
    ("choice", "shape", "ends"),
    [
        ("auto", "discrete", True),
        ("auto", "continuous", False),
        ("always", "continuous", True),
        ("never", "discrete", False),
    ],
)
def test_the_end_is_part_of_a_token_where_the_data_have_one(choice: str, shape: str, ends: bool) -> None:
    augmenter = fitted(sample_dataset(shape).without_privileged(), model_done=choice)
    assert augmenter.model_on("cpu").layout.done == ends


def test_without_an_amount_it_makes_its_own_and_chunks_do_not_depend_on_what_follows() -> None:
    augmenter = fitted()  # chunks of 32
    whole = augmenter.generate(DATA, Run(seeds=(1,)))
    part = augmenter.generate(DATA, Run(seeds=(1,), budget=Budget(amount=32)))
    assert whole.n_steps == 50
    np.testing.assert_array_equal(whole.observations[:64], part.observations)
    assert (whole.observations[64:66] != whole.observations[:2]).any()


def test_other_samplers_share_the_fit() -> None:
    augmenter = fitted()
    other = SynthER.tiny({"sampler": "edm_heun_det"})
    other.load_state(augmenter.state(), DATA.spec)
    run = Run(seeds=(1,))
    assert (other.generate(DATA, run).observations != augmenter.generate(DATA, run).observations).any()
    assert {"sampler", "sampling_steps", "amount"} <= SynthER.generation_fields


def test_states_are_predicted_by_a_head_or_drawn_with_the_tokens() -> None:
    data = sample_dataset("states-and-deaths").without_privileged()
    for append in (False, True):
        augmenter = fitted(data, append_state=append)
        assert augmenter.model_on("cpu").rows.has("state") != append
        augmenter.generate(data, Run(seeds=(0,))).validate()


def test_a_model_that_has_diverged_says_so() -> None:
    augmenter = fitted()
    state = {name: np.array(array) for name, array in augmenter.state().items()}
    state["module/main.network.out.bias"][0, 0, 0] = np.nan
    augmenter.load_state(state, DATA.spec)
    with pytest.raises(MethodError, match="synther: the fitted model has diverged"):
        augmenter.generate(DATA, Run(seeds=(0,)))


def test_that_it_has_is_told_after_the_fit() -> None:
    assert not fitted().diagnosis()["diverged"]
    wild = fitted(learning_rate=1e30, updates=8).diagnosis()
    assert wild["diverged"]
    assert wild["heldout_loss"] is None


def test_one_transition_is_enough_to_be_repeated() -> None:
    data = sample_dataset("one-step-episodes").without_privileged().take([0])
    found = fitted(data).generate(data, Run(seeds=(0,), budget=Budget(amount=5)))
    np.testing.assert_allclose(found.observations[0::2], data.observations[[0] * 5], atol=1e-3)
    np.testing.assert_allclose(found.observations[1::2], data.observations[[1] * 5], atol=1e-3)


def test_bad_parameters_and_an_unfitted_model_are_refused() -> None:
    for params, message in (
        ({"agent_mode": "alone"}, "per_agent or shared or joint"),
        ({"sampling_steps": 1}, "2 or more"),
        ({"model_done": "sometimes"}, "auto or always or never"),
        ({"width": 0}, "a whole number, 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            SynthER.from_params(params)
    with pytest.raises(UsageError, match="nothing was fitted"):
        SynthER.tiny().generate(DATA, Run(seeds=(0,)))


def test_replicas_hold_out_other_episodes() -> None:
    members = [SynthER.tiny(), SynthER.tiny()]
    SynthER.fit_together(members, DATA, Run(seeds=(0, 1)))
    told = [member.diagnosis() for member in members]
    assert [d["transitions"] + d["heldout_transitions"] for d in told] == [DATA.n_steps] * 2
    assert told[0]["heldout_loss"] != told[1]["heldout_loss"]


def test_heterogeneous_rewards_come_back_as_the_team_had_them() -> None:
    spec = replace(sample_spec("continuous"), team_reward="mean")
    data = replace(sample_dataset("continuous").without_privileged(), spec=spec)
    found = fitted(data).generate(data, Run(seeds=(0,)))
    assert (found.rewards == found.rewards[:, :1]).all()
