"""`bcq`: batch-constrained Q-learning of every agent for continuous actions (MA-BCQ; Fujimoto et al. 2019).

INS names a MA-BCQ without equations or settings; this is BCQ's own repository, one learner an agent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.algorithms.team import Views, views
from methods.algorithms.training import Losses, descend
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run, require
from methods.data.batches import TransitionBatch
from methods.networks.behaviour_vae import BehaviourVAE
from methods.networks.best_of import LATENT_LIMIT, BestOfAgent, BestOfPolicy, propose
from methods.networks.critics import twin_values
from methods.networks.policy import AgentPolicy
from methods.objectives.batch_constrained import soft_clipped_target
from tasks.common.selector import Scalar
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec, TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BCQConfig:
    """Values of BCQ's repository for continuous actions."""

    hidden: int = 400  # first layer of critics and perturbation; BCQ's repository
    second_hidden: int = 300  # second layer of both; the same
    vae_hidden: int = 750  # of two layers in encoder and decoder; the same
    learning_rate: float = 1e-3  # of three Adams; the same
    polyak: float = 0.005  # ρ of target critics and target perturbation; the same
    discount: float = 0.99  # the same
    perturbation: float = 0.05  # Φ, for actions in [−1, 1]; the same
    minimum_share: float = 0.75  # λ of the smaller twin in targets; the same
    target_samples: int = 10  # actions decoded for each next observation; the same
    proposals: int = 100  # actions decoded to choose from in acting; the same
    max_grad_norm: float = 0.0  # of one agent's VAE, critics, perturbation; the same: no clipping
    batch_size: int = 100  # transitions; the same; unless the protocol sets it
    updates: int = 100_000  # MADiTS, App. E; unless the protocol sets it
    normalise: bool = True  # z-score of observations by the original data (inferred); BCQ's repository: none

    def __post_init__(self) -> None:
        counts = ("hidden", "second_hidden", "vae_hidden", "target_samples", "proposals", "batch_size", "updates")
        for name in counts:
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(whole, "bcq", f"{name}={value}", "a whole number, 1 or more")
        rate = self.learning_rate
        require(0 < rate < float("inf"), "bcq", f"learning_rate={rate}", "a finite number above 0")
        require(0 < self.polyak <= 1, "bcq", f"polyak={self.polyak}", "a number in (0, 1]")
        for name in ("discount", "perturbation", "minimum_share"):
            require(0 <= getattr(self, name) <= 1, "bcq", f"{name}={getattr(self, name)}", "a number in [0, 1]")
        require(self.max_grad_norm >= 0, "bcq", f"max_grad_norm={self.max_grad_norm}", "0 or more")


