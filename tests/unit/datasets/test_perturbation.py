"""The perturbations against their definitions, on uniform numbers and on the `behaviour` column of recorded data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.base import Task
from tasks.datasets import regimes
from tasks.datasets.offline import BEHAVIOURS, OfflineDataset
from tasks.datasets.perturbation import draw, some_random_agents, temporally_random, uniform_actions
from tasks.registry import make_task
from tasks.spec import ActionSpec

RANDOM, EXPERT = BEHAVIOURS.index("random"), BEHAVIOURS.index("expert")
MakeTask = Callable[..., Task]


def record(task: Task, dataset: str, episodes: int, seed: int = 0) -> OfflineDataset:
    return regimes.collect(task, regimes.resolve(task, dataset), episodes, seed, lambda *_: None)


def random_agents(data: OfflineDataset) -> np.ndarray:
    """(E, N): who was random at the first step; with p_imb=0 that holds for the whole episode."""
    assert data.behaviour is not None
    return data.behaviour[data.episode_starts[:-1]] == RANDOM


def test_a_temporal_perturbation_lasts_t_imb_steps_and_starts_afresh() -> None:
    start = np.full((1, 9), 0.9)
    start[0, [1, 2, 4, 8]] = 0.01  # 2 falls into the first perturbation, 4 right after it, 8 is cut by the end
    assert temporally_random(start, 0.05, 3)[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 1]
    assert not temporally_random(start, 0.0, 3).any()
    assert temporally_random(start, 1.0, 1).all()


def test_share_of_temporally_random_steps() -> None:
    data = record(make_task("mpe/spread"), "exp-m", 2000)
    assert data.behaviour is not None
    temporal = (data.behaviour == RANDOM).all(axis=1)  # one of three agents is random anyway
    assert temporal.mean() == pytest.approx(0.165, abs=0.01)  # p 0.05, t 4, 25 steps
    counts = (data.behaviour == RANDOM).sum(axis=1)
    assert set(counts.tolist()) == {1, 3}  # exactly one agent, or the whole team


@pytest.mark.parametrize("t_imb", [1, 4, 8])
def test_share_follows_the_recursion(t_imb: int) -> None:
    p, steps = 0.05, 25
    idle, share = np.zeros(steps + 1), 0.0  # idle[t]: probability that no perturbation runs before step t
    idle[0] = 1.0
    for t in range(steps):
        idle[t + 1] += idle[t] * (1 - p)
        share += idle[t] * p * min(t_imb, steps - t) / steps
        if t + t_imb <= steps:
            idle[t + t_imb] += idle[t] * p
    start = np.random.Generator(np.random.PCG64(0)).random((20_000, steps))
    assert temporally_random(start, p, t_imb).mean() == pytest.approx(share, abs=0.003)


def test_m_has_exactly_one_random_agent_chosen_uniformly(toy_task: MakeTask) -> None:
    data = record(toy_task(4), "exp-m[p_imb=0]", 2000)
    chosen = random_agents(data)
    assert (chosen.sum(axis=1) == 1).all()
    assert chosen.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=0.04)  # 4 standard errors
    assert data.behaviour is not None
    held = np.repeat(chosen, data.lengths, axis=0)
    assert ((data.behaviour == RANDOM) == held).all()  # for the whole episode


def test_s_has_k_random_agents_k_uniform(toy_task: MakeTask) -> None:
    chosen = random_agents(record(toy_task(5), "md-s[p_imb=0]", 2000))
    shares = np.bincount(chosen.sum(axis=1), minlength=6) / 2000
    assert shares[[0, 5]].tolist() == [0, 0]
    assert shares[1:5] == pytest.approx(np.full(4, 0.25), abs=0.04)
    assert chosen.mean(axis=0) == pytest.approx(np.full(5, 0.5), abs=0.05)


def test_k_agents_are_drawn_without_replacement() -> None:
    agents, count = np.array([[0.3, 0.1, 0.2], [0.3, 0.1, 0.2]]), np.array([0.49, 0.51])
    assert some_random_agents(agents, count).tolist() == [[False, True, False], [False, True, True]]


def test_both_levels_coincide_for_two_agents(toy_task: MakeTask) -> None:
    one, several = (record(toy_task(2), name, 100) for name in ("exp-m", "exp-s"))
    for name, column in one.columns().items():
        np.testing.assert_array_equal(column, several.columns()[name])


def test_one_expert_is_exactly_one_for_the_whole_episode(toy_task: MakeTask) -> None:
    data = record(toy_task(3, discrete=True), "one-expert", 1500)
    assert data.behaviour is not None
    experts = ~random_agents(data)
    assert ((data.behaviour == EXPERT) == np.repeat(experts, data.lengths, axis=0)).all()
    assert ((data.behaviour == EXPERT).sum(axis=1) == 1).all()
    assert experts.mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.05)


def test_random_actions_fill_the_box() -> None:
    uniform = np.array([[[0.0, 0.5]], [[0.25, 1 - 1e-12]]])
    actions = uniform_actions(uniform, ActionSpec(kind="continuous", size=2, low=-2, high=2), None)
    assert actions.dtype == np.float32
    assert actions.tolist() == [[[-2.0, 0.0]], [[-1.0, 2.0]]]


def test_random_choices_are_uniform_over_what_is_available() -> None:
    available = np.array([[[True, False, True, False, True]]])
    spec = ActionSpec(kind="discrete", size=5)
    taken = [int(uniform_actions(np.array([[u]]), spec, available)[0, 0]) for u in (0, 0.3, 0.34, 0.6, 0.67, 0.999)]
    assert taken == [0, 0, 2, 2, 4, 4]
    assert uniform_actions(np.array([[0.61]]), spec, None).tolist() == [[3]]


def test_an_episode_draws_from_its_own_stream(toy_task: MakeTask) -> None:
    spec = toy_task().spec
    many, alone, other = draw(spec, 7, range(5)), draw(spec, 7, [3]), draw(spec, 8, [3])
    assert many.noise is not None
    assert alone.noise is not None
    np.testing.assert_array_equal(many.action[3], alone.action[0])
    np.testing.assert_array_equal(many.noise[3], alone.noise[0])
    assert not (many.action[3] == many.action[2]).any()
    assert not (alone.action == other.action).any()


def test_noise_has_the_named_size_and_stays_in_the_box(toy_task: MakeTask) -> None:
    task = toy_task(3, episode_limit=1)  # one step from the same observations: the difference is the noise
    quiet, noisy = record(task, "expert[noise_std=0]", 2000), record(task, "expert[noise_std=0.1]", 2000)
    np.testing.assert_array_equal(quiet.observations[::2], noisy.observations[::2])
    assert np.abs(noisy.actions).max() <= 1
    inside = np.abs(quiet.actions) < 0.5
    assert (noisy.actions - quiet.actions)[inside].std() == pytest.approx(0.1, rel=0.05)


def test_epsilon_is_the_share_of_uniform_choices(toy_task: MakeTask) -> None:
    task = toy_task(3, discrete=True, episode_limit=1)
    greedy, explored = record(task, "expert[epsilon=0]", 2000), record(task, "expert[epsilon=0.5]", 2000)
    explored.validate()  # only available actions
    # of the exploring half, a quarter or a fifth hits the greedy action by chance
    assert (greedy.actions != explored.actions).mean() == pytest.approx(0.5 * 0.78, abs=0.02)
