"""`td3bc`: MA-TD3+BC, TD3 whose actors also clone the data (Fujimoto & Gu 2021; OMAR, App. B.1; OffPyMARL)."""

from __future__ import annotations

from methods.algorithms.two_forms import TwoForms
from methods.learners.td3bc.config import TD3BCConfig
from methods.learners.td3bc.continuous import ContinuousTD3BC
from methods.learners.td3bc.discrete import DiscreteTD3BC


class TD3BC(TwoForms[TD3BCConfig]):
    """Actors maximise λ Q^1 − cloning with λ = α / mean |Q^1|, every second update; twin critics Σ_k ⟨(Q^k − y)²⟩.

    Continuous actions: every agent by itself with its own reward, cloning (π − a)²,
    y_i = r_i + γ (1 − e) min_k Q̄_i^k(o'_i, clip(π̄_i(o'_i) + clip(ξ, −c, c))), ξ ~ N(0, σ²).

    Discrete actions: critics of state and joint action with the team's reward, cloning −log π_i(a_i | τ_i),
    y = r + γ (1 − e) min_k Q̄^k(s', argmax π̄); Q^1 is of actions sampled with Gumbel noise, straight through, an agent
    following the gradient of its own action alone.

    `form=tau` is how MASTARS describes the learner: (1 − τ) Q^1 − τ cloning.
    """

    Config = TD3BCConfig
    version = 2
    continuous = ContinuousTD3BC
    discrete = DiscreteTD3BC
    of_discrete = frozenset({"memory", "critic_hidden"})
