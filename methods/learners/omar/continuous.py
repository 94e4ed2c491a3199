"""OMAR and MA-CQL for continuous actions, where better actions are found by a search on Q."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from methods.algorithms.independent_td3 import IndependentTD3
from methods.algorithms.team import Team, Views
from methods.learners.omar.config import CONTINUOUS, OMARConfig
from methods.objectives.action_search import elite_search, softmax_search
from methods.objectives.conservative import gaussian_log_density, uniform_log_density
from methods.objectives.td3 import mixed_actor_loss


class ContinuousOMAR(IndependentTD3[OMARConfig]):
    """Conservative critics; actors are drawn to the best actions that a search on Q finds, besides following Q.

    Critics: Σ_k mean (Q^k − y)² + α_cql mean [logsumexp_a (Q^k(o, a) − log p(a)) − Q^k(o, a_data)], y without noise.
    Actors: τ mean (π − â)² − (1 − τ) mean Q^1(o, π) + 1e-3 mean u², π = tanh u.
    """

    Config = OMARConfig
    version = 2
    name: ClassVar[str] = "omar"
    small_actor: ClassVar[bool] = True

    def __init__(self, config: OMARConfig | None = None) -> None:
        super().__init__(config)
        self._weights = self.config.weights(CONTINUOUS)

    @property
    def batch_norm(self) -> bool:
        """As the config says."""
        return self.config.batch_norm

    def critic_penalty(self, team: Team, seen: Views, recorded_q: Tensor) -> Tensor | None:
        """OMAR, Eq. 2, over both twins."""
        config, weight = self.config, self._weights.conservatism
        if weight == 0:
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
        return weight * (pushed - recorded_q.mean(dim=-1).sum(dim=0))

    def actor_losses(self, team: Team, seen: Views) -> Tensor:
        """OMAR, Eq. 4, by agent and replica; without the search where its weight is 0."""
        tau, outputs = self._weights.tau, team.outputs(seen.observations)
        policy = outputs.tanh()
        q = team.first_q(seen.observations, policy.unsqueeze(2)).squeeze(-1)  # (G, B)
        found = self._found(team, seen, policy.detach()) if tau > 0 else policy.detach()
        penalised = outputs if self.config.penalised == "outputs" else policy
        penalty = self.config.output_penalty * penalised.square().mean(dim=(-2, -1))
        return mixed_actor_loss(q, policy, found, tau) + penalty

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
