"""Problems with a known answer: the best joint action of matrix games and the best action of bandits is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from methods.base import Budget, Run
from methods.learners.bcq import BCQ
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.continuous import ContinuousBCQ
from methods.learners.cfcql import CFCQL
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import ContinuousCFCQL
from methods.learners.icq import ICQ
from methods.learners.icq.config import ICQConfig
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.learners.omar.discrete import DiscreteOMAR
from methods.learners.omiga import OMIGA
from methods.learners.omiga.config import OMIGAConfig
from methods.learners.qmix_bcq import QMIXBCQ, QMIXBCQConfig
from methods.learners.qmix_cql import QMIXCQL, QMIXCQLConfig
from methods.learners.td3bc import TD3BC
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.continuous import ContinuousTD3BC
from tests.unit.methods.problems import MONOTONE_PAYOFF, PAYOFF, acted, bandit, game, mean_game

BCQ_FAST: dict[str, Any] = {"learning_rate": 2e-2, "target_every": 5, "hidden": 16}
CFCQL_FAST: dict[str, Any] = {
    **BCQ_FAST,
    "conservatism": 0.1,
    "behaviour_updates": 20,
    "behaviour_batch_size": 32,
    "behaviour_learning_rate": 2e-2,
}
ICQ_FAST: dict[str, Any] = {"hidden": 32, "critic_hidden": 32, "learning_rate": 1e-2, "critic_learning_rate": 1e-2}
OMAR_FAST: dict[str, Any] = {**BCQ_FAST, "critic_hidden": 16, "conservatism": 0.1}
OMIGA_FAST: dict[str, Any] = {"hidden": 32, "gru_hidden": 16, "alpha": 0.3, "polyak": 0.1, "learning_rate": 1e-2}
TD3BC_FAST: dict[str, Any] = {"learning_rate": 2e-2, "polyak": 0.2, "hidden": 16, "critic_hidden": 16}

GAMES: dict[str, tuple[Any, int, int]] = {}  # learner, updates, batch size
for memory in ("gru", "none"):
    GAMES |= {
        f"bcq-{memory}": (BCQ(BCQConfig(**BCQ_FAST, memory=memory)), 100, 32),
        f"cfcql-behaviour-{memory}": (CFCQL(CFCQLConfig(**CFCQL_FAST, memory=memory, weights="behaviour")), 150, 32),
        f"cfcql-uniform-{memory}": (CFCQL(CFCQLConfig(**CFCQL_FAST, memory=memory, weights="uniform")), 150, 32),
        f"cql-{memory}": (DiscreteOMAR(OMARConfig(**OMAR_FAST, memory=memory, tau=0.0)), 120, 64),
        f"icq-{memory}": (ICQ(ICQConfig(**ICQ_FAST, memory=memory)), 120, 32),
        f"omar-{memory}": (DiscreteOMAR(OMARConfig(**OMAR_FAST, memory=memory, tau=0.5)), 120, 64),
        f"omiga-{memory}": (OMIGA(OMIGAConfig(**OMIGA_FAST, memory=memory)), 120, 32),
        f"qmix-bcq-{memory}": (
            QMIXBCQ(QMIXBCQConfig(**BCQ_FAST, memory=memory, filter_at_eval=memory == "none")),
            150,
            32,
        ),
        f"qmix-cql-{memory}": (QMIXCQL(QMIXCQLConfig(**BCQ_FAST, memory=memory)), 150, 32),
        f"td3bc-{memory}": (TD3BC(TD3BCConfig(**TD3BC_FAST, memory=memory)), 80, 32),
    }


@pytest.mark.parametrize("name", GAMES)
def test_the_best_joint_action_of_a_matrix_game_is_found_and_the_next_best_where_it_is_masked(name: str) -> None:
    """5 at (1, 2); 3 at (2, 2) where agent 0 must not take 1.

    Learners of agents' own values go by the means of rows and columns, (8/3, 8/3), which are the same entries.
    """
    learner, updates, batch_size = GAMES[name]
    make = mean_game if name.startswith("qmix") else game
    payoff = MONOTONE_PAYOFF if name.startswith(("qmix", "cfcql")) else PAYOFF
    data = [make(payoff), make(payoff, masked=(0, 1))]
    assert acted(learner, data, updates, batch_size) == [[1, 2], [2, 2]]


# -- continuous actions -----------------------------------------------------------------------------------------------

NARROW = {"hidden": 32, "second_hidden": 32, "vae_hidden": 32}
QUICK: dict[str, Any] = {"hidden": 32, "batch_norm": False, "conservatism": 0.01}
SEARCHING: dict[str, Any] = {**QUICK, "learning_rate": 3e-3, "cql_samples": 4}
BANDITS: dict[str, tuple[Any, float, int, int]] = {  # learner, mean of the data, updates, batch size
    "bcq by choice": (ContinuousBCQ(BCQConfig(**NARROW, perturbation=0.05)), 0.1, 400, 64),
    "bcq by perturbation": (ContinuousBCQ(BCQConfig(**NARROW, perturbation=0.5)), -0.1, 400, 64),
    "cfcql": (ContinuousCFCQL(CFCQLConfig(**QUICK, learning_rate=0.01, cql_samples=2)), -0.1, 500, 64),
    "td3bc": (ContinuousTD3BC(TD3BCConfig(hidden=32, alpha=50.0)), -0.1, 500, 32),
    "omar": (ContinuousOMAR(OMARConfig(**SEARCHING)), -0.1, 500, 32),
    "omar elites": (ContinuousOMAR(OMARConfig(**SEARCHING, search="elites", samples=20, iterations=2)), -0.1, 500, 32),
    "cql": (ContinuousOMAR(OMARConfig(**SEARCHING, tau=0.0)), -0.1, 500, 32),
}


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 4.0)])
@pytest.mark.parametrize("name", BANDITS)
def test_the_best_action_of_a_bandit_is_found(name: str, bounds: tuple[float, float]) -> None:
    """The data lie around their mean, where cloning would stay; the optimum is at 0.3 for every agent.

    It is within reach of BCQ's proposals: they spread by √(0.5² − 0.5/4) · 0.5 = 0.18 around the mean, a linear
    decoder's weight for data of this width times the limit of the latents, and Φ comes on top. Batch normalisation
    hides from a critic what all actions of a batch have in common, and here there is nothing else.
    """
    learner, mean, updates, batch_size = BANDITS[name]
    data, (low, high) = bandit(mean, 0.5, *bounds), bounds
    policy = learner.fit([data], Run(seeds=(0,), budget=Budget(updates=updates, batch_size=batch_size)))
    action, _ = policy.act(data.observations[None, :1], None)
    np.testing.assert_allclose((action - low) / (high - low) * 2 - 1, 0.3, atol=0.12)


def test_the_best_action_of_a_bandit_is_found_with_weights_by_behaviour() -> None:
    data = bandit(-0.1, 0.5)
    small = {"behaviour_hidden": 16, "behaviour_updates": 50, "behaviour_samples": 2, "cql_samples": 2}
    learner = ContinuousCFCQL(CFCQLConfig(**QUICK, **small, learning_rate=0.01, weights="behaviour"))
    policy = learner.fit([data], Run(seeds=(0,), budget=Budget(updates=500, batch_size=64)))
    np.testing.assert_allclose(policy.act(data.observations[None, :1], None)[0], 0.3, atol=0.15)
