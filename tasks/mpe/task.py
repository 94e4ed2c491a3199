"""The MPE tasks: what users select, and what is shipped for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import ActionArray, FloatArray, HistoryPhase
from tasks.common.choices import Choices, chosen, non_default
from tasks.common.errors import UsageError
from tasks.common.files import sha256_of
from tasks.common.selector import Scalar, Selector
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.env import ACTION_NAMES, MPEEnv
from tasks.mpe.observe import feature_names
from tasks.mpe.prey import PretrainedPrey, Prey, ScriptedPrey
from tasks.mpe.scenarios import ALIASES, EPISODE_LIMIT, Scenario, Variant, scenario
from tasks.mpe.scene import contributions, make_scene
from tasks.policies import PolicyTask, load_weights
from tasks.references import load_references
from tasks.scene import Scene
from tasks.spec import ActionKind, ActionSpec, TaskSpec

ENGINE = "particle"
ENGINE_VERSION = "1"  # raise when any transition changes; a new prey is one
CHECKPOINTS = Path(__file__).parent / "checkpoints"
REFERENCES = Path(__file__).parent / "references.json"

PreyKind = Literal["pretrained", "scripted"]
_CHOICES: Choices = {
    "variant": ("omar", "mpe2"),
    "actions": ("continuous", "discrete"),
    "prey": ("pretrained", "scripted"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MPEParameters:
    """What a selector may choose; the defaults are what the papers use and do not appear in a task's id."""

    variant: Variant = "omar"  # MADiTS, CODI, INS and MASTARS build on OMAR's fork
    actions: ActionKind = "continuous"  # OMAR, INS, MASTARS, MADiTS; CODI uses discrete ones
    prey: PreyKind = "pretrained"  # OMAR


class MPETask(PolicyTask):
    """One particle task. The team reward is the sum over agents (MADiTS and CODI through OffPyMARL).

    OMAR, INS and MASTARS report the mean (spread) or predator 0 (tag, world) instead: a third of the sum here.
    """

    behaviour_levels: ClassVar[tuple[str, ...]] = ("medium", "expert")
    checkpoints: ClassVar[Path] = CHECKPOINTS

    def __init__(self, name: str, parameters: MPEParameters) -> None:
        self.name, self.parameters = name, parameters
        self.scenario = scenario(name, parameters.variant)
        self.spec = _spec(name, parameters, self.scenario)
        self.rule = "argmax" if self.spec.action.discrete else "tanh"
        self.folder = _folder(name, _non_default(parameters))

    def make_env(self, num_envs: int, seed: int) -> MPEEnv:
        """A batched environment; loads the prey where the task has one."""
        return MPEEnv(self.spec, self._engine, self._prey, num_envs, seed)

    def environment_files(self) -> Mapping[str, str]:
        """The pretrained prey, where the task has one."""
        prey = self.checkpoint("prey")
        pretrained = self.scenario.has_prey and self.parameters.prey == "pretrained"
        return {"prey": sha256_of(prey)} if pretrained and prey.exists() else {}

    def scene(self, observations: FloatArray) -> Scene:
        """Agents, landmarks, obstacles and the prey on the plane."""
        return make_scene(self.scenario, observations)

    def contributions(self, observations: FloatArray, actions: ActionArray) -> NDArray[np.float64]:
        """Spread: the difference reward of each agent in the state after the step (`tasks.mpe.scene`)."""
        if self.scenario.family != "spread":
            raise UsageError(f"{self.spec.id}: contributions are defined for cooperative navigation alone.")
        env = self.make_env(len(observations), seed=0)
        env.restore(observations)
        env.step(actions)
        return contributions(self._engine, env.kinematics)

    def training_history(self, until: str = "medium") -> Sequence[HistoryPhase]:
        """Kept for continuous actions alone."""
        if self.rule != "tanh":
            raise UsageError(
                f"{self.spec.id}: no training history is kept for discrete actions, so medium-replay is not possible. "
                "Choose actions=continuous."
            )
        return super().training_history(until)

    def checkpoint(self, level: str, root: Path | None = None) -> Path:
        """Where the policy of a level lies. The prey does not depend on the actions of the predators."""
        if level != "prey":
            return super().checkpoint(level, root)
        variant = {} if self.parameters.variant == "omar" else {"variant": self.parameters.variant}
        return (self.checkpoints if root is None else root) / _folder(self.name, variant) / "prey.safetensors"

    @cached_property
    def _engine(self) -> ParticleEngine:
        return ParticleEngine(self.scenario)

    @cached_property
    def _prey(self) -> Prey | None:
        if not self.scenario.has_prey:
            return None
        if self.parameters.prey == "scripted":
            return ScriptedPrey(self.scenario)
        path = self.checkpoint("prey")
        if not path.exists():
            raise UsageError(
                f"{self.spec.id}: no pretrained prey is shipped for this variant. Train it with "
                f"`bench policy train '{self.spec.id}' --prey`, or choose prey=scripted."
            )
        return PretrainedPrey(load_weights(path))


def make_task(selector: Selector) -> MPETask:
    """The task of a selector such as `mpe/tag[variant=mpe2,actions=discrete]`; reads no weights.

    Raises:
        UsageError: on an unknown parameter or value; the message lists the valid ones.
    """
    name = ALIASES.get(selector.name, selector.name)
    has_prey = scenario(name, "omar").has_prey
    choices = {key: values for key, values in _CHOICES.items() if has_prey or key != "prey"}
    return MPETask(name, MPEParameters(**chosen(selector, choices, name)))  # type: ignore[arg-type]  # checked by it


def _folder(name: str, changed: Mapping[str, Scalar]) -> str:
    """The folder of checkpoints: the name and what differs from the default, e.g. `tag-mpe2-discrete`."""
    return "-".join([name.removeprefix("mpe/"), *map(str, changed.values())])


def _non_default(parameters: MPEParameters) -> dict[str, Scalar]:
    return non_default({key: getattr(parameters, key) for key in _CHOICES}, _CHOICES)


def _spec(name: str, parameters: MPEParameters, table: Scenario) -> TaskSpec:
    names = feature_names(table, 0)
    n = table.n_learners
    if parameters.actions == "continuous":
        action = ActionSpec(kind="continuous", size=2, names=("x", "y"))
    else:
        action = ActionSpec(kind="discrete", size=len(ACTION_NAMES), names=ACTION_NAMES)
    task_id = str(Selector.of(name, _non_default(parameters)))
    variant = f"{parameters.variant}+{parameters.actions}"
    return TaskSpec(
        id=task_id,
        family="mpe",
        engine=ENGINE,
        engine_version=ENGINE_VERSION,
        variant=f"{variant}+prey={parameters.prey}" if table.has_prey else variant,
        n_agents=n,
        obs_dim=len(names),
        state_dim=n * len(names),
        action=action,
        episode_limit=EPISODE_LIMIT,
        team_reward="sum",
        agent_groups=(tuple(range(n)),),
        observation_features=names,
        score_references=load_references(REFERENCES, ENGINE_VERSION).get(task_id),
    )
