"""`td3bc`: MA-TD3+BC, independent TD3 whose actors also clone the data (Fujimoto & Gu 2021; OMAR, App. B.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.algorithms.independent_td3 import IndependentTD3, IndependentTD3Config
from methods.algorithms.team import Team, Views
from methods.base import require
from methods.objectives.td3 import mixed_actor_loss, td3_bc_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class TD3BCConfig(IndependentTD3Config):
    """The λ form by default; the τ form is how MASTARS, App. D.2 describes the learner."""

    alpha: float = 2.5  # of λ = α / mean |Q| (TD3+BC, Sec. 5.1)
    form: str = "lambda"  # or "tau": τ (π − a)² − (1 − τ) Q, without λ (MASTARS, App. D.2)
    tau: float = 0.7  # of the form "tau"; OMAR's of medium data

    def __post_init__(self) -> None:
        IndependentTD3Config.__post_init__(self)
        require(self.alpha >= 0, "td3bc", f"alpha={self.alpha}", "0 or more")
        require(self.form in ("lambda", "tau"), "td3bc", f"form={self.form}", "lambda or tau")
        require(0 <= self.tau <= 1, "td3bc", f"tau={self.tau}", "a number in [0, 1]")


class TD3BC(IndependentTD3[TD3BCConfig]):
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
