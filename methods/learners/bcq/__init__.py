"""`bcq`: batch-constrained Q-learning of every agent by itself (MA-BCQ; Fujimoto et al. 2019).

INS names a MA-BCQ without equations or settings. For continuous actions this is BCQ's own repository, one learner an
agent, for discrete ones OG-MARL's `iql_bcq`.
"""

from __future__ import annotations

from types import MappingProxyType

from methods.algorithms.two_forms import TwoForms
from methods.learners.bcq.config import BCQConfig
from methods.learners.bcq.continuous import ContinuousBCQ
from methods.learners.bcq.discrete import DiscreteBCQ


class BCQ(TwoForms[BCQConfig]):
    """Every agent chooses among actions that a model of the data proposes; r_i is its own reward.

    Continuous actions: a VAE of the agent's own data proposes, mean (â − a)² + KL / 2, and Φ tanh ξ moves what it
    decodes; Σ_k mean (Q^k − y)² with y_i = r_i + γ (1 − e) max_j [λ min_k Q̄^k(o', a_j) + (1 − λ) max_k Q̄^k(o', a_j)].

    Discrete actions: likely are available actions with p(a) / max p ≥ ζ by a behaviour network, trained on
    ⟨−log p(a_i)⟩; ½ ⟨(Q_i − y_i)²⟩ with y_i = r_i + γ (1 − e) Q̄_i(o', a*), a* the best likely action for Q_i.
    """

    Config = BCQConfig
    version = 2
    continuous = ContinuousBCQ
    discrete = DiscreteBCQ
    of_continuous = frozenset(
        {"second_hidden", "vae_hidden", "polyak", "perturbation", "minimum_share", "target_samples", "proposals"}
    )
    of_discrete = frozenset({"memory", "threshold", "target_every", "filter_at_eval"})

    tiny_params = MappingProxyType({"hidden": 24, "second_hidden": 16, "vae_hidden": 32})