class BCQ(TransitionLearner[BCQConfig]):
    """Every agent chooses among actions that a VAE of its own data decodes, moved by at most Φ.

    VAE: mean (â − a)² + KL / 2. Critics: Σ_k mean (Q^k − y)²,
    y_i = r_i + γ (1 − e) max_j [λ min_k Q̄^k(o', a_j) + (1 − λ) max_k Q̄^k(o', a_j)], a_j decoded at o' and moved by the
    target perturbation. Perturbation: −mean Q^1(o, a + Φ tanh ξ(o, a)), a decoded at o.
    """

    Config = BCQConfig
    version = 1
    name: ClassVar[str] = "bcq"
    policy_class: ClassVar[type[AgentPolicy]] = BestOfPolicy

    @classmethod
    def tiny(cls, params: Mapping[str, Scalar] | None = None) -> BCQ:
        """Narrow networks."""
        return cls.from_params({"hidden": 24, "second_hidden": 16, "vae_hidden": 32, **(params or {})})

    @classmethod
    def unsupported(cls, spec: TaskSpec) -> str | None:
        """Its form for discrete actions is not built."""
        return "built for continuous actions only so far" if spec.action.discrete else None

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> BestOfAgent:
        """What acts, freshly drawn."""
        return self._networks(spec, generators)[1]

    def _networks(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> tuple[BehaviourVAE, BestOfAgent]:
        """The models of the data, and what acts by their decoders."""
        config = self.config
        vae = BehaviourVAE((spec.obs_dim, spec.action.size, config.vae_hidden), generators, spec.n_agents)
        hidden = (config.hidden, config.second_hidden)
        return vae, BestOfAgent(spec, hidden, vae, config.perturbation, config.proposals, generators)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> BCQTrainer:
        """Reports `vae_loss`, `critic_loss`, `actor_loss` and `q`, the mean Q^1 of recorded actions."""
        spec, replicas = data[0].spec, range(len(data))
        vae, agent = self._networks(spec, [run.generator("bcq/networks", r) for r in replicas])
        if self.config.normalise:
            agent.scaler.fit(data, run.original)
        noise = [run.generator("bcq/noise", r) for r in replicas]
        return BCQTrainer(self.config, spec.action, agent.to(run.device), vae.to(run.device), noise)


class BCQTrainer:
    """The models of the data, perturbations and critics of G = R · N agents, and the targets of the last two.

    Args:
        config: its settings.
        action: bounds of the actions in the batches.
        agent: what acts, on the device.
        vae: the models of the data, whose decoder is the agent's.
        generators: R, of all noise.
    """

    def __init__(
        self,
        config: BCQConfig,
        action: ActionSpec,
        agent: BestOfAgent,
        vae: BehaviourVAE,
        generators: Sequence[np.random.Generator],
    ) -> None:
        self.agent, self.vae = agent, vae
        self.target_perturbation = copy.deepcopy(agent.perturbation).requires_grad_(False)
        self.target_critics = copy.deepcopy(agent.critics).requires_grad_(False)
        self._config, self._action, self._generators = config, action, generators
        self._groups = agent.latents.shape[0]
        self._parts: list[list[Tensor]] = [list(m.parameters()) for m in (vae, agent.critics, agent.perturbation)]
        self._adams = [torch.optim.Adam(part, lr=config.learning_rate, fused=True) for part in self._parts]

    def update(self, batch: TransitionBatch) -> Losses:
        """The models of the data, the critics, the perturbations, then the targets."""
        seen = views(batch, self.agent, self._action)
        told = {"vae_loss": self._step(0, self.vae_losses(seen))}
        losses, q = self.critic_losses(seen)
        told |= {"critic_loss": self._step(1, losses), "q": self._by_replica(q)}
        told["actor_loss"] = self._step(2, self.actor_losses(seen))
        with torch.no_grad():
            for target, current in (
                (self.target_critics, self.agent.critics),
                (self.target_perturbation, self.agent.perturbation),
            ):
                moved: list[Tensor] = list(target.parameters())
                torch._foreach_lerp_(moved, list(current.parameters()), self._config.polyak)
        return told

    def vae_losses(self, seen: Views) -> Tensor:
        """(G,) of the models of the data."""
        return self.vae.loss(seen.observations, seen.actions, self._normal(seen.actions.shape[1], self.vae.latent))

    def critic_losses(self, seen: Views) -> tuple[Tensor, Tensor]:
        """(G,) Σ_k mean (Q^k(o, a) − y)², and (G,) the mean of Q^1(o, a)."""
        config, parameters = self._config, list(self.agent.critics.parameters())
        with torch.no_grad():
            following = self._propose(self.target_perturbation, seen.next_observations, config.target_samples)
            next_q = self.target_critics(seen.next_observations, following)  # (2, G, B, S)
            target = soft_clipped_target(seen.rewards, seen.terminals, next_q, config.discount, config.minimum_share)
        q = twin_values(parameters, seen.observations, seen.actions.unsqueeze(2)).squeeze(-1)  # (2, G, B)
        return (q - target).square().mean(dim=-1).sum(dim=0), q[0].mean(dim=-1)

    def actor_losses(self, seen: Views) -> Tensor:
        """(G,) −mean Q^1 of one decoded and moved action."""
        fixed = [p.detach() for p in self.agent.critics.parameters()]
        action = self._propose(self.agent.perturbation, seen.observations, 1)  # (G, B, 1, A)
        return -twin_values(fixed, seen.observations, action, first=True).mean(dim=(0, 2, 3))

    def _propose(self, perturbation: nn.Module, observations: Tensor, samples: int) -> Tensor:
        """(G, B, D) -> (G, B, S, A)."""
        latents = self._normal(observations.shape[1], samples, self.vae.latent).clamp_(-LATENT_LIMIT, LATENT_LIMIT)
        return propose(self.vae.decoder, perturbation, observations, latents, self._config.perturbation)

    def _step(self, part: int, losses: Tensor) -> Tensor:
        """One step of an optimiser; the losses by replica."""
        descend(self._adams[part], self._parts[part], losses, self._groups, self._config.max_grad_norm)
        return self._by_replica(losses)

    def _by_replica(self, values: Tensor) -> Tensor:
        return values.detach().view(len(self._generators), -1).mean(dim=1)  # (G,) -> (R,)

    def _normal(self, *inner: int) -> Tensor:
        """Standard normal values (G, *inner), those of replica r from generator r."""
        shape = (self._groups // len(self._generators), *inner)  # (N, ...)
        drawn = np.concatenate([g.standard_normal(shape, dtype=np.float32) for g in self._generators])
        return torch.from_numpy(drawn).to(self._parts[0][0])  # device and precision
