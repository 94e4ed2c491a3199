import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.base import Budget, LearnedPolicy, Run, UnsupportedError
from methods.learners.bc import BC, CONTINUOUS, DISCRETE, BCConfig, best_episodes, exploration_after
from methods.networks.policy import AgentPolicy
from methods.synthesis.emit import as_transitions
from tasks.common.errors import MethodError, UsageError
from tasks.datasets.offline import OfflineDataset, concatenate

CONTINUOUS_DATA = sample_dataset("continuous", episodes=100).without_privileged()
DISCRETE_DATA = sample_dataset("discrete", episodes=100).without_privileged()


def fit(
    data: Sequence[OfflineDataset], config: BCConfig | None = None, run: Run | None = None, **budget: int
) -> AgentPolicy:
    run = run or Run(seeds=tuple(range(len(data))))
    return BC(config).fit(data, replace(run, budget=Budget(**{"updates": 10, "batch_size": 8, **budget})))


def parameters(policy: LearnedPolicy, replica: int = 0) -> np.ndarray:
    return np.concatenate([array.ravel() for array in policy.state(replica).values()])


# -- 50%BC ------------------------------------------------------------------------------------------------------------


def test_the_better_half_is_kept() -> None:
    assert best_episodes(np.arange(1.0, 11.0), 0.5).tolist() == [5, 6, 7, 8, 9]  # returns 6..10
    assert best_episodes(np.array([1.0, 3.0, 2.0]), 0.5).tolist() == [1, 2]  # ceil(3 / 2) = 2
    assert best_episodes(np.array([7.0, 7.0, 7.0, 7.0]), 0.5).tolist() == [0, 1]  # ties: the lower index
    returns = np.random.default_rng(0).normal(size=21)
    assert best_episodes(returns + 1000.0, 0.5).tolist() == best_episodes(returns, 0.5).tolist()


def test_fraction_one_is_plain_cloning() -> None:
    plain, all_kept = fit([CONTINUOUS_DATA]), fit([CONTINUOUS_DATA], BCConfig(keep_fraction=1.0))
    np.testing.assert_array_equal(parameters(plain), parameters(all_kept))


def test_half_is_cloning_of_the_better_half_alone() -> None:
    data = CONTINUOUS_DATA
    better = data.take(best_episodes(data.returns(), 0.5))
    run = Run(seeds=(0,), original=data)  # the same input statistics
    half = fit([data], BCConfig(keep_fraction=0.5), run)
    np.testing.assert_array_equal(parameters(half), parameters(fit([better], run=run)))
    assert not np.array_equal(parameters(half), parameters(fit([data], run=run)))


def test_ranking_by_mean_reward_spares_short_segments() -> None:
    good = CONTINUOUS_DATA.replace(rewards=np.full_like(CONTINUOUS_DATA.rewards, 1.0))
    long_, rows = good.take(range(10)), sample_dataset("continuous", episodes=10)
    short = as_transitions(rows.replace(rewards=np.full_like(rows.rewards, 2.0)), np.arange(10))
    both = concatenate([long_, short])
    run = Run(seeds=(0,), original_episodes=(10,))
    assert fit([both], BCConfig(keep_fraction=0.5), run).diagnosis(0)["share_of_synthetic_kept"] == 0.0
    by_mean = BCConfig(keep_fraction=0.5, rank="mean_reward")
    assert fit([both], by_mean, run).diagnosis(0)["share_of_synthetic_kept"] == 1.0
    assert fit([both], by_mean).diagnosis(0)["share_of_synthetic_kept"] is None  # nobody said which are synthetic


def test_single_transitions_have_no_return_to_rank_by() -> None:
    single = as_transitions(CONTINUOUS_DATA, np.arange(20))
    with pytest.raises(UnsupportedError, match="no episode has a return"):
        fit([single], BCConfig(keep_fraction=0.5))
    fit([single])  # plain cloning needs none


def test_recurrent_cloning_refuses_single_transitions_and_names_the_way_out() -> None:
    single = as_transitions(DISCRETE_DATA, np.arange(20))
    with pytest.raises(UnsupportedError, match=r"bc\[memory=none\]"):
        fit([single])
    fit([single], BCConfig(memory="none"))


def test_no_data_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no episode"):
        fit([OfflineDataset.empty(CONTINUOUS_DATA.spec)])
    with pytest.raises(UsageError, match="1 datasets for 2 seeds"):
        fit([CONTINUOUS_DATA], run=Run(seeds=(0, 1)))


# -- learning -------------------------------------------------------------------------------------------------------


