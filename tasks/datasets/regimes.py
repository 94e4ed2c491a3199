"""Dataset regimes: who recorded the data, by name. One decorated function each.

A regime's parameters are part of the dataset's name, `exp-m[t_imb=4,p_imb=0.05]`; so is sub-sampling. Names are
checked without any engine (`resolve`), everything that determines the data is one dictionary (`identity`), and
`collect` records it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tasks.base import HistoryPhase, Task
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.seeding import derive_seed
from tasks.common.selector import Scalar, Selector
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.perturbation import Draws, one_random_agent, some_random_agents, temporally_random
from tasks.datasets.rollout import Actor, Plan, Progress, collection_batch, record
from tasks.datasets.subsample import SUBSAMPLE_PARAMS, Subsample, parse_subsample, subsample
from tasks.spec import TaskSpec

DEFAULT_EPISODES = 2000
"""Episodes of a dataset when nobody says how many (MASTARS, App. D.3)."""

COLLECTION_VERSION = 1
"""Raise when `rollout`, `perturbation` or `subsample` change what they return; part of a dataset's identity."""

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
        Actor(
            policy=phase.policy,
            behaviour="learner",
            noise_std=phase.noise_std,
            epsilon=phase.epsilon,
            sampled=phase.sampled,
        )
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


# -- from a name to data -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """A checked dataset name: the regime, all of its parameters with their values, and sub-sampling."""

    regime: str
    params: Params
    subsample: Subsample | None
    text: str  # canonical: parameters at their default are left out

    def __str__(self) -> str:
        return self.text


def resolve(task: Task | TaskSpec, dataset: Selector | str) -> DatasetRequest:
    """Checks a dataset's name against a task, without an engine and before anything is recorded.

    Raises:
        UnknownNameError: for an unknown regime, with the three nearest.
        UsageError: for an unknown parameter, a value out of range, or a regime that this task cannot have.
    """
    spec = task if isinstance(task, TaskSpec) else task.spec
    selector = Selector.parse(dataset) if isinstance(dataset, str) else dataset
    if selector.name not in REGIMES:
        raise UnknownNameError("dataset", selector.name, REGIMES)
    chosen = REGIMES[selector.name]
    if spec.n_agents < chosen.min_agents:
        raise UsageError(f"{selector}: needs {chosen.min_agents} agents or more, and {spec.id} has {spec.n_agents}.")
    if isinstance(task, Task):
        for level in chosen.levels:
            if level != "history" and level not in task.behaviour_levels:
                raise UsageError(
                    f"{selector}: {spec.id} has no {level!r} policy. It has: {', '.join(task.behaviour_levels)}."
                )
    known = chosen.params_of(spec)
    params: dict[str, Scalar] = {name: param.default for name, param in known.items()}
    for name, value in selector.params.items():
        if name in SUBSAMPLE_PARAMS:
            continue
        if name not in known:
            raise UnknownNameError(f"parameter of dataset {chosen.name!r}", name, (*known, *SUBSAMPLE_PARAMS))
        params[name] = _checked(str(selector), name, value, known[name])
    kept = parse_subsample(selector.params, str(selector))
    shown = {name: value for name, value in params.items() if value != known[name].default}
    text = str(Selector.of(chosen.name, {**shown, **(kept.params() if kept else {})}))
    return DatasetRequest(regime=chosen.name, params=MappingProxyType(params), subsample=kept, text=text)


def episodes_recorded(task: Task, request: DatasetRequest, episodes: int | None) -> int:
    """How many episodes are recorded before sub-sampling.

    `episodes` is what was asked for; None: the length of the training run for `medium-replay`, else
    DEFAULT_EPISODES. Sub-sampling to more episodes than that raises the number.

    Raises:
        UsageError: if it is not positive.
    """
    if episodes is None:
        episodes = _history_length(task) if REGIMES[request.regime].whole_run else DEFAULT_EPISODES
    if episodes < 1:
        raise UsageError(f"A dataset of {episodes} episodes cannot be built. Give 1 or more.")
    kept = request.subsample.episodes if request.subsample else None
    return max(episodes, kept or 0)


def identity(task: Task, request: DatasetRequest, episodes: int | None, seed: int) -> dict[str, object]:
    """Everything that determines the data, as JSON values, for an artefact key.

    Raises:
        UsageError: if a behaviour policy is not shipped.
    """
    chosen, spec = REGIMES[request.regime], task.spec
    return {
        "task": spec.id,
        "engine": spec.engine,
        "engine_version": spec.engine_version,
        "variant": spec.variant,
        "environment_files": dict(task.environment_files()),
        "regime": chosen.name,
        "regime_version": chosen.version,
        "params": dict(request.params),
        "subsample": request.subsample.params() if request.subsample else None,
        "episodes": episodes_recorded(task, request, episodes),
        "seed": seed,
        "behaviour": behaviour_digests(task, request),
        "collection_batch": collection_batch(spec),
        "collection_version": COLLECTION_VERSION,
    }


def behaviour_digests(task: Task, request: DatasetRequest) -> dict[str, str]:
    """SHA-256 of every policy file that the data come from, by level."""
    return {level: task.behaviour_digest(level) for level in REGIMES[request.regime].levels}


def collect(task: Task, request: DatasetRequest, episodes: int | None, seed: int, progress: Progress) -> OfflineDataset:
    """Records a dataset. Without sub-sampling, fewer episodes are a prefix of more.

    `medium-replay` with fewer episodes than the training run had keeps a uniform, nested part of the run.

    Raises:
        UsageError: if a behaviour policy is not shipped.
        DataError: if sub-sampling asks for more than was recorded, or the environment misbehaves.
    """
    chosen = REGIMES[request.regime]
    count = episodes_recorded(task, request, episodes)
    passes = count
    if chosen.whole_run:
        length = _history_length(task)
        passes = -(-count // length) * length  # whole passes through the training run
    data = record(task, chosen.plan(task, request.params), passes, seed, progress)
    if passes != count:
        data = subsample(data, Subsample(episodes=count), derive_seed("medium-replay", seed))
    return data if request.subsample is None else subsample(data, request.subsample, seed)


def _history_length(task: Task) -> int:
    return sum(phase.episodes for phase in task.training_history())


def _checked(text: str, name: str, value: Scalar, param: Param) -> int | float:
    whole = isinstance(param.default, int)
    if isinstance(value, bool | str) or (whole and not isinstance(value, int)):
        raise UsageError(f"{text}: {name}={value} is not a {'whole ' if whole else ''}number.")
    if not param.low <= value <= param.high:  # also refuses NaN
        raise UsageError(f"{text}: {name}={value} is out of range; expected {param.low:g} to {param.high:g}.")
    return value if whole else float(value)
