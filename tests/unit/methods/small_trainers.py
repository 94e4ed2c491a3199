"""Small trainers of every learner of sequences, in float64 and away from their targets, with a batch to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmark.checks import sample_dataset
from methods.base import Run
from methods.data.sequences import SequenceBatch, episode_sequences, transition_sequences
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.discrete import DiscreteBCQ
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.discrete import DiscreteCFCQL
from methods.learners.icq import ICQ
from methods.learners.icq.config import ICQConfig
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.discrete import DiscreteOMAR, DiscreteOMARTrainer
from methods.learners.omiga import OMIGA
from methods.learners.omiga.config import OMIGAConfig
from methods.learners.qmix_bcq import QMIXBCQ, QMIXBCQConfig
from methods.learners.qmix_cql import QMIXCQL, QMIXCQLConfig
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.discrete import DiscreteTD3BC
from tasks.datasets.offline import OfflineDataset
from tests.unit.methods.plain import in_float64

REPLICAS, AGENTS, ACTIONS = 2, 3, 5
SHAPES = ["discrete", "states-and-deaths"]


def generators(count: int = REPLICAS) -> list[np.random.Generator]:
    return [np.random.default_rng(r) for r in range(count)]


def datasets(shape: str, episodes: int = 6) -> list[OfflineDataset]:
    return [sample_dataset(shape, episodes=episodes, seed=seed).without_privileged() for seed in range(REPLICAS)]


class Small(NamedTuple):
    """How a learner is made small: its own batches of (episodes, steps) among 20 episodes, or those of `sequences`."""

    learner: Any
    config: Any
    params: dict[str, Any]
    batch_size: int = 4
    own_batches: tuple[int, int] | None = None


_TEAM: dict[str, Any] = {"hidden": 7, "mixer_embed": 4, "mixer_hidden": 6}
_BY_DATA: dict[str, Any] = {"conservatism": 2.0, "temperature": 20.0, "behaviour_updates": 3}
_CAREFUL: dict[str, Any] = {"conservatism": 2.0, "tau": 0.3, "discount": 0.9, "exploration": 0.2}
_CLONING: dict[str, Any] = {"hidden": 8, "mixer_hidden": 6, "memory": "gru", "alpha": 0.5}
SMALL: dict[str, Small] = {
    "omar": Small(DiscreteOMAR, OMARConfig, {"hidden": 7, "critic_hidden": 6, **_CAREFUL}),
    "cfcql": Small(DiscreteCFCQL, CFCQLConfig, {**_TEAM, **_BY_DATA}),
    "icq": Small(ICQ, ICQConfig, {**_CLONING, "critic_hidden": 8, "beta": 0.7, "trace": 0.6}, own_batches=(6, 16)),
    "omiga": Small(OMIGA, OMIGAConfig, {**_CLONING, "gru_hidden": 6}, own_batches=(4, 12)),
    "qmix-cql": Small(QMIXCQL, QMIXCQLConfig, _TEAM),
    "qmix-bcq": Small(QMIXBCQ, QMIXBCQConfig, _TEAM),
    "td3bc": Small(DiscreteTD3BC, TD3BCConfig, {"hidden": 7, "critic_hidden": 6}, batch_size=3),
    "bcq": Small(DiscreteBCQ, BCQConfig, {"hidden": 7}, batch_size=3),
}


def small(name: str, **config: Any) -> Any:
    """The learner of that name, with this config."""
    own = SMALL[name]
    return own.learner(own.config(**{**own.params, **config}))


def sequences(
    learner: Any, data: Sequence[OfflineDataset], updates: int, batch_size: int = 4
) -> Iterator[SequenceBatch]:
    """Whole episodes where the learner has a memory, or else single steps."""
    draw = episode_sequences if learner.config.memory == "gru" else transition_sequences
    return draw(data, generators(len(data)), batch_size=batch_size, updates=updates, device="cpu")


def made(
    name: str, shape: str = "discrete", data: Sequence[OfflineDataset] | None = None, **config: Any
) -> tuple[Any, SequenceBatch]:
    """A trainer in float64 whose targets, and a behaviour that only stays, differ from what they were; and a batch."""
    own, learner = SMALL[name], small(name, **config)
    data = datasets(shape, 6 if own.own_batches is None else 20) if data is None else data
    run = Run(seeds=tuple(range(len(data))))
    trainer = learner.new_trainer(data, run)
    if name == "omar":  # its optimiser takes weights as they are when it is made
        trainer = DiscreteOMARTrainer(learner.config, trainer.agent.double(), trainer.critics.double())
    nets = {key: net.double() for key, net in vars(trainer).items() if isinstance(net, nn.Module)}
    shift = torch.Generator().manual_seed(3)
    for key, net in nets.items():
        for parameter in net.parameters():
            if key.startswith("target") or not parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=shift, dtype=torch.float64))
    if own.own_batches is None:
        batch = next(sequences(learner, data, 1, own.batch_size))
    else:
        size = own.own_batches[0 if learner.config.memory == "gru" else 1]
        batch = next(learner.batches(data, run, f"{name}/batches", 1, size))
    return trainer, in_float64(batch)