def test_continuous_cloning_learns_the_recorded_rule() -> None:
    """`sample_dataset` acts by tanh of the first features, with noise of std 0.1: the best loss is near 0.01."""
    data = sample_dataset("continuous", episodes=2_000).without_privileged()
    policy = fit([data], BCConfig(learning_rate=3e-3), updates=400, batch_size=256)
    loss = policy.diagnosis(0)["final_loss"]
    assert loss is not None
    assert loss < 0.02
    fresh = sample_dataset("continuous", episodes=50, seed=5).observations[None]  # (1, B, N, D)
    actions, _ = policy.act(fresh, None)
    assert np.abs(actions - np.tanh(fresh[..., :2])).mean() < 0.08


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_discrete_cloning_learns_the_recorded_rule(memory: str) -> None:
    """`sample_dataset` takes the available action with the largest feature."""
    data = sample_dataset("discrete", episodes=1_000).without_privileged()
    config = BCConfig(memory=memory, learning_rate=5e-3)
    policy = fit([data], config, updates=250, batch_size=32 if memory == "gru" else 256)
    fresh = sample_dataset("discrete", episodes=50, seed=5)
    assert fresh.available_actions is not None
    actions, _ = policy.act(fresh.observations[None], fresh.available_actions[None])
    wish = np.where(fresh.available_actions, fresh.observations, -np.inf).argmax(axis=-1)
    assert (actions[0] == wish).mean() > 0.85


def test_a_recurrent_policy_acts_as_it_was_trained() -> None:
    """Step by step with its memory equals one unrolling over the episode with the same last actions."""
    policy = fit([DISCRETE_DATA, DISCRETE_DATA], updates=3)
    rows, mask = DISCRETE_DATA.observations[:4], DISCRETE_DATA.available_actions
    assert mask is not None
    memory, chosen = None, []
    for t in range(4):
        observations = np.broadcast_to(rows[t], (2, 1, 3, 5)).copy()
        actions, memory = policy.act(observations, np.broadcast_to(mask[t], (2, 1, 3, 5)).copy(), memory)
        chosen.append(actions)
    last = torch.from_numpy(np.stack([np.full_like(chosen[0], 5), *chosen[:-1]], axis=1))  # (R, T, B, N)
    seen = torch.from_numpy(np.broadcast_to(rows[None, :, None], (2, 4, 1, 3, 5)).copy())
    logits, _ = policy._agent(seen, last)
    expected = np.where(mask[:4][None, :, None], logits.numpy(), -np.inf).argmax(axis=-1)
    np.testing.assert_array_equal(np.stack(chosen, axis=1), expected)


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_follow_the_kind_of_actions() -> None:
    assert BCConfig().settings(CONTINUOUS_DATA.spec) == CONTINUOUS
    assert BCConfig().settings(DISCRETE_DATA.spec) == DISCRETE
    memoryless = BCConfig(memory="none").settings(DISCRETE_DATA.spec)
    assert (memoryless.batch_size, memoryless.shared, memoryless.learning_rate) == (640, True, 5e-4)
    assert BCConfig(learning_rate=1.0).settings(CONTINUOUS_DATA.spec).learning_rate == 1.0


def test_settings_are_those_of_the_sources() -> None:
    """OG-MARL's continuous_bc.yaml and OMAR's actor; OffPyMARL's default.yaml. The docs say the same."""
    assert (CONTINUOUS.memory, CONTINUOUS.shared, CONTINUOUS.normalise) == ("none", False, True)
    assert (CONTINUOUS.learning_rate, CONTINUOUS.batch_size, CONTINUOUS.max_grad_norm) == (3e-4, 32 * 20, 0.0)
    assert (DISCRETE.memory, DISCRETE.shared, DISCRETE.normalise) == ("gru", True, False)
    assert (DISCRETE.learning_rate, DISCRETE.batch_size, DISCRETE.max_grad_norm) == (5e-4, 32, 10.0)
    assert (BCConfig().hidden, BCConfig().updates) == (64, 100_000)


@pytest.mark.parametrize("data", [CONTINUOUS_DATA, DISCRETE_DATA], ids=["continuous", "discrete"])
def test_gradients_are_clipped_where_the_settings_say(data: OfflineDataset) -> None:
    """Far below Adam's epsilon (1e-8) a gradient moves nothing, so a tiny norm keeps the initial weights."""
    start = parameters(fit([data], BCConfig(learning_rate=0.0)))
    held = parameters(fit([data], BCConfig(max_grad_norm=1e-14)))
    free = parameters(fit([data], BCConfig(max_grad_norm=0.0)))
    np.testing.assert_allclose(held, start, atol=1e-7)
    assert np.abs(free - start).max() > 1e-3


