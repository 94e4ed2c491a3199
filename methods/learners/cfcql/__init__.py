"""`cfcql`: counterfactual conservative Q-learning (Shao et al. 2023), for continuous and for discrete actions."""

from __future__ import annotations

from types import MappingProxyType

from methods.algorithms.two_forms import TwoForms
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import ContinuousCFCQL
from methods.learners.cfcql.discrete import DiscreteCFCQL


class CFCQL(TwoForms[CFCQLConfig]):
    """A value of the team, kept down where a single agent leaves the data and the others stay with it.

    Continuous actions: one twin critic of the joint action, which deterministic actors raise one at a time,
    L_Q = Σ_k mean (Q^k − y)² + α mean [Σ_i w_i logsumexp_j (Q^k(s, a_{−i}, a_i^j) − log p) − Q^k(s, a)],
    L_π = −mean_{b,i} Q^1(s, a_{−i}, π_i(o_i)) + 1e-3 Σ_i mean u_i², π_i = tanh u_i.

    Discrete actions: QMIX, L = c ⟨(Q_tot − G)²⟩ + α ⟨Σ_i w_i log Σ_a exp Q_tot(a_{−i}, a) − Q_tot(a)⟩ with available
    actions a and λ-returns G.

    w = 1/N, or by how far each agent's policy is from a model of the data, which is trained first.
    """

    Config = CFCQLConfig
    version = 2
    continuous = ContinuousCFCQL
    discrete = DiscreteCFCQL
    of_continuous = frozenset(
        {
            "polyak",
            "cql_samples",
            "target_noise",
            "ca_ratio",
            "output_penalty",
            "penalised",
            "batch_norm",
            "behaviour_samples",
        }
    )
    of_discrete = frozenset({"memory", "trace", "td_weight", "mixer_embed", "mixer_hidden", "target_every"})

    tiny_params = MappingProxyType({"behaviour_updates": 5})
