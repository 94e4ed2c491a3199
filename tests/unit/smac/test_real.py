"""The tables of the game itself: sizes as measured on smacv2, and what a machine without the game is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.doctor import _starcraft
from tasks.common.errors import MissingDependencyError, UsageError
from tasks.registry import make_task
from tasks.smac.real import capability_config, real_battle
from tasks.smac.task import missing_game

SIZES = [  # observation, state, actions, limit
    ("smac/3m", 30, 48, 9, 60),
    ("smac/8m", 80, 168, 14, 120),
    ("smac/2s3z", 80, 120, 11, 120),
    ("smac/5m_vs_6m", 55, 98, 12, 70),
    ("smac/3s5z_vs_3s6z", 136, 230, 15, 170),
    ("smac/25m", 250, 950, 31, 150),
    ("smac/12m", 120, 300, 18, 150),
    ("smac/2m_vs_1z", 16, 26, 7, 150),
    ("smac/2c_vs_64zg", 332, 342, 70, 400),
    ("smacv2/terran_5_vs_5", 82, 120, 11, 200),
    ("smacv2/zerg_5_vs_5", 82, 120, 11, 200),
    ("smacv2/protoss_5_vs_5", 92, 130, 11, 200),
    ("smacv2/terran_3_vs_3", 50, 66, 9, 200),
    ("smacv2/zerg_3_vs_3", 50, 66, 9, 200),
    ("smacv2/protoss_3_vs_3", 56, 72, 9, 200),
    ("smacv2/zerg_3_vs_4", 58, 75, 10, 200),
]


@pytest.mark.parametrize(("name", "obs", "state", "actions", "limit"), SIZES)
def test_sizes(name: str, obs: int, state: int, actions: int, limit: int) -> None:
    spec = make_task(f"{name}[engine=sc2]").spec
    assert (spec.obs_dim, spec.state_dim, spec.action.size, spec.episode_limit) == (obs, state, actions, limit)
    assert (spec.engine, spec.has_win, spec.has_deaths) == ("sc2", True, True)


def test_the_game_is_another_task_than_its_imitation() -> None:
    real, imitation = make_task("smac/3m[engine=sc2]").spec, make_task("smac/3m").spec
    assert real.id == "smac/3m[engine=sc2]"
    assert (real.engine, imitation.engine) == ("sc2", "smax")
    assert make_task("smac/2c_vs_64zg").spec.id == "smac/2c_vs_64zg"


def test_sizes_are_those_of_smacv2_itself() -> None:
    env = pytest.importorskip("smacv2.env", reason="smacv2 is on GitHub alone, and not installed here")
    for name in ("3m", "8m", "2s3z", "2m_vs_1z", "25m", "2c_vs_64zg"):
        info = env.StarCraft2Env(map_name=name).get_env_info()
        spec = make_task(f"smac/{name}[engine=sc2]").spec
        assert (info["obs_shape"], info["state_shape"], info["n_actions"]) == (
            spec.obs_dim,
            spec.state_dim,
            spec.action.size,
        )


def test_rosters_have_their_support_units_and_never_those_alone() -> None:
    config = capability_config(real_battle("smacv2/zerg_3_vs_4"))
    assert (config["n_units"], config["n_enemies"]) == (3, 4)
    assert config["team_gen"] == {
        "dist_type": "weighted_teams",
        "unit_types": ["zergling", "baneling", "hydralisk"],
        "weights": [0.45, 0.10, 0.45],
        "exception_unit_types": ["baneling"],
        "observe": True,
    }
    assert real_battle("smacv2/zerg_3_vs_4", "mastars").roster["baneling"] == 0.45


def test_the_bonus_of_a_victory() -> None:
    assert real_battle("smac/3m").smallest_win_bonus == pytest.approx(4000 / 365)  # 3 · 45 + 3 · 10 + 200 points
    assert real_battle("smac/2c_vs_64zg").smallest_win_bonus == pytest.approx(4000 / (200 + 64 * 45))
    assert real_battle("smacv2/protoss_5_vs_5").smallest_win_bonus == pytest.approx(4000 / (200 + 5 * 360))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tasks.smac.task.find_spec", lambda name: None)
    monkeypatch.delenv("SC2PATH", raising=False)
    missing = missing_game()
    assert missing is not None
    assert "smacv2 is not installed (pip install git+https" in missing
    assert "SC2PATH is not set" in missing
    assert _starcraft().level == "optional"
    with pytest.raises(MissingDependencyError, match=r"smac/3m\[engine=sc2\]: the package smacv2"):
        make_task("smac/3m[engine=sc2]").make_env(1, seed=0)

    monkeypatch.setattr("tasks.smac.task.find_spec", lambda name: object())
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    assert missing_game() == f"SC2PATH={tmp_path / 'nowhere'} has no folder Versions and no folder Maps"
    assert _starcraft().level == "problem"
    for folder in ("Versions", "Maps"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    assert missing_game() is None
    assert _starcraft().detail == str(tmp_path)


def test_the_game_has_no_policies() -> None:
    task = make_task("smac/3m[engine=sc2]")
    for ask in (task.behaviour_policy, task.behaviour_digest):
        with pytest.raises(UsageError, match="Import data, or use SMAX|shipped for StarCraft II"):
            ask("expert")
    with pytest.raises(UsageError, match="no training history"):
        task.training_history()
