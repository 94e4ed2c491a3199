"""Battles on the engine: episodes, rewards, masks, ends and the generators, on 3m and on one drawn roster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.behaviour.evaluation import RandomPolicy, evaluate
from tasks.base import Step
from tasks.common.errors import DataError, UsageError
from tasks.registry import make_task
from tasks.smac.env import SMAXEnv
from tasks.smac.maps import BATTLES, UNIT_TYPES, Battle
from tasks.smac.observe import STOP
from tasks.smac.task import SMACTask

smax = pytest.importorskip("tasks.smac.smax", reason="needs the extra smax")
TYPES = slice(-len(UNIT_TYPES), None)  # of an agent's own features


def make_env(name: str, num_envs: int, seed: int = 0) -> SMAXEnv:
    task = make_task(name)
    assert isinstance(task, SMACTask)
    return task.make_env(num_envs, seed)


def random_legal(step: Step, generator: np.random.Generator) -> NDArray[np.int64]:
    assert step.available_actions is not None
    return np.where(step.available_actions, generator.random(step.available_actions.shape), -1.0).argmax(-1)


def shoots_or_advances(step: Step) -> NDArray[np.int64]:
    """Attacks the first enemy in range, else walks east, to where the enemies start."""
    assert step.available_actions is not None
    attacks = step.available_actions[..., STOP + 1 :]
    moves = np.where(step.available_actions[..., 1], 1, STOP)  # the dead only stop
    return np.where(attacks.any(-1), STOP + 1 + attacks.argmax(-1), moves)


@pytest.fixture(scope="module")
def battle() -> list[Step]:
    """40 battles of 3m to their ends, which is more than one chunk and no whole number of them."""
    env = make_env("smac/3m", 40)
    steps = [env.reset(range(40))]
    while not (steps[-1].terminals | steps[-1].truncations).all():
        steps.append(env.step(shoots_or_advances(steps[-1])))
        assert len(steps) <= env.spec.episode_limit + 1
    return steps


def ends(battle: list[Step]) -> NDArray[np.int64]:
    """The step that ended each battle."""
    return np.stack([step.terminals | step.truncations for step in battle]).argmax(axis=0)


def test_shapes_and_types(battle: list[Step]) -> None:
    spec = make_task("smac/3m").spec
    for step in (battle[0], battle[-1]):
        assert step.observations.shape == (40, 3, spec.obs_dim)
        assert step.states is not None
        assert step.states.shape == (40, spec.state_dim)
        assert step.available_actions is not None
        assert step.available_actions.shape == (40, 3, spec.action.size)
        assert step.alive is not None
        assert step.won is not None
        assert step.observations.dtype == step.states.dtype == step.rewards.dtype == np.float32
        assert step.available_actions.dtype == step.alive.dtype == step.won.dtype == step.terminals.dtype == np.bool_
    assert not battle[0].rewards.any()
    assert np.abs(np.stack([step.observations for step in battle])).max() <= 1.0


def test_a_won_battle_returns_20_and_a_lost_one_less_than_its_damage(battle: list[Step]) -> None:
    last = ends(battle)
    rewards = np.stack([step.rewards for step in battle])  # (T + 1, B, N)
    assert (rewards == rewards[..., :1]).all()
    returns = np.array([rewards[: last[b] + 1, b, 0].sum() for b in range(40)])
    won = np.array([battle[last[b]].won[b] for b in range(40)])  # type: ignore[index]
    assert 5 < won.sum() < 40
    assert returns[won] == pytest.approx(20.0, abs=1e-3)
    # 3 · 45 health, 10 for each of at most 2 kills (or 3 where both teams fell): 165 of 365 points
    assert returns[~won].max() <= 20 * 165 / 365 + 1e-3


def test_random_play_returns_what_the_references_say() -> None:
    task = make_task("smac/3m")
    references = task.spec.score_references
    assert references is not None
    returns = evaluate(task, RandomPolicy(task.spec, 5), 128, seed=99, batch=64)
    assert returns.mean() == pytest.approx(references.random_return, abs=3 * returns.std() / np.sqrt(128))


def test_battles_end_when_one_team_has_fallen(battle: list[Step]) -> None:
    last = ends(battle)
    for b in range(40):
        step = battle[last[b]]
        assert step.alive is not None
        assert step.won is not None
        assert step.terminals[b] != step.truncations[b]
        if step.won[b]:
            assert step.alive[b].any()
            assert step.terminals[b]
        before = battle[last[b] - 1]
        assert not (before.terminals[b] | before.truncations[b])


def test_the_dead_see_nothing_and_only_stop(battle: list[Step]) -> None:
    fallen = 0
    for step in battle:
        assert step.alive is not None
        assert step.available_actions is not None
        dead = ~step.alive
        fallen += int(dead.sum())
        assert not step.observations[dead].any()
        assert (step.available_actions[dead] == (np.arange(8) == STOP)).all()
        assert step.available_actions[step.alive][:, : STOP + 1].all()
    assert fallen > 100


def test_states_hold_positions_teams_and_types_within_the_unit_interval(battle: list[Step]) -> None:
    states = battle[0].states
    assert states is not None
    units = states[:, :60].reshape(40, 6, 10)
    assert (units[:, :, 0] == 1).all()  # health
    assert np.abs(units[:, :3, 1] * 32 - 8).max() < 3  # allies start around (8, 16)
    assert np.abs(units[:, 3:, 1] * 32 - 24).max() < 3
    assert (units[:, :, 4] == 1).all()  # marines
    assert states[:, 60:66].tolist() == [[0, 0, 0, 1, 1, 1]] * 40
    own = battle[0].observations[:, :, -10:]
    assert units[:, :3, 1:3] == pytest.approx(own[:, :, 1:3], abs=1e-6)


def test_an_episode_is_its_number_and_the_seed_in_whatever_batch() -> None:
    def first_steps(num_envs: int, ids: list[int], seed: int = 3) -> list[NDArray[Any]]:
        env, seen = make_env("smac/3m", num_envs, seed), []
        step = env.reset(ids)
        for t in range(12):
            seen.append(np.concatenate([step.observations.reshape(num_envs, -1), step.rewards], axis=1))
            chosen = step.available_actions.argmax(-1) if t % 3 else np.full((num_envs, 3), STOP)  # type: ignore[union-attr]
            step = env.step(chosen)
        return seen

    together = first_steps(40, list(range(100, 140)))
    alone = first_steps(1, [137])
    again = first_steps(2, [137, 100])
    other = first_steps(1, [137], seed=4)
    for t in range(12):
        assert (together[t][37] == alone[t][0]).all()
        assert (together[t][[37, 0]] == again[t]).all()
    assert (alone[0] != other[0]).any()


def test_the_limit_truncates_and_the_last_observation_is_the_true_one() -> None:
    env = make_env("smac/3m", 2)
    env.spec = replace(env.spec, episode_limit=3)
    step = env.reset([0, 1])
    flags = []
    for _ in range(3):
        step = env.step(np.full((2, 3), STOP))
        flags.append((step.terminals.tolist(), step.truncations.tolist()))
    assert flags == [([False] * 2, [False] * 2)] * 2 + [([False] * 2, [True] * 2)]
    assert step.observations.any()


def test_actions_that_are_not_available_are_refused() -> None:
    env = make_env("smac/3m", 2)
    with pytest.raises(UsageError, match="step before the first reset"):
        env.step(np.full((2, 3), STOP))
    env.reset([0, 1])
    actions = np.full((2, 3), STOP)
    for wrong in (STOP + 1, -1, 8):  # nobody is in range at first
        actions[1, 2] = wrong
        with pytest.raises(DataError, match=rf"action {wrong} of agent 2 in environment 1 .* at step 0. .* stop"):
            env.step(actions)
    with pytest.raises(DataError, match=r"shape \(3, 2\), expected \(2, 3\)"):
        env.step(np.full((3, 2), STOP))
    with pytest.raises(UsageError, match="3 episode numbers for 2"):
        env.reset([0, 1, 2])
    with pytest.raises(UsageError, match="at least one"):
        make_env("smac/3m", 0)


def test_wrapped_battles_equal_the_engines_own() -> None:
    """The same keys and actions in JaxMARL's environment itself: what is seen, masks, ends, and SMAC's points."""
    import jax

    programs = smax.battles(BATTLES["smac/3m"], smax.Rules())
    carry, shown = programs.start(11, np.full(smax.CHUNK, 5, dtype=np.uint32))
    engine = programs.engine
    key, state = jax.tree.map(lambda leaf: leaf[0], carry)
    generator = np.random.default_rng(0)
    paid = 0.0
    for t in range(25):
        mask = engine.get_avail_actions(state)
        assert (np.stack([mask[a] for a in engine.agents]).astype(bool) == np.asarray(shown.available)[0]).all()
        actions = np.where(np.asarray(shown.available)[0], generator.random((3, 8)), -1.0).argmax(-1).astype(np.int32)
        named = {agent: actions[i] for i, agent in enumerate(engine.agents)}
        before = np.asarray(state.state.unit_health)[3:], np.asarray(state.state.unit_alive)[3:]
        own, state, _, done, _ = engine.step_env(jax.random.fold_in(key, t), state, named)
        carry, shown = programs.advance(carry, np.tile(actions, (smax.CHUNK, 1)))
        assert np.asarray(shown.observations)[0] == pytest.approx(np.stack([own[a] for a in engine.agents]), abs=1e-5)
        assert bool(shown.over[0]) == bool(done["__all__"])
        health, alive = np.asarray(state.state.unit_health)[3:], np.asarray(state.state.unit_alive)[3:]
        points = (before[0] - health).sum() + 10 * (before[1] & ~alive).sum() + 200 * bool(shown.won[0])
        assert float(shown.reward[0]) == pytest.approx(20 * points / 365, abs=1e-4)
        paid += float(shown.reward[0])
        if done["__all__"]:
            break
    assert paid > 0


@pytest.mark.parametrize(
    ("reward", "damaged", "bonus"),
    # A zealot of 150 and a stalker of 160 points of health: the most is 310 + 2 · 10 + 200 = 530 points.
    [("smac", 20 * 50 / 530, 20 * 200 / 530), ("smax10", 10 * (50 / 150) / 2, 10.0)],
)
def test_rewards_by_hand(reward: str, damaged: float, bonus: float) -> None:
    import jax.numpy as jnp

    class Units:
        unit_types = jnp.array([2, 3, 3, 2])

        def __init__(self, *health: float) -> None:
            self.unit_health = jnp.array(health)
            self.unit_alive = self.unit_health > 0

    duel = Battle(allies=2, enemies=2, limit=10, units=("stalker", "zealot", "zealot", "stalker"))
    paid = smax.Battles(duel, smax.Rules(reward=reward))._reward
    fresh = Units(160, 150, 150, 160)
    assert float(paid(fresh, Units(100, 0, 100, 160))) == pytest.approx(damaged, rel=1e-6)  # own losses cost nothing
    assert float(paid(fresh, Units(1, 0, 0, 0))) == pytest.approx(20.0, rel=1e-6)
    assert float(paid(fresh, Units(0, 0, 0, 0))) == pytest.approx(20.0 - bonus, rel=1e-6)  # a draw is no victory


def test_a_zealot_strikes_as_hard_as_the_task_says() -> None:
    def damage(rules: Any) -> list[float]:
        return [float(hit) for hit in smax.Battles(BATTLES["smac/2m_vs_1z"], rules).engine.unit_type_attacks]

    assert damage(smax.Rules()) == [9, 10, 13, 8, 5, 12]
    assert damage(smax.Rules(zealot_damage=16)) == [9, 10, 13, 16, 5, 12]


def test_rosters_and_positions_are_those_of_the_race_and_of_the_map() -> None:
    env = make_env("smacv2/zerg_3_vs_4", 2 * smax.CHUNK)
    step = env.reset(range(env.num_envs))
    states = step.states
    assert states is not None
    units = states[:, :70].reshape(-1, 7, 10)
    types = units[:, :, 4:].argmax(-1)  # (B, 7)
    assert {UNIT_TYPES[kind] for kind in np.unique(types)} == {"zergling", "hydralisk"}
    assert (types[:, :3] == types[:, 3:6]).all()  # the enemies are as the allies
    assert len(np.unique(types[:, 6])) == 2  # and the one more is drawn
    assert 0.3 < (types == UNIT_TYPES.index("zergling")).mean() < 0.7
    assert (units[:, :, 1:3] * 32 >= 1 - 1e-5).all()
    assert (units[:, :, 1:3] * 32 <= 31 + 1e-5).all()
    after = env.step(np.full((env.num_envs, 3), STOP))
    assert after.alive is not None
    assert after.alive.all()  # nobody stood in a wall
    away = np.abs(units[:, :, 1:3] * 32 - 16).max(axis=-1)  # (B, 7) from the middle of the map
    surrounded = (away[:, :3] < 4).all(axis=1)  # a little pushed apart
    assert 0.3 < surrounded.mean() < 0.7
    assert (away[surrounded, 3:].max(axis=1) > 4).mean() > 0.8
    assert (units[~surrounded, :3, 1] * 32 < 17).mean() > 0.9  # the others start in the left half


class Countdown:
    """Stands for compiled battles: episode e is over after e steps, and every step pays 1."""

    def __init__(self) -> None:
        self.advanced: list[list[int]] = []

    def start(self, seed: int, episodes: NDArray[np.uint32]) -> tuple[Any, smax.Shown]:
        left = episodes.astype(np.int64)
        return left, self.show(left, 0.0)

    def advance(self, left: NDArray[np.int64], actions: NDArray[np.int32]) -> tuple[Any, smax.Shown]:
        self.advanced.append(left.tolist())
        return left - 1, self.show(left - 1, 1.0)

    def show(self, left: NDArray[np.int64], reward: float) -> smax.Shown:
        B, spec = len(left), make_task("smac/3m").spec
        return smax.Shown(
            observations=np.zeros((B, 3, spec.obs_dim), dtype=np.float32),
            states=np.zeros((B, spec.state_dim or 0), dtype=np.float32),
            available=np.ones((B, 3, 8), dtype=np.bool_),
            alive=np.ones((B, 3), dtype=np.bool_),
            over=left <= 0,
            won=left <= 0,
            reward=np.full(B, reward, dtype=np.float32),
        )


def test_chunks_whose_battles_are_all_over_are_left_alone() -> None:
    battles = Countdown()
    env = SMAXEnv(make_task("smac/3m").spec, battles, 2, 3, seed=0)  # type: ignore[arg-type]  # stands for them
    env.reset([1, 2, 4])  # chunks (1, 2) and (4, filled up)
    paid, over = [], []
    for _ in range(4):
        step = env.step(np.zeros((3, 3), dtype=np.int64))
        paid.append(step.rewards[:, 0].tolist())
        over.append(step.terminals.tolist())
    assert [len(chunk) for chunk in battles.advanced] == [2] * 6
    assert [chunk[0] for chunk in battles.advanced] == [
        1,
        4,
        0,
        3,
        2,
        1,
    ]  # the first chunk twice, the second four times
    assert paid == [[1.0] * 3, [1.0] * 3, [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    assert over == [[True, False, False], [True, True, False], [True, True, False], [True, True, True]]
