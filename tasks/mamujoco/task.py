"""The multi-agent MuJoCo tasks: what users select."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from tasks.common.choices import chosen
from tasks.common.errors import MissingDependencyError, UnknownNameError, UsageError
from tasks.common.selector import Selector
from tasks.mamujoco.env import MuJoCoEnv
from tasks.mamujoco.robots import EPISODE_LIMIT, ROBOTS, Robot
from tasks.policies import PolicyTask
from tasks.references import load_references
from tasks.spec import ActionSpec, TaskSpec

ENGINE = "mujoco"
ENGINE_VERSION = "mujoco-4+v5+1"  # of the package, gymnasium's robots, and ours: raise it when any transition changes
REFERENCES = Path(__file__).parent / "references.json"
INSTALL = "pip install 'augmarl[mamujoco]'"


class MAMuJoCoTask(PolicyTask):
    """One robot. All agents have its reward.

    The papers' scores come from Ant-v2 and HalfCheetah-v2, whose observations and rewards differ.
    """

    behaviour_levels: ClassVar[tuple[str, ...]] = ("medium", "expert")
    checkpoints: ClassVar[Path] = Path(__file__).parent / "checkpoints"
    most_envs: ClassVar[int] = 256  # each holds more than a MiB

    def __init__(self, name: str) -> None:
        self.robot = ROBOTS[name]
        self.spec = _spec(name, self.robot)
        self.rule = "tanh"
        self.folder = name.replace("/", "--")

    def unavailable(self) -> str | None:
        """Without MuJoCo nothing moves."""
        missing = [package for package in ("mujoco", "gymnasium") if find_spec(package) is None]
        return f"{' and '.join(missing)} not installed; {INSTALL}" if missing else None

    def make_env(self, num_envs: int, seed: int) -> MuJoCoEnv:
        """A batched environment.

        Raises:
            MissingDependencyError: without MuJoCo.
            UsageError: for fewer than one environment.
        """
        if num_envs < 1:
            raise UsageError(f"{self.spec.id}: num_envs is {num_envs}. Ask for at least one environment.")
        if missing := self.unavailable():
            raise MissingDependencyError(f"{self.spec.id}: {missing}.")
        from tasks.mamujoco.simulator import Simulations, thread_count  # here: needs mujoco

        simulations = Simulations(self.robot.environment, num_envs, thread_count())
        return MuJoCoEnv(self.spec, self.robot, simulations, num_envs, seed)


def make_task(selector: Selector) -> MAMuJoCoTask:
    """The task of a selector such as `mamujoco/4ant`; needs no engine.

    Raises:
        UsageError: on an unknown robot or parameter.
    """
    if selector.name not in ROBOTS:
        raise UnknownNameError("task", selector.name, ROBOTS)
    chosen(selector, {}, selector.name)
    return MAMuJoCoTask(selector.name)


def _spec(name: str, robot: Robot) -> TaskSpec:
    size = len(robot.actuators[0])
    return TaskSpec(
        id=name,
        family="mamujoco",
        engine=ENGINE,
        engine_version=ENGINE_VERSION,
        variant=f"{robot.environment}+{robot.partition}+obsk=1",
        n_agents=len(robot.actuators),
        obs_dim=len(robot.names),
        state_dim=robot.state_dim,
        action=ActionSpec(kind="continuous", size=size, names=tuple(f"torque_{i}" for i in range(size))),
        episode_limit=EPISODE_LIMIT,
        team_reward="first",
        agent_groups=robot.groups,
        observation_features=robot.names,
        score_references=load_references(REFERENCES, ENGINE_VERSION).get(name),
    )
