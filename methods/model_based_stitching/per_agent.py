"""Stitching agent by agent: the method of MBTS, which is for one agent, once for each agent of a team."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import Arrays, Run
from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.passes import Stitching, StitchReport, StitchSettings
from methods.model_based_stitching.stitched import StitchedEpisodes, ranges
from methods.run import Checkpoint
from methods.synthesis.emission import per_agent_rewards
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


def agent_spec(spec: TaskSpec, agent: int) -> TaskSpec:
    """The task as one agent sees it: no global state, no deaths, a reward of its own."""
    return replace(
        spec,
        id=f"{spec.id}, agent {agent}",
        n_agents=1,
        agent_groups=((0,),),
        state_dim=None,
        has_deaths=False,
        team_reward="first",
        score_references=None,
    )


def agent_data(data: OfflineDataset, agent: int) -> OfflineDataset:
    """What one agent saw, did and was paid, (…, 1, …)."""
    own = slice(agent, agent + 1)
    available = data.available_actions
    return OfflineDataset(
        spec=agent_spec(data.spec, agent),
        observations=data.observations[:, own],
        actions=data.actions[:, own],
        rewards=data.rewards[:, own],
        terminals=data.terminals,
        truncations=data.truncations,
        episode_starts=data.episode_starts,
        available_actions=None if available is None else available[:, own],
        won=data.won,
    )


@dataclass(frozen=True, kw_only=True)
class AgentRun(Run):
    """A run whose randomness is that of one agent."""

    agent: int = 0

    def generator(self, purpose: str, replica: int = 0) -> np.random.Generator:
        """A stream that no other agent has."""
        return Run.generator(self, f"agent{self.agent}/{purpose}", replica)


def agent_runs(run: Run, agents: int) -> list[AgentRun]:
    """A run for each agent, one after another, which share progress and checkpoint."""
    shared = None if run.checkpoint is None else _SharedCheckpoint(run.checkpoint)
    given = {name: getattr(run, name) for name in Run.__dataclass_fields__}

    def of(agent: int) -> AgentRun:
        def progress(done: int, total: int, message: str) -> None:
            run.progress(agent * total + done, agents * total, f"agent {agent + 1} of {agents}: {message}")

        part = None if shared is None else _Part(shared, f"agent{agent}/")
        return AgentRun(**{**given, "agent": agent, "progress": progress, "checkpoint": part})

    return [of(agent) for agent in range(agents)]


class TeamStitching:
    """As `Stitching`, of episodes that are put together from each agent's own.

    Args:
        settings: one an agent, for the radius is each one's own.
        models: one an agent, on the run's device.
        data: of the team.
        run: one seed.
    """

    def __init__(
        self, settings: Sequence[StitchSettings], models: Sequence[StitchingModel], data: OfflineDataset, run: Run
    ) -> None:
        runs = agent_runs(run, len(models))
        parts = zip(settings, models, runs, strict=True)
        self._agents = [Stitching(s, m, agent_data(data, r.agent), r) for s, m, r in parts]
        self._spec = data.spec
        self._changed = np.zeros((0, 0), dtype=np.bool_)  # (N, E)

    @property
    def report(self) -> StitchReport:
        """Means over the agents, and sums of counts."""
        reports = [agent.report for agent in self._agents]
        named = ("radius", "mean_neighbours", "alone", "full")
        means = {name: float(np.mean([getattr(report, name) for report in reports])) for name in named}
        passes = []
        for told in zip(*(report.passes for report in reports), strict=True):
            total = {name: sum(one[name] for one in told) for name in told[0]}
            passes.append({**total, "value_loss": total["value_loss"] / len(told)})
        return StitchReport(**means, passes=passes)

    def passes(self) -> tuple[StitchedEpisodes, NDArray[np.bool_]]:
        """The team's episodes after the last pass of every agent, and which (E,) are another's for some agent."""
        own, changed = zip(*(agent.passes() for agent in self._agents), strict=True)
        self._changed = np.stack(changed)
        return team_episodes(own, self._spec), np.asarray(self._changed.any(axis=0))

    def drawn_again(self, owners: NDArray[np.int64], number: int) -> tuple[StitchedEpisodes, NDArray[np.bool_]]:
        """Episodes `owners` with fresh actions and rewards, and which still are better for every changed agent."""
        parts, better = [], np.ones(len(owners), dtype=np.bool_)
        for agent, changed in zip(self._agents, self._changed, strict=True):
            again, still = agent.drawn_again(owners, number)
            parts.append(again)
            better &= still | ~changed[owners]
        return team_episodes(parts, self._spec), better


def team_episodes(parts: Sequence[StitchedEpisodes], spec: TaskSpec) -> StitchedEpisodes:
    """N agents' episodes side by side, E of each, cut to the shortest of an episode (inferred).

    An episode ends truly, and is won, if that is so for an agent whose own ends there. Rows are (S + E, N), the agents'
    own. Rewards are each agent's own, or where the task counts the first one's for all, their mean.
    """
    lengths = np.stack([part.lengths for part in parts])  # (N, E)
    shortest = lengths.min(axis=0)
    ending = lengths == shortest
    steps = [ranges(part.starts[:-1], shortest) for part in parts]
    count = np.arange(parts[0].n_episodes)
    rows = [part.rows[ranges(part.starts[:-1] + count, shortest + 1)] for part in parts]
    rewards = np.concatenate([part.rewards[own] for part, own in zip(parts, steps, strict=True)], axis=1)
    if spec.team_reward == "first":
        rewards = per_agent_rewards(rewards.mean(axis=1), spec)
    return StitchedEpisodes(
        rows=np.stack(rows, axis=1),
        actions=np.concatenate([np.asarray(p.actions)[own] for p, own in zip(parts, steps, strict=True)], axis=1),
        rewards=rewards,
        synthetic=np.logical_or.reduce([p.synthetic[own] for p, own in zip(parts, steps, strict=True)]),
        terminal=np.logical_or.reduce([e & part.terminal for e, part in zip(ending, parts, strict=True)]),
        won=np.logical_or.reduce([e & part.won for e, part in zip(ending, parts, strict=True)]),
        starts=np.concatenate([[0], np.cumsum(shortest)]).astype(np.int64),
    )


class _SharedCheckpoint:
    """The states of all agents' fits in one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.stored: dict[str, NDArray[Any]] = dict(checkpoint.load() or {})


class _Part:
    """The checkpoint of one agent's fit; see `Checkpoint`."""

    def __init__(self, shared: _SharedCheckpoint, prefix: str) -> None:
        self._shared, self._prefix = shared, prefix

    def load(self) -> Arrays | None:
        stored = self._shared.stored.items()
        return {n.removeprefix(self._prefix): a for n, a in stored if n.startswith(self._prefix)} or None

    def due(self) -> bool:
        return self._shared.checkpoint.due()

    def save(self, arrays: Arrays) -> None:
        others = {n: a for n, a in self._shared.stored.items() if not n.startswith(self._prefix)}
        self._shared.stored = {**others, **{f"{self._prefix}{name}": array for name, array in arrays.items()}}
        self._shared.checkpoint.save(self._shared.stored)
