"""`omar`, `cql`: conservative critics of single agents, with and without OMAR's pull to better actions.

Pan et al. 2022, "Plan Better Amid Conservatism". MA-CQL is OMAR without the search (its repository's `omar=0`).
"""

from __future__ import annotations

from methods.algorithms.two_forms import TwoForms
from methods.learners.omar.config import OMARConfig as OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.learners.omar.discrete import DiscreteOMAR


class OMAR(TwoForms[OMARConfig]):
    """Conservative critics; actors are drawn to the best actions by Q^1, besides following Q.

    Continuous: L_Q = Σ_k mean (Q^k − y)² + α_cql Σ_k mean [logsumexp_a (Q^k(o, a) − log p(a)) − Q^k(o, a_data)],
    y = r_i + γ (1 − e) min_k Q̄^k(o', π̄(o')); L_π = τ mean (π − â)² − (1 − τ) mean Q^1(o, π) + 1e-3 mean u²,
    π = tanh u, â found by a search.

    Discrete: L_Q = Σ_k ⟨(Q^k − G)²⟩ + α_cql Σ_k ⟨logsumexp_a Q^k(s, o, a) − Q^k(s, o, a_data)⟩ over available a, G the
    smaller of the twins' λ-returns of r_i; L_π = −(1 − τ) ⟨A log π_ε(a_data)⟩ − τ ⟨log π(â)⟩,
    A = Q^1(a_data) − Σ_a π_ε(a) Q^1(a), π_ε = (1 − ε) π + ε / n, â the best of n available actions by Q^1.
    """

    Config = OMARConfig
    version = 3
    continuous = ContinuousOMAR
    discrete = DiscreteOMAR
    of_continuous = frozenset(
        {
            "polyak",
            "cql_samples",
            "policy_actions",
            "policy_noise",
            "search",
            "iterations",
            "samples",
            "elites",
            "search_sigma",
            "output_penalty",
            "penalised",
            "batch_norm",
        }
    )
    of_discrete = frozenset({"memory", "critic_hidden", "trace", "target_every", "exploration", "per_timestep_updates"})