def test_inputs_are_scaled_by_the_original_data() -> None:
    original = CONTINUOUS_DATA
    other = original.replace(observations=original.observations * 10 + 3)
    state = fit([other], run=Run(seeds=(0,), original=original)).state(0)
    np.testing.assert_allclose(state["scaler.mean"][0], original.observations.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(state["scaler.scale"][0], original.observations.std(axis=0) + 1e-3, rtol=1e-4)
    own = fit([other]).state(0)
    np.testing.assert_allclose(own["scaler.mean"][0], other.observations.mean(axis=0), rtol=1e-3)
    off = fit([other], BCConfig(normalise=False)).state(0)
    assert (off["scaler.mean"] == 0).all()
    assert (off["scaler.scale"] == 1).all()


def test_an_agent_of_its_own_ignores_the_others() -> None:
    policy = fit([CONTINUOUS_DATA])
    observations = CONTINUOUS_DATA.observations[None, :8].copy()
    before, _ = policy.act(observations, None)
    observations[:, :, 1] += 1.0
    after, _ = policy.act(observations, None)
    np.testing.assert_array_equal(after[:, :, [0, 2]], before[:, :, [0, 2]])
    assert not np.array_equal(after[:, :, 1], before[:, :, 1])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"memory": "lstm"}, "none or gru"),
        ({"keep_fraction": 0.0}, r"\(0, 1\]"),
        ({"batch_size": 0}, "1 or more"),
        ({"learning_rate": "fast"}, ">= 0"),
        ({"shared": 1}, "true or false"),
        ({"rank": "luck"}, "return or mean_reward"),
    ],
)
def test_a_wrong_value_is_refused(params: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BC.from_params(params)


# -- what a run can ask for -----------------------------------------------------------------------------------------


def test_progress_deadline_and_diagnosis() -> None:
    reports: list[tuple[int, int, str]] = []
    run = Run(seeds=(0,), progress=lambda *report: reports.append(report))
    policy = fit([CONTINUOUS_DATA], run=run, updates=450)
    assert [done for done, _, _ in reports] == [200, 400, 450]
    assert set(policy.diagnosis(0)) == {"final_loss", "share_of_synthetic_kept"}
    with pytest.raises(TimeoutError, match="Time limit reached after 200 of 450"):
        fit([CONTINUOUS_DATA], run=replace(run, deadline=time.monotonic() - 1), updates=450)


def test_a_diverged_replica_is_known_and_has_no_loss() -> None:
    poisoned = CONTINUOUS_DATA.replace(actions=np.full_like(CONTINUOUS_DATA.actions, np.nan))
    policy = fit([CONTINUOUS_DATA, poisoned])
    assert [policy.diverged(r) for r in range(2)] == [False, True]
    assert policy.diagnosis(1)["final_loss"] is None
    assert policy.diagnosis(0)["final_loss"] is not None
    actions, _ = policy.act(np.zeros((2, 1, 3, 5), dtype=np.float32), None)
    assert np.isfinite(actions[0]).all()
    assert np.isnan(actions[1]).all()


def test_a_policy_of_another_config_is_refused() -> None:
    policy = fit([CONTINUOUS_DATA])
    with pytest.raises(MethodError, match="config that it was trained with"):
        BC(BCConfig(hidden=32)).load_policy([policy.state(0)], CONTINUOUS_DATA.spec, "cpu")
    with pytest.raises(MethodError, match="differ in"):
        BC(BCConfig(memory="gru")).load_policy([policy.state(0)], CONTINUOUS_DATA.spec, "cpu")


# -- the loss of OffPyMARL --------------------------------------------------------------------------------------------


def test_its_exploration_falls_over_fifty_thousand_updates_in_steps_of_five_hundred() -> None:
    found = [exploration_after(updates) for updates in (0, 499, 500, 25_000, 50_000, 100_000)]
    assert found == pytest.approx([0.5, 0.5, 0.4951, 0.255, 0.01, 0.01])


def test_the_doubled_softmax_learns_otherwise_and_needs_discrete_actions() -> None:
    plain, doubled = fit([DISCRETE_DATA]), fit([DISCRETE_DATA], BCConfig(double_softmax=True))
    assert not np.allclose(parameters(plain), parameters(doubled))
    with pytest.raises(UnsupportedError, match="double_softmax"):
        fit([CONTINUOUS_DATA], BCConfig(double_softmax=True))
