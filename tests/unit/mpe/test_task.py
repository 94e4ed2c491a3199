"""Selectors, specs and messages of the MPE tasks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.selector import Selector
from tasks.mpe import task as task_module
from tasks.mpe.task import MPETask, make_task
from tasks.policies import HistoryPhase


def task_of(text: str) -> MPETask:
    return make_task(Selector.parse(text))


@pytest.mark.parametrize(
    ("written", "canonical", "variant"),
    [
        ("mpe/spread", "mpe/spread", "omar+continuous"),
        ("mpe/spread-3", "mpe/spread", "omar+continuous"),
        ("mpe/spread[variant=omar,actions=continuous]", "mpe/spread", "omar+continuous"),
        ("mpe/spread-4[variant=mpe2]", "mpe/spread-4[variant=mpe2]", "mpe2+continuous"),
        ("mpe/tag", "mpe/tag", "omar+continuous+prey=pretrained"),
        (
            "mpe/tag[variant=mpe2, prey=scripted, actions=discrete]",
            "mpe/tag[actions=discrete,prey=scripted,variant=mpe2]",
            "mpe2+discrete+prey=scripted",
        ),
    ],
)
def test_id_shows_what_differs_from_the_default(written: str, canonical: str, variant: str) -> None:
    spec = task_of(written).spec
    assert (spec.id, spec.variant) == (canonical, variant)
    assert (spec.engine, spec.family, spec.team_reward) == ("particle", "mpe", "sum")
    assert spec.agent_groups == (tuple(range(spec.n_agents)),)


def test_features_are_named_in_the_order_of_the_sources() -> None:
    names = task_of("mpe/world").spec.observation_features
    assert names[:6] == (
        "own_velocity_x",
        "own_velocity_y",
        "own_position_x",
        "own_position_y",
        "obstacle_0_offset_x",
        "obstacle_0_offset_y",
    )
    assert names[6:14:4] == ("food_0_offset_x", "forest_0_offset_x")
    assert names[-6:] == (
        "prey_offset_x",
        "prey_offset_y",
        "prey_velocity_x",
        "prey_velocity_y",
        "in_forest_0",
        "in_forest_1",
    )
    spread = task_of("mpe/spread").spec.observation_features
    assert spread[4] == "landmark_0_offset_x"
    assert spread[10] == "other_agent_0_offset_x"
    assert spread[14] == "other_agent_0_message_x"
    assert all(len(set(task_of(name).spec.observation_features)) == size for name, size in (("mpe/tag", 16),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mpe/spread[variants=mpe2]", "Did you mean 'variant'.*variant=omar|mpe2"),
        ("mpe/spread[variant=mpe3]", "variant=mpe3 is not possible. Did you mean 'mpe2'.*variant=omar|mpe2"),
        ("mpe/spread[prey=scripted]", "no parameter 'prey'"),
        ("mpe/tag[prey=fast]", "Choose prey=pretrained|scripted"),
        ("mpe/tag[actions=3]", "Choose actions=continuous|discrete"),
    ],
)
def test_bad_parameters_are_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("|", r"\|")):
        task_of(text)


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="mpe/spread-5"):
        task_of("mpe/spread-6")


def test_missing_policies_name_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(MPETask, "checkpoint", lambda self, level: task_module.CHECKPOINTS / "nowhere" / level)
    task = task_of("mpe/tag[variant=mpe2]")
    with pytest.raises(UsageError, match=r"bench policy train 'mpe/tag\[variant=mpe2\]'`"):
        task.behaviour_policy("expert")
    with pytest.raises(UsageError, match="--prey"):
        task.make_env(1, 0)
    with pytest.raises(UsageError, match="level 'best' is none of medium, expert"):
        task.behaviour_policy("best")
    with pytest.raises(UsageError, match="Choose actions=continuous"):
        task_of("mpe/spread[actions=discrete]").training_history()


def test_folders_tell_the_variants_apart() -> None:
    assert task_of("mpe/spread-4").folder == "spread-4"
    assert task_of("mpe/tag[variant=mpe2,actions=discrete]").folder == "tag-mpe2-discrete"
    discrete = task_of("mpe/tag[actions=discrete]")
    assert discrete.checkpoint("prey") == task_of("mpe/tag").checkpoint("prey")
    assert HistoryPhase(None, 1).noise_std == 0.0


def test_specs_and_commands_need_no_torch() -> None:
    code = (
        "import sys; import benchmark.behaviour.command; from tasks.common.selector import Selector; "
        "from tasks.mpe.task import make_task; make_task(Selector.parse('mpe/tag')); "
        "sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
