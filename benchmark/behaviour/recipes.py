"""How the behaviour policies of each family are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from benchmark.behaviour.episodes import EpisodesConfig, MATD3Player, QMIXPlayer, episode_rounds
from benchmark.behaviour.loop import LoopConfig, OnlineLearner, Round, TaskArena, training_rounds
from benchmark.behaviour.on_policy import OnPolicyConfig, on_policy_rounds
from benchmark.behaviour.teacher import AssignmentTeacher
from methods.online.imitation import Imitation, ImitationConfig
from methods.online.mappo import MAPPO, MAPPOConfig
from methods.online.matd3 import MATD3, MATD3Config
from methods.online.policy_heads import GaussianHead
from methods.online.qmix import QMIX, QMIXConfig
from tasks.common.errors import UsageError
from tasks.common.seeding import derive_seed, make_generator
from tasks.mamujoco.task import MAMuJoCoTask
from tasks.mpe.task import MPETask
from tasks.policies import PolicyTask
from tasks.smac.task import SMACTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A way of training.

    Attributes:
        algorithm: for the cards.
        config: of the loop and of the learner, for the cards.
        rounds: the rounds of a run with a seed, which fits its rates to the number of environment steps if that is
            known; never ends by itself.
        num_envs: episodes a round.
        evaluate_every: rounds between two rungs of the ladder.
        close_until: the first rounds, of which every one is a rung that is drawn from, for the levels below the
            expert; 0: those are rungs as the expert is.
        keeps_history: whether the policies of all rounds are shipped for `medium-replay`.
        keeps_all: whether that history goes on to the expert, for `replay`.
        to_the_limit: whether every episode lasts as long as it may.
        share: of the episodes of evaluations, where one episode takes seconds.
    """

    algorithm: str
    config: Mapping[str, object]
    rounds: Callable[[int, int | None], Iterator[Round]]
    num_envs: int
    evaluate_every: int
    close_until: int = 0
    keeps_history: bool = True
    keeps_all: bool = False
    to_the_limit: bool = False
    share: float = 1.0

    def episodes(self, usual: int) -> int:
        """How many episodes an evaluation has, where it usually has so many."""
        return max(2, round(self.share * usual))

    def is_rung(self, index: int) -> bool:
        """Whether the policy that begins a round is evaluated."""
        return index % self.evaluate_every == 0


def recipe_of(task: PolicyTask, algorithm: str | None = None) -> Recipe:
    """How the policies of a task are trained.

    Args:
        task: whose policies.
        algorithm: where there is a choice, another than the first.

    Raises:
        UsageError: where nobody has found out, or for an algorithm that the task does not have.
    """
    ways: dict[str, Callable[[], Recipe]] = {}
    if isinstance(task, MPETask):
        ways = {algorithm_of(task): partial(_particles, task)}
    elif isinstance(task, SMACTask):
        ways = {"mappo": partial(_battle, task), "qmix": partial(_battle_by_values, task)}
    elif isinstance(task, MAMuJoCoTask):
        ways = {"mappo": partial(_robot, task), "matd3": partial(_robot_by_values, task)}
    if not ways:
        raise UsageError(
            f"{task.spec.id}: there is no way yet to train behaviour policies for tasks of {task.spec.family}."
        )
    if algorithm is not None and algorithm not in ways:
        raise UsageError(f"{task.spec.id}: {algorithm!r} does not train it. Choose {' or '.join(ways)}.")
    return ways[algorithm or next(iter(ways))]()


# -- particles -----------------------------------------------------------------------------------------------------


def _particles(task: MPETask) -> Recipe:
    loop, config = loop_config(task), _learner_config(task)

    def rounds(seed: int, steps: int | None) -> Iterator[Round]:
        arena = TaskArena(task.make_env(loop.num_envs, derive_seed("train", seed)))
        generator = torch.Generator().manual_seed(seed)
        learner = _particle_learner(config, arena, generator, seed)
        return training_rounds(arena, loop, learner, generator)

    return Recipe(
        algorithm=algorithm_of(task),
        config={**asdict(loop), **asdict(config)},
        rounds=rounds,
        num_envs=loop.num_envs,
        evaluate_every=2,  # tag goes from random to two thirds of its expert in ten rounds
        keeps_history=task.rule == "tanh",
        to_the_limit=True,
    )


def loop_config(task: MPETask) -> LoopConfig:
    """The loop's settings for a task: the rewards of each scenario need their own scale."""
    if task.scenario.family != "spread":
        return LoopConfig(reward_scale=0.1)
    # inferred: mpe2's spread pays about -1 a step where OMAR's pays about 20
    return LoopConfig(reward_scale=0.05 if task.parameters.variant == "omar" else 1.0)


