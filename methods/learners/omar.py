"""`omar`, `cql`: independent conservative critics, with and without OMAR's search for better actions.

Pan et al. 2022, "Plan Better Amid Conservatism". MA-CQL is OMAR without the search (its repository's `omar=0`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.algorithms.independent_td3 import IndependentTD3, IndependentTD3Config
from methods.algorithms.team import Team, Views
from methods.base import require
from methods.objectives.action_search import elite_search, softmax_search
from methods.objectives.conservative import gaussian_log_density, uniform_log_density
from methods.objectives.td3 import mixed_actor_loss
from tasks.common.selector import Scalar

SEARCHES = ("softmax", "elites")


@dataclass(frozen=True, slots=True, kw_only=True)
class OMARConfig(IndependentTD3Config):
    """MPE as in OMAR's repository; its HalfCheetah is `[search=elites,iterations=2,samples=20,policy_actions=true]`.

    OMAR tunes τ and α by task and data quality; data without such a label, and augmented ones, have no value there.
    """

    tau: float = 0.7  # weight of the found actions, fixed for all data (inferred; OMAR: 0.1 to 1); 0: MA-CQL
    conservatism: float = 1.0  # α_cql, fixed for all data (inferred; OMAR: 0.5, 1 or 5)
    cql_samples: int = 10  # K of the penalty; OMAR's repository
    policy_actions: bool = False  # whether the penalty also draws noisy actions of the policy (OMAR, HalfCheetah)
    policy_noise: float = 0.2  # σ of those; OMAR's repository
    search: str = "softmax"  # or "elites", the cross-entropy method (OMAR, HalfCheetah)
    iterations: int = 3  # J; OMAR's repository, MPE
    samples: int = 10  # K of the search; OMAR's repository, MPE
    elites: int = 5  # of search=elites; OMAR's repository, HalfCheetah
    search_sigma: float = 2.0  # σ of the first candidates; OMAR's repository
    output_penalty: float = 1e-3  # on mean π(o)²; OMAR's repository
    batch_norm: bool = True  # critics see actions standardised within their batch; OMAR's repository

    def __post_init__(self) -> None:
        IndependentTD3Config.__post_init__(self)
        require(0 <= self.tau <= 1, "omar", f"tau={self.tau}", "a number in [0, 1]")
        for name in ("conservatism", "output_penalty"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), "omar", f"{name}={value}", "a finite number, 0 or more")
        for name in ("policy_noise", "search_sigma"):
            value = getattr(self, name)
            require(0 < value < float("inf"), "omar", f"{name}={value}", "a finite number above 0")
        for name in ("cql_samples", "iterations", "samples"):
            require(getattr(self, name) >= 1, "omar", f"{name}={getattr(self, name)}", "1 or more")
        require(isinstance(self.batch_norm, bool), "omar", f"batch_norm={self.batch_norm}", "true or false")
        require(self.search in SEARCHES, "omar", f"search={self.search}", " or ".join(SEARCHES))
        if self.search == "elites":
            require(2 <= self.elites <= self.samples, "omar", f"elites={self.elites}", f"2 to {self.samples} (samples)")


class OMAR(IndependentTD3[OMARConfig]):
    """Conservative critics; actors are drawn to the best actions that a search on Q finds, besides following Q.

    Critics: Σ_k mean (Q^k − y)² + α_cql mean [logsumexp_a (Q^k(o, a) − log p(a)) − Q^k(o, a_data)], y without noise.
    Actors: τ mean (π − â)² − (1 − τ) mean Q^1(o, π) + 1e-3 mean π².
    """

    Config = OMARConfig
    version = 1
    name: ClassVar[str] = "omar"
    small_actor: ClassVar[bool] = True

    @classmethod
    def tiny(cls, params: Mapping[str, Scalar] | None = None) -> OMAR:
        """A heavier output penalty: behind batch normalisation a shift of all actions has no other gradient.

        Out of rounding errors Adam would make steps of full length.
        """
        return cls.from_params({"output_penalty": 0.1, **(params or {})})

    @property
    def batch_norm(self) -> bool:
        """As the config says."""
        return self.config.batch_norm

    def critic_penalty(self, team: Team, seen: Views, recorded_q: Tensor) -> Tensor | None:
        """OMAR, Eq. 2, over both twins."""
        config = self.config
        if config.conservatism == 0:
            return None
        _, batch, size = seen.actions.shape
        k = config.cql_samples
        actions, density = team.uniform(batch, k, size), torch.full((1, 1, k), uniform_log_density(size))
        density = density.to(actions.device)  # (1, 1, K)
        if config.policy_actions:
            with torch.no_grad():
                for rows in (seen.next_observations, seen.observations):  # their actions, all judged at o
                    noise = config.policy_noise * team.normal(batch, k, size)  # (G, B, K, A)
                    near = (team.act(rows).unsqueeze(2) + noise).clamp(-1.0, 1.0)
                    actions = torch.cat([actions, near], dim=2)
                    log_p = gaussian_log_density(noise, config.policy_noise)  # (G, B, K)
                    density = torch.cat([density.expand(*log_p.shape[:2], -1), log_p], dim=2)
        pushed = team.pushed_up(seen.observations, actions, density)  # (G,), of K or 3 K actions
        return config.conservatism * (pushed - recorded_q.mean(dim=-1).sum(dim=0))

    def actor_losses(self, team: Team, seen: Views) -> Tensor:
        """OMAR, Eq. 4, by agent and replica; without the search where its weight is 0."""
        config, policy = self.config, team.act(seen.observations)
        q = team.first_q(seen.observations, policy.unsqueeze(2)).squeeze(-1)  # (G, B)
        found = self._found(team, seen, policy.detach()) if config.tau > 0 else policy.detach()
        penalty = config.output_penalty * policy.square().mean(dim=(-2, -1))
        return mixed_actor_loss(q, policy, found, config.tau) + penalty

    def _found(self, team: Team, seen: Views, policy: Tensor) -> Tensor:
        """â (G, B, A)."""
        config = self.config

        def values(actions: Tensor) -> Tensor:
            return team.searched_q(seen.observations, actions)

        def draw(samples: int) -> Tensor:
            return team.normal(policy.shape[1], samples, policy.shape[2])

        sizes = {"iterations": config.iterations, "samples": config.samples}
        if config.search == "elites":
            return elite_search(values, policy, draw, **sizes, elites=config.elites, sigma=config.search_sigma)
        return softmax_search(values, policy, draw, **sizes, sigma=config.search_sigma)
