"""`bc`, `bc50`: behaviour cloning of all episodes or of the best ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.algorithms.training import Losses, Parts, descend, final_losses, named_tensors, train
from methods.base import Arrays, Learner, Run, UnsupportedError, added, require
from methods.data.batches import EpisodeBatch, StepBatch, episode_batches, transition_batches
from methods.networks.agents import GRUAgent, MLPAgent
from methods.networks.heads import bounded
from methods.networks.policy import AgentPolicy
from methods.objectives.cloning import doubled_negative_log_likelihood, negative_log_likelihood, squared_error
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

Agent = MLPAgent | GRUAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The fields of `BCConfig` that differ by action kind, all decided."""

    memory: str
    shared: bool
    learning_rate: float
    batch_size: int
    max_grad_norm: float
    normalise: bool


CONTINUOUS = Settings(
    memory="none",  # inferred: the actor of MA-TD3+BC, so that its α → 0 is BC (OMAR, App. B.1)
    shared=False,  # one actor an agent (OMAR, App. B.1)
    learning_rate=3e-4,  # OG-MARL, continuous_bc.yaml
    batch_size=640,  # OG-MARL, continuous_bc.yaml: 32 windows of 20 steps
    max_grad_norm=0.0,  # 0: no clipping, as OG-MARL
    normalise=True,  # inferred: z-score of the original data (TD3+BC's repository)
)
DISCRETE = Settings(
    memory="gru",  # OffPyMARL, bc.yaml
    shared=True,  # OffPyMARL, default.yaml
    learning_rate=5e-4,  # OffPyMARL, default.yaml
    batch_size=32,  # episodes; OffPyMARL, default.yaml (offline_batch_size)
    max_grad_norm=10.0,  # OffPyMARL, default.yaml
    normalise=False,  # OffPyMARL has none
)
DISCRETE_TRANSITIONS = 640  # inferred: batch of memory=none on discrete tasks, in line with CONTINUOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class BCConfig:
    """Behaviour cloning. None: as `CONTINUOUS` or `DISCRETE` above say, by the task's kind of actions."""

    hidden: int = 64  # OffPyMARL, default.yaml; OMAR, App. B.1; OG-MARL
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    keep_fraction: float = 1.0  # 0.5: 50%BC, the ceil(M/2) episodes of largest return (CODI, Sec. 4.1)
    rank: str = "return"  # or "mean_reward": return per step, where lengths differ by design (inferred)
    memory: str | None = None  # "none": perceptron on transitions, "gru": recurrent on episodes
    shared: bool | None = None  # one network for all agents, with their id as input; "gru" always shares
    learning_rate: float | None = None  # of Adam, otherwise with torch's defaults
    batch_size: int | None = None  # transitions, or episodes with memory=gru; unless the protocol sets it
    max_grad_norm: float | None = None  # of each replica; 0: no clipping
    normalise: bool | None = None  # z-score of the inputs by the statistics of the original data
    double_softmax: bool = added(False)  # OffPyMARL's loss in place of the likelihood; of discrete actions

    def __post_init__(self) -> None:
        require(self.memory in (None, "none", "gru"), "bc", f"memory={self.memory}", "none or gru")
        require(self.rank in ("return", "mean_reward"), "bc", f"rank={self.rank}", "return or mean_reward")
        require(0 < self.keep_fraction <= 1, "bc", f"keep_fraction={self.keep_fraction}", "a number in (0, 1]")
        for name in ("hidden", "updates", "batch_size"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(value is None or whole, "bc", f"{name}={value}", "a whole number, 1 or more")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(value is None or (isinstance(value, int | float) and value >= 0), "bc", f"{name}={value}", ">= 0")
        for name in ("shared", "normalise"):
            value = getattr(self, name)
            require(value is None or isinstance(value, bool), "bc", f"{name}={value}", "true or false")

    def settings(self, spec: TaskSpec) -> Settings:
        """All fields decided for one task."""
        preset = DISCRETE if spec.action.discrete else CONTINUOUS
        memory = preset.memory if self.memory is None else self.memory
        recurrent = memory == "gru"
        own_batch = (
            preset.batch_size
            if memory == preset.memory
            else (DISCRETE.batch_size if recurrent else DISCRETE_TRANSITIONS)
        )
        return Settings(
            memory=memory,
            shared=recurrent or (preset.shared if self.shared is None else self.shared),
            learning_rate=preset.learning_rate if self.learning_rate is None else self.learning_rate,
            batch_size=own_batch if self.batch_size is None else self.batch_size,
            max_grad_norm=preset.max_grad_norm if self.max_grad_norm is None else self.max_grad_norm,
            normalise=preset.normalise if self.normalise is None else self.normalise,
        )


class BC(Learner[BCConfig]):
    """Maximises the likelihood (discrete) or minimises the squared error (continuous) of the recorded actions."""

    Config = BCConfig
    version = 1

    def needs_episodes(self, spec: TaskSpec) -> str | None:
        """A memory does, and a choice by return."""
        transitions = "the data are single transitions"
        if self.config.settings(spec).memory == "gru":
            return (
                f"{transitions}, which a recurrent policy cannot be trained on. "
                "Use bc[memory=none], or an augmenter that returns episodes."
            )
        if self.config.keep_fraction < 1:
            return (
                f"{transitions}, so no episode has a return to rank it by. "
                "Use bc, or an augmenter that returns episodes."
            )
        return None

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> AgentPolicy:
        """Clones R behaviours at once. Diagnosis: `final_loss`, `share_of_synthetic_kept`."""
        if len(data) != len(run.seeds) or not data:
            raise UsageError(f"bc: {len(data)} datasets for {len(run.seeds)} seeds, expected one each.")
        spec, replicas = data[0].spec, len(data)
        settings = self.config.settings(spec)
        kept = [self._kept(d, settings) for d in data]
        agent = self._agent(spec, [run.generator("bc/weights", r) for r in range(replicas)]).to(run.device)
        if settings.normalise:
            agent.scaler.fit(data, run.original)
        if self.config.double_softmax and not spec.action.discrete:
            raise UnsupportedError(f"{spec.id}: bc: double_softmax is a loss of discrete actions; leave it out.")

        updates = self.config.updates if run.budget.updates is None else run.budget.updates
        batch_size = settings.batch_size if run.budget.batch_size is None else run.budget.batch_size
        batches: Iterator[EpisodeBatch | StepBatch] = (
            episode_batches if settings.memory == "gru" else transition_batches
        )(
            data,
            kept,
            [run.generator("bc/batches", r) for r in range(replicas)],
            batch_size=batch_size,
            updates=updates,
            device=run.device,
        )
        trainer = _Trainer(agent, spec, settings, self.config.double_softmax)
        losses = train(batches, trainer, run, updates, lambda: AgentPolicy(agent, spec, replicas, run.device))
        diagnosis = [
            {
                **final_losses(losses, r),
                "share_of_synthetic_kept": _synthetic_share(kept[r], data[r], run.original_episodes, r),
            }
            for r in range(replicas)
        ]
        policy = AgentPolicy(agent, spec, replicas, run.device, diagnosis)
        run.snapshot(updates, policy)
        return policy

    def load_policy(self, states: Sequence[Arrays], spec: TaskSpec, device: str) -> AgentPolicy:
        """The stored policies, acting together."""
        unused = [np.random.default_rng(0) for _ in states]  # for weights that are overwritten at once
        policy = AgentPolicy(self._agent(spec, unused), spec, len(states), device)
        policy.load(states)
        return policy

    def _agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> Agent:
        settings = self.config.settings(spec)
        if settings.memory == "gru":
            return GRUAgent(spec, self.config.hidden, spec.action.discrete, generators)
        return MLPAgent(spec, self.config.hidden, settings.shared, generators)

    def _kept(self, data: OfflineDataset, settings: Settings) -> NDArray[np.int64]:
        """Indices of the episodes to clone, ascending.

        Raises:
            UnsupportedError: for data without episodes, or single transitions where whole episodes are needed.
        """
        if data.n_episodes == 0:
            raise UnsupportedError(f"{data.spec.id}: there is no episode to clone.")
        single, reason = int(data.lengths.max()) == 1, self.needs_episodes(data.spec)
        if single and data.spec.episode_limit > 1 and reason is not None:
            raise UnsupportedError(f"{data.spec.id}: {reason}")
        scores = data.returns() / (data.lengths if self.config.rank == "mean_reward" else 1)
        return best_episodes(scores, self.config.keep_fraction)


class _Trainer:
    """The agents of R teams and their optimiser."""

    def __init__(self, agent: Agent, spec: TaskSpec, settings: Settings, double_softmax: bool) -> None:
        self.done, self._agent, self._spec, self._settings = 0, agent, spec, settings
        self._double_softmax = double_softmax
        self._parameters: list[Tensor] = list(agent.parameters())
        self._adam = torch.optim.Adam(self._parameters, lr=settings.learning_rate, fused=True)

    def update(self, batch: EpisodeBatch | StepBatch) -> Losses:
        """One gradient update."""
        loss = self._loss(batch)  # (R,)
        descend(self._adam, self._parameters, loss, len(loss), self._settings.max_grad_norm)
        self.done += 1
        return {"loss": loss}

    def parts(self) -> Parts:
        """See `Trainer`."""
        return Parts(named_tensors(agent=self._agent), [self._adam])

    def _loss(self, batch: EpisodeBatch | StepBatch) -> Tensor:
        """(R,) the loss of each replica."""
        valid = None
        if isinstance(batch, EpisodeBatch):
            raw, _ = self._agent(batch.observations, batch.last_actions)
            valid = batch.valid
        else:
            raw = self._agent(batch.observations)
        if batch.available is None or not self._spec.action.discrete:
            return squared_error(bounded(raw, self._spec.action), batch.actions, valid)
        if self._double_softmax:
            epsilon = exploration_after(self.done)
            return doubled_negative_log_likelihood(raw, batch.actions, batch.available, valid, epsilon)
        return negative_log_likelihood(raw, batch.actions, batch.available, valid)


def exploration_after(updates: int) -> float:
    """The ε of OffPyMARL's `bc` after so many updates: 0.5 to 0.01 over 50,000, read anew every 500."""
    return max(0.01, 0.5 - (0.5 - 0.01) * (updates - updates % 500) / 50_000)


def best_episodes(scores: NDArray[np.float64], fraction: float) -> NDArray[np.int64]:
    """Indices, ascending, of the ⌈fraction · M⌉ largest of M scores; the lower index wins a tie (CODI, Sec. 4.1)."""
    order = np.argsort(-scores, kind="stable")
    return np.sort(order[: ceil(fraction * len(scores))])


def _synthetic_share(
    kept: NDArray[np.int64], data: OfflineDataset, original_episodes: tuple[int, ...] | None, replica: int
) -> float | None:
    """Which part of the synthetic episodes was cloned; None where that is unknown or there are none."""
    if original_episodes is None or data.n_episodes <= original_episodes[replica]:
        return None
    first = original_episodes[replica]
    return float((kept >= first).sum() / (data.n_episodes - first))