def algorithm_of(task: MPETask) -> str:
    """MATD3, Gumbel-softmax where actions are discrete; imitation of a scripted teacher for omar's larger squares.

    On the square of half-width 2 with four agents MATD3 had reached 30 % of the teacher's return after 480,000 steps;
    imitation reached 48 % after 160,000, in a seventh of the time.
    """
    if task.rule == "argmax":
        return "matd3-gumbel"
    large = task.parameters.variant == "omar" and task.scenario.family == "spread" and task.spec.n_agents > 3
    return "imitation" if large else "matd3"


def _learner_config(task: MPETask) -> MATD3Config | ImitationConfig:
    return ImitationConfig() if algorithm_of(task) == "imitation" else MATD3Config()


def _particle_learner(
    config: MATD3Config | ImitationConfig, arena: TaskArena, generator: torch.Generator, seed: int
) -> OnlineLearner:
    weights = make_generator("weights", seed)
    if isinstance(config, MATD3Config):
        return MATD3(config, arena.n_agents, arena.obs_dim, arena.action, generator, weights)
    teacher = AssignmentTeacher(arena.n_agents)
    return Imitation(config, arena.n_agents, arena.obs_dim, arena.action.size, teacher, generator, weights)


# -- battles -------------------------------------------------------------------------------------------------------


def _battle(task: SMACTask) -> Recipe:
    loop, config = OnPolicyConfig(), MAPPOConfig()
    return Recipe(
        algorithm="mappo",
        config={**asdict(loop), **asdict(config)},
        rounds=partial(_on_policy, task, loop, config, None),
        num_envs=loop.num_envs,
        evaluate_every=20,  # a rung costs as much as two rounds
        close_until=100,
        keeps_all=True,
    )


def _battle_by_values(task: SMACTask) -> Recipe:
    loop, config = EpisodesConfig(), QMIXConfig()

    def rounds(seed: int, steps: int | None) -> Iterator[Round]:
        env = task.make_env(loop.num_envs, derive_seed("train", seed))
        player = QMIXPlayer(QMIX(config, _sizes(task), make_generator("weights", seed)), env, loop)
        return episode_rounds(env, loop, player, torch.Generator().manual_seed(seed))

    return Recipe(
        algorithm="qmix",
        config={**asdict(loop), **asdict(config)},
        rounds=rounds,
        num_envs=loop.num_envs,
        evaluate_every=10,  # a rung costs as much as four rounds
        keeps_all=True,
    )


# -- robots --------------------------------------------------------------------------------------------------------


def _robot(task: MAMuJoCoTask) -> Recipe:
    loop = OnPolicyConfig(num_envs=16, reward_scale=0.05)
    config = MAPPOConfig(
        learning_rate=3e-4, critic_learning_rate=3e-4, epochs=10, minibatches=16, entropy=0.0, normalise=True
    )
    sigma = 0.5  # inferred
    return Recipe(
        algorithm="mappo",
        config={**asdict(loop), **asdict(config), "sigma": sigma},
        rounds=partial(_on_policy, task, loop, config, sigma),
        num_envs=loop.num_envs,
        evaluate_every=5,
        keeps_all=True,
        share=0.1,  # a policy that stands makes a thousand steps an episode
    )


def _robot_by_values(task: MAMuJoCoTask) -> Recipe:
    loop = EpisodesConfig(num_envs=32, updates_per_step=16.0, batch_size=256, reward_scale=0.1)
    config, spec = MATD3Config(hidden=128, discount=0.99, polyak=0.005), task.spec

    def rounds(seed: int, steps: int | None) -> Iterator[Round]:
        env, generator = task.make_env(loop.num_envs, derive_seed("train", seed)), torch.Generator().manual_seed(seed)
        weights = make_generator("weights", seed)
        learner = MATD3(config, spec.n_agents, spec.obs_dim, spec.action, generator, weights)
        return episode_rounds(env, loop, MATD3Player(learner, env, loop), generator)

    return Recipe(
        algorithm="matd3",
        config={**asdict(loop), **asdict(config)},
        rounds=rounds,
        num_envs=loop.num_envs,
        evaluate_every=2,
        keeps_all=True,
        share=0.1,  # a policy that stands makes a thousand steps an episode
    )


# -- both ----------------------------------------------------------------------------------------------------------


def _on_policy(
    task: PolicyTask, loop: OnPolicyConfig, config: MAPPOConfig, sigma: float | None, seed: int, steps: int | None
) -> Iterator[Round]:
    """The rounds of MAPPO, whose policies are Gaussians of that deviation at first, or a softmax without one."""
    env, generator = task.make_env(loop.num_envs, derive_seed("train", seed)), torch.Generator().manual_seed(seed)
    fitted = replace(config, anneal_steps=steps or config.anneal_steps)
    head = None if sigma is None else GaussianHead(sigma)
    return on_policy_rounds(env, loop, MAPPO(fitted, _sizes(task), generator, make_generator("weights", seed), head))


def _sizes(task: PolicyTask) -> tuple[int, int, int, int]:
    spec = task.spec
    return spec.n_agents, spec.obs_dim, spec.state_dim or 0, spec.action.size
