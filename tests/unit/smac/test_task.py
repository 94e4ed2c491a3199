"""The tables of the battles: sizes as measured on SMAX, names and parameters, without an engine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tasks.common.errors import MissingDependencyError, UnknownNameError, UsageError
from tasks.common.selector import Selector
from tasks.registry import TASKS, make_task
from tasks.smac import task as smac
from tasks.smac.maps import BATTLES, UNIT_TYPES, roster
from tasks.smac.observe import STOP, Layout, action_names, state_scale
from tasks.smac.real import REAL_NAMES

SIZES = [  # agents, enemies, observation, state, actions, limit
    ("smac/3m", 3, 3, 75, 72, 8, 60),
    ("smac/8m", 8, 8, 205, 192, 13, 120),
    ("smac/2s3z", 5, 5, 127, 120, 10, 120),
    ("smac/5m_vs_6m", 5, 6, 140, 132, 11, 70),
    ("smac/3s5z_vs_3s6z", 8, 9, 218, 204, 14, 170),
    ("smac/25m", 25, 25, 647, 600, 30, 150),
    ("smac/12m", 12, 12, 309, 288, 17, 150),
    ("smac/2m_vs_1z", 2, 1, 36, 36, 6, 150),
    ("smacv2/terran_5_vs_5", 5, 5, 127, 120, 10, 200),
    ("smacv2/zerg_5_vs_5", 5, 5, 127, 120, 10, 200),
    ("smacv2/protoss_5_vs_5", 5, 5, 127, 120, 10, 200),
    ("smacv2/terran_3_vs_3", 3, 3, 75, 72, 8, 200),
    ("smacv2/zerg_3_vs_3", 3, 3, 75, 72, 8, 200),
    ("smacv2/protoss_3_vs_3", 3, 3, 75, 72, 8, 200),
    ("smacv2/zerg_3_vs_4", 3, 4, 88, 84, 9, 200),
]


@pytest.mark.parametrize(("name", "allies", "enemies", "obs", "state", "actions", "limit"), SIZES)
def test_sizes(name: str, allies: int, enemies: int, obs: int, state: int, actions: int, limit: int) -> None:
    spec = make_task(name).spec
    assert (spec.n_agents, BATTLES[name].enemies) == (allies, enemies)
    assert (spec.obs_dim, spec.state_dim, spec.action.size, spec.episode_limit) == (obs, state, actions, limit)
    assert (spec.family, spec.has_win, spec.has_deaths, spec.team_reward) == (name.split("/")[0], True, True, "first")


def test_every_battle_is_registered_and_the_table_is_complete() -> None:
    registered = {name for name in TASKS.names() if name.startswith(("smac/", "smacv2/"))}
    assert set(BATTLES) == {row[0] for row in SIZES}
    assert registered == set(REAL_NAMES) == {*BATTLES, "smac/2c_vs_64zg"}


def test_units_and_exchangeable_agents() -> None:
    assert BATTLES["smac/3s5z_vs_3s6z"].units == ("stalker",) * 3 + ("zealot",) * 5 + ("stalker",) * 3 + ("zealot",) * 6
    assert make_task("smac/2s3z").spec.agent_groups == ((0, 1), (2, 3, 4))
    assert make_task("smac/2m_vs_1z").spec.agent_groups == ((0, 1),)
    assert make_task("smacv2/zerg_3_vs_4").spec.agent_groups == ((0, 1, 2),)


def test_rosters_are_weighted_anew_without_the_units_that_are_missing() -> None:
    assert roster("terran", "smacv2") == {"marine": 0.5, "marauder": 0.5}
    mastars = roster("zerg", "mastars")
    assert mastars == pytest.approx({"zergling": 0.45 / 0.55, "hydralisk": 0.10 / 0.55})
    assert all(unit in UNIT_TYPES for race in ("terran", "zerg", "protoss") for unit in roster(race, "smacv2"))


def test_features_are_in_the_order_of_the_engine() -> None:
    names = make_task("smac/2m_vs_1z").spec.observation_features
    assert names[:7] == (
        "ally_0_health",
        "ally_0_offset_x",
        "ally_0_offset_y",
        "ally_0_last_move_x",
        "ally_0_last_move_y",
        "ally_0_last_target",
        "ally_0_cooldown",
    )
    assert names[13:15] == ("enemy_0_health", "enemy_0_offset_x")
    assert names[26:31] == ("own_health", "own_position_x", "own_position_y", "own_cooldown", "own_marine")


def test_states_are_scaled_where_the_engine_leaves_them_raw() -> None:
    scale = state_scale(BATTLES["smac/2m_vs_1z"], 32.0)
    assert scale[:10].tolist() == pytest.approx([1, 1 / 32, 1 / 32, *[1] * 7])
    assert scale[30:33].tolist() == [1, 1, 1]
    assert scale[33:].tolist() == pytest.approx([1 / 5] * 3)


def test_the_layout_of_smac_is_a_permutation_with_a_no_op_for_the_dead() -> None:
    layout = Layout(action_names(BATTLES["smac/2m_vs_1z"], "smac"))
    # no_op, stop, north, south, east, west, attack_0 -> SMAX: 0 north, 1 east, 2 south, 3 west, 4 stop, 5 attack
    assert layout.to_engine.tolist() == [STOP, STOP, 0, 2, 1, 3, 5]
    engine = np.array([[[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0]]], dtype=bool)  # a living and a dead agent
    mask = layout.available(engine, np.array([[True, False]]))
    assert mask.astype(int).tolist() == [[[0, 1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0]]]


def test_the_layout_of_smax_changes_nothing() -> None:
    layout = Layout(action_names(BATTLES["smac/3m"], "smax"))
    assert layout.to_engine.tolist() == list(range(8))
    mask = np.zeros((1, 3, 8), dtype=bool)
    assert layout.available(mask, np.ones((1, 3), dtype=bool)) is mask


def test_parameters_are_part_of_what_a_task_is() -> None:
    default, other = make_task("smac/3m").spec, make_task("smac/3m[reward=smax10,layout=smac]").spec
    assert other.id == "smac/3m[layout=smac,reward=smax10]"
    assert default.variant == "reward=smac+layout=smax"
    assert other.variant == "reward=smax10+layout=smac"
    assert other.action.size == default.action.size + 1
    assert make_task("smac/2m_vs_1z").spec.variant.endswith("zealot_damage=16")
    assert make_task("smac/2m_vs_1z[zealot_damage=8.0]").spec.id == "smac/2m_vs_1z[zealot_damage=8]"
    assert make_task("smacv2/zerg_3_vs_4").spec.variant.endswith("positions=smacv2+weights=smacv2+no-support")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smac/3m[reward=smac10]", r"reward=smac10 is not possible. Did you mean 'smax10'.*reward=smac\|smax10"),
        ("smac/3m[positions=smax]", r"has no parameter 'positions'.*reward=smac\|smax10; layout=smax\|smac"),
        ("smac/2c_vs_64zg[engine=smax]", "engine=smax is not possible. Choose engine=sc2"),
        ("smac/3m[engine=sc2,reward=smac]", "smac/3m on StarCraft II has no parameter 'reward'"),
        ("smacv2/terran_5_vs_5[weights=mastars]", "has no parameter 'weights'"),
        ("smac/8m[zealot_damage=8]", "has no parameter 'zealot_damage'"),
    ],
)
def test_what_a_task_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_task(text)


def test_a_map_that_nobody_has_is_no_task() -> None:
    with pytest.raises(UnknownNameError, match="2c_vs_64zg"):
        smac.make_task(Selector.parse("smac/2c_vs_65zg"))


def test_without_the_engine_a_task_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.smac.task.find_spec", lambda name: None)
    task = make_task("smac/3m")
    assert task.unavailable() == "jax and jaxmarl not installed; pip install 'augmarl[smax]'"
    with pytest.raises(MissingDependencyError, match=r"smac/3m: jax and jaxmarl not installed; pip install"):
        task.make_env(2, seed=0)


def test_where_no_policy_is_shipped_the_message_says_so() -> None:
    task = make_task("smac/3m[layout=smac]")  # other numbers for the actions
    for ask in (task.behaviour_policy, task.behaviour_digest):
        with pytest.raises(UsageError, match="no expert policy is shipped"):
            ask("expert")
    with pytest.raises(UsageError, match="no history policy is shipped"):
        task.training_history()


def test_making_and_describing_every_task_loads_no_engine() -> None:
    program = (
        "import sys\nfrom tasks.registry import TASKS, make_task\n"
        "for name in TASKS.names(): make_task(name).unavailable()\n"
        "assert not {'jax', 'jaxmarl', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("task", "actions", "targets"),
    [
        ("smac/3m", [[4, 5, 7]], [[-1, 0, 2]]),  # stop; 5 moves, then attacks
        ("smac/3m[layout=smac]", [[0, 5, 8]], [[-1, -1, 2]]),  # no-op; a move; 6 moves and no-op, then attacks
        ("smac/3m[engine=sc2]", [[0, 6, 7]], [[-1, 0, 1]]),
        ("smac/2c_vs_64zg", [[69, 6]], [[63, 0]]),
    ],
)
def test_whom_an_action_attacks(task: str, actions: list[list[int]], targets: list[list[int]]) -> None:
    assert make_task(task).attacked(np.array(actions)).tolist() == targets


def test_a_medivac_heals_whom_it_attacks() -> None:
    with pytest.raises(UsageError, match="by a medivac"):
        make_task("smacv2/terran_5_vs_5[engine=sc2]").attacked(np.zeros((1, 5), dtype=np.int64))
    assert make_task("smacv2/terran_5_vs_5").attacked(np.array([[5, 6, 7, 8, 9]])).tolist() == [[0, 1, 2, 3, 4]]
