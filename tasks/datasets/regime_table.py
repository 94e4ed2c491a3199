"""The table of dataset regimes: who recorded the data, by name. One decorated function each.

A regime's parameters are part of the dataset's name, `exp-m[t_imb=4,p_imb=0.05]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.base import HistoryPhase, Task
from tasks.common.selector import Scalar
from tasks.datasets.perturbation import Draws, one_random_agent, some_random_agents, temporally_random
from tasks.datasets.rollout import Actor, Plan
from tasks.spec import TaskSpec

Params = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Param:
    """A number in a regime's name: its default, and the range it may have."""

    default: int | float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """One way of recording data.

    Attributes:
        plan: from a task and the parameters, who acts when.
        levels: behaviour policies it needs; "history" stands for the training history.
        params: its own parameters, for tasks with continuous and with discrete actions.
        min_agents: the smallest team it is defined for.
        whole_run: whether, unless asked otherwise, it has as many episodes as the training run that it repeats.
        version: raise it when the plan changes; part of a dataset's identity.
    """

    name: str
    summary: str
    plan: Callable[[Task, Params], Plan]
    levels: tuple[str, ...]
    continuous: Mapping[str, Param] = field(default_factory=dict)
    discrete: Mapping[str, Param] = field(default_factory=dict)
    min_agents: int = 1
    whole_run: bool = False
    version: int = 1

    def params_of(self, spec: TaskSpec) -> Mapping[str, Param]:
        """The parameters that this regime has on a task."""
        return self.discrete if spec.action.discrete else self.continuous


REGIMES: dict[str, Regime] = {}

_IMBALANCE = {
    "p_imb": Param(0.05, 0.0, 1.0),  # choice: MADiTS says "a small probability"
    "t_imb": Param(4, 1, 1_000_000),  # choice: MADiTS, Table 6 varies it over 2, 4, 6, 8
}
_NOISE = {"noise_std": Param(0.1, 0.0, 10.0)}  # OMAR, main.py `gaussian_noise_std`
_OG_NOISE = {"noise_std": Param(0.2, 0.0, 10.0)}  # OG-MARL, multi-agent MuJoCo
_GOLDEN = (1 + 5**0.5) / 2
_EPSILON = {"epsilon": Param(0.05, 0.0, 1.0)}  # OG-MARL: greedy with epsilon 0.05


def regime(
    name: str,
    summary: str,
    *,
    levels: tuple[str, ...] = (),
    continuous: Mapping[str, Param] | None = None,
    discrete: Mapping[str, Param] | None = None,
    min_agents: int = 1,
    whole_run: bool = False,
) -> Callable[[Callable[[Task, Params], Plan]], Callable[[Task, Params], Plan]]:
    """Registers the decorated plan under `name`."""

    def register(plan: Callable[[Task, Params], Plan]) -> Callable[[Task, Params], Plan]:
        REGIMES[name] = Regime(
            name=name,
            summary=summary,
            plan=plan,
            levels=levels,
            continuous=continuous or {},
            discrete=discrete or {},
            min_agents=min_agents,
            whole_run=whole_run,
        )
        return plan

    return register


RANDOM = Actor(policy=None, behaviour="random")

# -- the regimes ---------------------------------------------------------------------------------------------------


@regime("exp", "all agents follow the expert", levels=("expert",))
def exp(task: Task, params: Params) -> Plan:
    """Balanced data (MADiTS, Sec. 5.1), without action noise (choice)."""
    return _steady(_actor(task, "expert"))


@regime("md", "all agents follow the medium policy", levels=("medium",))
def md(task: Task, params: Params) -> Plan:
    """Balanced data of a weaker team (MADiTS, App. H.4)."""
    return _steady(_actor(task, "medium"))


def _imbalanced(level: str, several: bool) -> Callable[[Task, Params], Plan]:
    """Temporal and spatial perturbation together (MADiTS, Sec. 5.1; together: inferred)."""

    def plan(task: Task, params: Params) -> Plan:
        def assign(draws: Draws, ids: NDArray[np.int64]) -> NDArray[np.int64]:
            steps = temporally_random(draws.start, float(params["p_imb"]), int(params["t_imb"]))  # (B, T)
            agents = some_random_agents(draws.agents, draws.count) if several else one_random_agent(draws.agents)
            return (steps[:, :, None] | agents[:, None, :]).astype(np.int64)  # (B, T, N)

        return Plan((_actor(task, level), RANDOM), assign)

    return plan


