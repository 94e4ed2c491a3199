"""What a config that leaves values open takes from the task, and the agents that it makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmark.checks import sample_dataset
from methods.algorithms import independent_td3
from methods.algorithms.sequence_learner import unrolled
from methods.algorithms.value_team import ValueTeamConfig
from methods.learners.bcq import config as bcq
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.discrete import DiscreteBCQ
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import ContinuousCFCQL
from methods.learners.cfcql.discrete import DiscreteCFCQL
from methods.learners.icq import config as icq
from methods.learners.icq.config import ICQConfig
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.learners.omar.discrete import DiscreteOMAR
from methods.learners.omiga import OMIGA
from methods.learners.omiga.config import OMIGAConfig
from methods.learners.qmix_bcq import QMIXBCQ, QMIXBCQConfig
from methods.learners.qmix_cql import QMIXCQL, QMIXCQLConfig
from methods.learners.td3bc.config import CHOICES, TD3BCConfig
from methods.learners.td3bc.discrete import DiscreteTD3BC
from methods.networks.agents import GRUAgent
from tasks.common.errors import UsageError
from tests.unit.methods.problems import own_generators
from tests.unit.methods.small_trainers import AGENTS, REPLICAS, generators

PARTICLES, DISCRETE = sample_dataset("continuous").spec, sample_dataset("discrete").spec
LOCOMOTION = replace(PARTICLES, family="mamujoco")


def test_bcq() -> None:
    assert BCQConfig().sizes(PARTICLES) == bcq.PARTICLES
    assert BCQConfig().sizes(LOCOMOTION) == bcq.LOCOMOTION
    assert BCQConfig(vae_hidden=7).sizes(PARTICLES) == replace(bcq.PARTICLES, vae_hidden=7)
    assert BCQConfig().sizes(DISCRETE) == bcq.DISCRETE
    assert BCQConfig(memory="none").sizes(DISCRETE) == replace(bcq.DISCRETE, batch_size=640)
    assert BCQConfig(hidden=7, normalise=True).sizes(DISCRETE) == replace(bcq.DISCRETE, hidden=7, normalise=True)
    assert DiscreteBCQ().own_budget(DISCRETE) == (100_000, 32)


def test_cfcql_of_continuous_actions() -> None:
    particles, locomotion = CFCQLConfig().settings(PARTICLES), CFCQLConfig().settings(LOCOMOTION)
    assert (particles.hidden, particles.learning_rate, particles.polyak, particles.batch_size) == (64, 1e-3, 0.01, 1024)
    assert (locomotion.hidden, locomotion.learning_rate, locomotion.polyak) == (256, 3e-4, 0.005)
    assert (particles.conservatism, particles.temperature, particles.weights) == (5.0, -1.0, "uniform")
    assert (particles.behaviour_updates, particles.behaviour_hidden) == (100_000, 750)
    assert CFCQLConfig(learning_rate=0.5).settings(PARTICLES).learning_rate == 0.5


def test_cfcql_of_discrete_actions() -> None:
    found, without = CFCQLConfig().settings(DISCRETE), CFCQLConfig(memory="none", hidden=32).settings(DISCRETE)
    assert (found.conservatism, found.temperature, found.weights) == (50.0, 5.0, "behaviour")
    assert (found.batch_size, found.behaviour_batch_size, found.behaviour_updates) == (32, 32, 20_000)
    assert (found.learning_rate, found.max_grad_norm, found.normalise) == (1e-3, 10.0, False)
    assert (without.batch_size, without.behaviour_batch_size) == (640, 640)
    assert (without.hidden, without.behaviour_hidden) == (32, 32)


def test_icq() -> None:
    assert ICQConfig().sizes(PARTICLES) == icq.PARTICLES
    assert ICQConfig().sizes(LOCOMOTION) == icq.LOCOMOTION
    assert ICQConfig().sizes(DISCRETE) == icq.CHOICES
    assert ICQConfig(memory="none").sizes(DISCRETE) == icq.SINGLE_CHOICES
    assert ICQConfig(hidden=7, polyak=0.5).sizes(DISCRETE) == replace(icq.CHOICES, hidden=7, polyak=0.5)


def test_omar() -> None:
    assert DiscreteOMAR().own_budget(DISCRETE) == (100_000, 32)
    assert DiscreteOMAR(OMARConfig(memory="none")).own_budget(DISCRETE) == (100_000, 640)
    settings, sizes = OMARConfig().settings(), OMARConfig().sizes(PARTICLES)
    assert (settings.hidden, settings.learning_rate, settings.max_grad_norm) == (64, 1e-3, 10.0)
    assert (sizes.hidden, sizes.learning_rate, sizes.max_grad_norm) == (64, 0.01, 0.5)
    assert (settings.normalise, sizes.normalise) == (False, True)
    assert OMARConfig(learning_rate=0.5).settings().learning_rate == 0.5
    assert OMARConfig(max_grad_norm=0.0).sizes(PARTICLES).max_grad_norm == 0.0


def test_omiga() -> None:
    assert OMIGA().own_budget(DISCRETE) == (100_000, 128)
    assert OMIGA(OMIGAConfig(memory="gru")).own_budget(DISCRETE) == (100_000, 32)
    assert OMIGA(OMIGAConfig(memory="gru", batch_size=7)).own_budget(DISCRETE) == (100_000, 7)


def test_td3bc() -> None:
    assert TD3BCConfig().sizes(PARTICLES) == independent_td3.PARTICLES
    assert TD3BCConfig().sizes(LOCOMOTION) == independent_td3.LOCOMOTION
    assert (TD3BCConfig().sizes(PARTICLES).hidden, TD3BCConfig().sizes(LOCOMOTION).hidden) == (64, 256)
    assert TD3BCConfig(hidden=5).sizes(LOCOMOTION).hidden == 5
    assert TD3BCConfig().sizes(DISCRETE) == CHOICES
    assert TD3BCConfig(memory="none").sizes(DISCRETE) == replace(CHOICES, batch_size=640)
    assert TD3BCConfig(max_grad_norm=0.0).sizes(DISCRETE) == replace(CHOICES, max_grad_norm=0.0)
    assert DiscreteTD3BC().own_budget(DISCRETE) == (100_000, 32)


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_qmix_takes_the_mean_of_rewards_where_the_task_sums_them() -> None:
    assert ValueTeamConfig().settings(DISCRETE).reward == "mean"
    assert ValueTeamConfig(reward="task").settings(DISCRETE).reward == "sum"
    assert ValueTeamConfig().settings(replace(DISCRETE, team_reward="first")).reward == "first"


SCALED = [TD3BCConfig, OMARConfig, CFCQLConfig, BCQConfig, ICQConfig, OMIGAConfig, QMIXCQLConfig, QMIXBCQConfig]


@pytest.mark.parametrize("config", SCALED)
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), True])
def test_what_rewards_are_divided_by_is_above_zero(config: Any, scale: float) -> None:
    with pytest.raises(UsageError, match="reward_scale=.*, expected a finite number above 0"):
        config(reward_scale=scale)


# -- agents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learner", "last_action", "relu_after"),
    [
        (DiscreteBCQ(), False, True),
        (DiscreteCFCQL(), True, False),
        (DiscreteOMAR(), True, False),
        (DiscreteTD3BC(), False, False),
        (QMIXBCQ(), False, True),
        (QMIXCQL(), False, True),
    ],
    ids=lambda value: None if isinstance(value, bool) else type(value).__name__,
)
def test_recurrent_agents_are_those_of_the_source(learner: Any, last_action: bool, relu_after: bool) -> None:
    """OG-MARL's see no last action and have a ReLU behind the memory; PyMARL's see one and have none."""
    agent = learner.new_agent(DISCRETE, generators())
    assert isinstance(agent, GRUAgent)
    assert (agent.last_action, agent.relu_after, agent.memory.hidden) == (last_action, relu_after, 64)
    seen = DISCRETE.obs_dim + AGENTS + (DISCRETE.action.size if last_action else 0)
    assert agent.encoder.weight.shape == (REPLICAS, seen, 64)


def test_a_recurrent_agent_starts_afresh() -> None:
    agent = QMIXCQL(QMIXCQLConfig(hidden=7)).new_agent(DISCRETE, generators())
    seen = torch.randn(2, 4, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unrolled(agent, seen)[:, :1], unrolled(agent, seen[:, :1]))


@pytest.mark.parametrize(
    "learner",
    [ContinuousCFCQL(CFCQLConfig(hidden=16)), ContinuousOMAR(OMARConfig(hidden=16))],
    ids=lambda value: type(value).__name__,
)
def test_actors_of_omar_and_cfcql_start_small(learner: Any) -> None:
    last = list(learner.new_agent(PARTICLES, own_generators(0)).net.parameters())[-2].detach()
    assert 2.5e-3 < float(last.abs().max()) <= 3e-3
