"""`td3bc` for continuous actions: independent TD3 whose actors also clone the data (Fujimoto & Gu 2021; OMAR)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from methods.algorithms.independent_td3 import IndependentTD3
from methods.algorithms.team import Team, Views
from methods.learners.td3bc.config import TD3BCConfig
from methods.objectives.td3 import mixed_actor_loss, td3_bc_loss


class ContinuousTD3BC(IndependentTD3[TD3BCConfig]):
    """Actors maximise λ Q − (π − a)², λ = α / mean |Q|; twin critics with smoothed targets, a delayed actor.

    y_i = r_i + γ (1 − e) min_k Q̄_i^k(o'_i, clip(π̄_i(o'_i) + clip(ξ, −c, c))), ξ ~ N(0, σ²).
    """

    Config = TD3BCConfig
    version = 1
    name: ClassVar[str] = "td3bc"
    policy_delay: ClassVar[int] = 2  # TD3+BC's repository
    target_noise: ClassVar[float] = 0.2  # σ, the same
    target_noise_clip: ClassVar[float] = 0.5  # c, the same

    def actor_losses(self, team: Team, seen: Views) -> Tensor:
        """TD3+BC, Eq. 5, by agent and replica."""
        policy = team.act(seen.observations)
        q = team.first_q(seen.observations, policy.unsqueeze(2)).squeeze(-1)
        if self.config.form == "tau":
            return mixed_actor_loss(q, policy, seen.actions, self.config.tau)
        return td3_bc_loss(q, policy, seen.actions, self.config.alpha)
