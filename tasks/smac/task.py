"""The SMAC and SMACv2 tasks, on SMAX and on StarCraft II: what users select."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, BehaviourPolicy, HistoryPhase, Task
from tasks.common.choices import Choices, chosen, non_default
from tasks.common.errors import MissingDependencyError, UnknownNameError, UsageError
from tasks.common.selector import Scalar, Selector
from tasks.policies import PolicyTask
from tasks.references import load_references
from tasks.smac.env import SMAXEnv
from tasks.smac.game_env import GameEnv
from tasks.smac.maps import BATTLES, ROSTERS, Battle
from tasks.smac.observe import action_names, attacked_enemies, feature_names, state_size
from tasks.smac.real import REAL_NAMES, RealBattle, real_battle
from tasks.spec import ActionSpec, TaskSpec

ENGINE = "smax"
ENGINE_VERSION = "jaxmarl-0.2+1"  # of the package, and of what is replaced in it: raise it when any transition changes
REFERENCES = Path(__file__).parent / "references.json"
INSTALL = "pip install 'augmarl[smax]'"


class SMACTask(PolicyTask):
    """One battle on SMAX against its scripted enemies. All agents have the team's reward.

    Scores do not compare with those on StarCraft II: an open map, no healing and no shields that grow back.
    """

    behaviour_levels: ClassVar[tuple[str, ...]] = ("poor", "medium", "expert")
    checkpoints: ClassVar[Path] = Path(__file__).parent / "checkpoints"
    full_return: ClassVar[float | None] = 20.0  # a won battle (OG-MARL's expert score; EAQ divides by it)

    def __init__(self, name: str, parameters: Mapping[str, Scalar]) -> None:
        self.name, self.parameters = name, dict(parameters)
        self.battle = BATTLES[name]
        self.spec = _spec(name, self.parameters, self.battle)
        self.rule = "argmax"
        self.folder = Selector.parse(self.spec.id).slug

    def unavailable(self) -> str | None:
        """Without JaxMARL nothing can be played."""
        missing = [package for package in ("jax", "jaxmarl") if find_spec(package) is None]
        return f"{' and '.join(missing)} not installed; {INSTALL}" if missing else None

    def make_env(self, num_envs: int, seed: int) -> SMAXEnv:
        """A batched environment; the first one of a map compiles its programs, which takes seconds.

        Raises:
            MissingDependencyError: without JaxMARL.
        """
        missing = self.unavailable()
        if missing:
            raise MissingDependencyError(f"{self.spec.id}: {missing}.")
        from tasks.smac import smax  # here: needs jax

        own = {key: value for key, value in self.parameters.items() if key not in ("engine", "layout")}
        return SMAXEnv(self.spec, smax.battles(self.battle, smax.Rules(**own)), smax.CHUNK, num_envs, seed)  # type: ignore[arg-type]  # checked choices

    def attacked(self, actions: ActionArray) -> NDArray[np.int64]:
        """By the names of the actions."""
        return attacked_enemies(self.spec.action.names, actions.astype(np.int64))


class StarCraftTask(Task):
    """One battle of StarCraft II, through smacv2. All agents have the team's reward, as the game scales it.

    No behaviour policies are shipped: what is recorded here is random, other data are imported (OG-MARL's vaults).
    """

    behaviour_levels: ClassVar[tuple[str, ...]] = ()
    most_envs: ClassVar[int] = 8  # each is a game of some hundred MiB
    full_return: ClassVar[float | None] = 20.0

    def __init__(self, name: str, parameters: Mapping[str, Scalar]) -> None:
        self.battle = real_battle(name, str(parameters.get("weights", "smacv2")))
        self.spec = _real_spec(name, parameters, self.battle)

    def unavailable(self) -> str | None:
        """Without smacv2 and the game nothing can be played."""
        return missing_game()

    def make_env(self, num_envs: int, seed: int) -> GameEnv:
        """A batched environment, one process and one game each.

        Raises:
            MissingDependencyError: without the package or the game.
        """
        if missing := missing_game():
            raise MissingDependencyError(f"{self.spec.id}: {missing}.")
        return GameEnv(self.spec, self.battle, num_envs, seed)

    def attacked(self, actions: ActionArray) -> NDArray[np.int64]:
        """By the names of the actions. Raises UsageError where a medivac may be among the agents."""
        if "medivac" in self.battle.roster:
            raise UsageError(f"{self.spec.id}: an attack may be the healing of a teammate, by a medivac.")
        return attacked_enemies(self.spec.action.names, actions.astype(np.int64))

    def behaviour_policy(self, level: str) -> BehaviourPolicy:
        """None is shipped."""
        raise UsageError(f"{self.spec.id}: no {level} policy is shipped for StarCraft II. Import data, or use SMAX.")

    def training_history(self, until: str = "medium") -> Sequence[HistoryPhase]:
        """None is shipped."""
        raise UsageError(f"{self.spec.id}: no training history is shipped for StarCraft II.")

    def behaviour_digest(self, level: str) -> str:
        """None is shipped."""
        raise UsageError(f"{self.spec.id}: no {level} policy is shipped for StarCraft II.")


def missing_game() -> str | None:
    """What StarCraft II lacks on this machine, and how to get it; None: nothing."""
    lacking = []
    if find_spec("smacv2") is None:
        lacking.append("the package smacv2 is not installed (pip install git+https://github.com/oxwhirl/smacv2.git)")
    path = os.environ.get("SC2PATH")
    if not path:
        lacking.append("SC2PATH is not set (to the folder of StarCraft II 4.10 with SMAC's maps)")
    else:
        absent = [folder for folder in ("Versions", "Maps") if not (Path(path) / folder).is_dir()]
        if absent:
            lacking.append(f"SC2PATH={path} has no folder {' and no folder '.join(absent)}")
    return "; ".join(lacking) or None


def make_task(selector: Selector) -> SMACTask | StarCraftTask:
    """The task of a selector such as `smac/3m[reward=smax10]` or `smac/3m[engine=sc2]`; needs no engine.

    Raises:
        UsageError: on an unknown map, parameter or value; the message lists the valid ones.
    """
    name = selector.name
    if name not in REAL_NAMES:
        raise UnknownNameError("task", name, REAL_NAMES)
    engine = selector.params.get("engine", "smax" if name in BATTLES else "sc2")
    if engine == "sc2" or name not in BATTLES:
        return StarCraftTask(name, chosen(selector, _real_choices(name), f"{name} on StarCraft II"))
    return SMACTask(name, chosen(selector, _choices(name), name))


def _real_choices(name: str) -> Choices:
    """The parameters of a task in the game itself."""
    choices: dict[str, Sequence[Scalar]] = {"engine": ("smax", "sc2") if name in BATTLES else ("sc2",)}
    if name in BATTLES and f"{BATTLES[name].race}+mastars" in ROSTERS:
        choices["weights"] = ("smacv2", "mastars")
    return choices


def _choices(name: str) -> Choices:
    """The parameters that a task has on SMAX; the first value of each is the default."""
    battle = BATTLES[name]
    choices: dict[str, Sequence[Scalar]] = {
        "engine": ("smax", "sc2"),
        "reward": ("smac", "smax10"),  # SMAC's formula keeps the papers' scale of 0 to 20 (choice)
        "layout": ("smax", "smac"),  # of the actions
    }
    if battle.drawn:
        choices["positions"] = ("smacv2", "smax")  # who stands in the centre (choice)
        if f"{battle.race}+mastars" in ROSTERS:
            choices["weights"] = ("smacv2", "mastars")
    if name == "smac/2m_vs_1z":
        # SMAX's zealot strikes once for 8 where the game's strikes twice, and its scripted allies win every battle.
        choices["zealot_damage"] = (16, 8)
    return choices


def _spec(name: str, parameters: Mapping[str, Scalar], battle: Battle) -> TaskSpec:
    names = action_names(battle, str(parameters["layout"]))
    variant = "+".join(f"{key}={value}" for key, value in parameters.items() if key != "engine")
    return TaskSpec(
        id=str(Selector.of(name, non_default(parameters, _choices(name)))),
        family=name.partition("/")[0],
        engine=ENGINE,
        engine_version=ENGINE_VERSION,
        variant=f"{variant}+no-support" if battle.drawn else variant,
        n_agents=battle.allies,
        obs_dim=len(feature_names(battle)),
        state_dim=state_size(battle),
        action=ActionSpec(kind="discrete", size=len(names), names=names),
        episode_limit=battle.limit,
        team_reward="first",
        agent_groups=battle.groups(),
        observation_features=feature_names(battle),
        has_win=True,
        has_deaths=True,
        score_references=load_references(REFERENCES, ENGINE_VERSION).get(_measured_as(name, parameters)),
    )


def _real_spec(name: str, parameters: Mapping[str, Scalar], battle: RealBattle) -> TaskSpec:
    variant = "+".join(f"{key}={value}" for key, value in parameters.items() if key != "engine")
    return TaskSpec(
        id=str(Selector.of(name, non_default(parameters, _real_choices(name)))),
        family=name.partition("/")[0],
        engine="sc2",
        engine_version="smacv2-1",
        variant=variant,
        n_agents=battle.allies,
        obs_dim=len(battle.features()),
        state_dim=battle.state_dim,
        action=ActionSpec(kind="discrete", size=len(battle.actions), names=battle.actions),
        episode_limit=battle.limit,
        team_reward="first",
        agent_groups=battle.groups,
        observation_features=battle.features(),
        has_win=True,
        has_deaths=True,
    )


def _measured_as(name: str, parameters: Mapping[str, Scalar]) -> str:
    """The id under which references are kept: how actions are numbered changes no return."""
    return str(Selector.of(name, non_default({**parameters, "layout": "smax"}, _choices(name))))