for _short, _level in (("exp", "expert"), ("md", "medium")):
    for _suffix, _who in (("m", "one agent"), ("s", "1 to N-1 agents")):
        regime(
            f"{_short}-{_suffix}",
            f"{_level} team, {_who} random all episode, the whole team random for t_imb steps now and then",
            levels=(_level,),
            continuous=_IMBALANCE,
            discrete=_IMBALANCE,
            min_agents=2,
        )(_imbalanced(_level, several=_suffix == "s"))


@regime("one-expert", "one agent follows the expert, the others act at random", levels=("expert",))
def one_expert(task: Task, params: Params) -> Plan:
    """Exactly one expert an episode, chosen uniformly (CODI, Sec. 4.1)."""

    def assign(draws: Draws, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        experts = one_random_agent(draws.agents)  # (B, N), the one that is not random here
        everywhere = np.broadcast_to(~experts[:, None, :], draws.explore.shape)  # (B, T, N)
        return everywhere.astype(np.int64)

    return Plan((_actor(task, "expert"), RANDOM), assign)


@regime("expert", "the expert with exploration noise", levels=("expert",), continuous=_NOISE, discrete=_EPSILON)
def expert(task: Task, params: Params) -> Plan:
    """OMAR's expert data: Gaussian noise, clipped (inferred from its main.py); epsilon-greedy where discrete."""
    return _steady(_actor(task, "expert", params))


@regime("medium", "the medium policy with exploration noise", levels=("medium",), continuous=_NOISE, discrete=_EPSILON)
def medium(task: Task, params: Params) -> Plan:
    """OMAR's medium data, noise as for `expert`."""
    return _steady(_actor(task, "medium", params))


@regime("good", "the expert as OG-MARL records it", levels=("expert",), continuous=_OG_NOISE, discrete=_EPSILON)
def good(task: Task, params: Params) -> Plan:
    """OG-MARL's good data: ε-greedy, or more noise than OMAR's."""
    return _steady(_actor(task, "expert", params))


@regime("poor", "the poor policy as OG-MARL records it", levels=("poor",), continuous=_OG_NOISE, discrete=_EPSILON)
def poor(task: Task, params: Params) -> Plan:
    """OG-MARL's poor data, noise as for `good`."""
    return _steady(_actor(task, "poor", params))


@regime("random", "all agents act uniformly at random")
def random(task: Task, params: Params) -> Plan:
    """Uniform over the box or the available actions; reproduces the means of OMAR's random data."""
    return _steady(RANDOM)


@regime(
    "medium-replay",
    "what the expert's training run saw until it reached the medium level",
    levels=("history",),
    whole_run=True,
)
def medium_replay(task: Task, params: Params) -> Plan:
    """The stages of a training run, replayed in order; a second pass follows where more episodes are asked for.

    Deviation: OMAR stores the buffer itself. We record the run's policies again, each for as many episodes as it
    acted, so that the data need not be shipped.
    """
    return _run_again(task.training_history(), lambda ids, length: ids % length)


@regime("replay", "what the expert's whole training run saw", levels=("history",))
def replay(task: Task, params: Params) -> Plan:
    """OG-MARL's replay data: episodes from everywhere in the run, however few there are.

    Episode i comes from the place frac(i φ) of the run, φ the golden ratio, so that the first n are spread evenly.
    """

    def place(ids: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        return (ids * _GOLDEN % 1.0 * length).astype(np.int64)

    return _run_again(task.training_history("expert"), place)


def _run_again(phases: Sequence[HistoryPhase], place: Callable[[NDArray[np.int64], int], NDArray[np.int64]]) -> Plan:
    """Each episode as the training run acted at its place, 0 to length - 1, in the run."""
    actors = tuple(
        Actor(policy=phase.policy, behaviour="learner", noise_std=phase.noise_std, epsilon=phase.epsilon)
        if phase.policy is not None
        else RANDOM
        for phase in phases
    )
    ends = np.cumsum([phase.episodes for phase in phases])

    def assign(draws: Draws, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        phase = np.searchsorted(ends, place(ids, int(ends[-1])), side="right")  # (B,)
        return np.broadcast_to(phase[:, None, None], draws.explore.shape).astype(np.int64)  # (B, T, N)

    return Plan(actors, assign)


def _actor(task: Task, level: str, params: Params | None = None) -> Actor:
    params = params or {}
    return Actor(
        policy=task.behaviour_policy(level),
        behaviour=level,
        noise_std=float(params.get("noise_std", 0.0)),
        epsilon=float(params.get("epsilon", 0.0)),
    )


def _steady(actor: Actor) -> Plan:
    """The same actor for every agent and step."""
    return Plan((actor,), lambda draws, ids: np.zeros(draws.explore.shape, dtype=np.int64))
