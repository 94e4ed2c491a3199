"""`bcq` for continuous actions: BCQ's own repository (Fujimoto et al. 2019), one learner an agent."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.algorithms.team import Views, views
from methods.algorithms.training import Losses, Parts, descend, named_tensors
from methods.algorithms.transition_learner import TransitionLearner
from methods.base import Run
from methods.data.batches import TransitionBatch
from methods.learners.bcq.config import BCQConfig
from methods.networks.behaviour_vae import BehaviourVAE
from methods.networks.best_of import LATENT_LIMIT, BestOfAgent, BestOfPolicy, propose
from methods.networks.critics import twin_values
from methods.networks.policy import AgentPolicy
from methods.objectives.batch_constrained import soft_clipped_target
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class ContinuousBCQ(TransitionLearner[BCQConfig]):
    """Every agent chooses among actions that a VAE of its own data decodes, moved by at most Φ.

    VAE: mean (â − a)² + KL / 2. Critics: Σ_k mean (Q^k − y)²,
    y_i = r_i + γ (1 − e) max_j [λ min_k Q̄^k(o', a_j) + (1 − λ) max_k Q̄^k(o', a_j)], a_j decoded at o' and moved by the
    target perturbation. Perturbation: −mean Q^1(o, a + Φ tanh ξ(o, a)), a decoded at o.
    """

    Config = BCQConfig
    version = 1
    name: ClassVar[str] = "bcq"
    policy_class: ClassVar[type[AgentPolicy]] = BestOfPolicy

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_agent(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> BestOfAgent:
        """What acts, freshly drawn."""
        return self._networks(spec, generators)[1]

    def _networks(self, spec: TaskSpec, generators: Sequence[np.random.Generator]) -> tuple[BehaviourVAE, BestOfAgent]:
        """The models of the data, and what acts by their decoders."""
        config, sizes = self.config, self.config.sizes(spec)
        vae = BehaviourVAE((spec.obs_dim, spec.action.size, sizes.vae_hidden), generators, spec.n_agents)
        hidden = (sizes.hidden, sizes.second_hidden)
        return vae, BestOfAgent(spec, hidden, vae, config.perturbation, config.proposals, generators)

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> BCQTrainer:
        """Reports `vae_loss`, `critic_loss`, `actor_loss` and `q`, the mean Q^1 of recorded actions."""
        spec, replicas = data[0].spec, range(len(data))
        vae, agent = self._networks(spec, [run.generator("bcq/networks", r) for r in replicas])
        if self.config.sizes(spec).normalise:
            agent.scaler.fit(data, run.original)
        noise = [run.generator("bcq/noise", r) for r in replicas]
        return BCQTrainer(self.config, spec, agent.to(run.device), vae.to(run.device), noise)


class BCQTrainer:
    """The models of the data, perturbations and critics of G = R · N agents, and the targets of the last two.

    Args:
        config: its settings.
        spec: the task.
        agent: what acts, on the device.
        vae: the models of the data, whose decoder is the agent's.
        generators: R, of all noise.
    """

    def __init__(
        self,
        config: BCQConfig,
        spec: TaskSpec,
        agent: BestOfAgent,
        vae: BehaviourVAE,
        generators: Sequence[np.random.Generator],
    ) -> None:
        self.agent, self.vae = agent, vae
        self.target_perturbation = copy.deepcopy(agent.perturbation).requires_grad_(False)
        self.target_critics = copy.deepcopy(agent.critics).requires_grad_(False)
        self._config, self._action, self._generators = config, spec.action, generators
        self.done, self._groups = 0, agent.latents.shape[0]
        self._trained: list[list[Tensor]] = [list(m.parameters()) for m in (vae, agent.critics, agent.perturbation)]
        rate = config.sizes(spec).learning_rate
        self._adams = [torch.optim.Adam(part, lr=rate, fused=True) for part in self._trained]

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
        self.done += 1
        return told

    def parts(self) -> Parts:
        """See `Trainer`. The decoder is among the agent's networks."""
        tensors = named_tensors(
            encoder=self.vae.encoder,
            agent=self.agent,
            target_perturbation=self.target_perturbation,
            target_critics=self.target_critics,
        )
        return Parts(tensors, self._adams, self._generators)

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
        descend(self._adams[part], self._trained[part], losses, self._groups, self._config.max_grad_norm)
        return self._by_replica(losses)

    def _by_replica(self, values: Tensor) -> Tensor:
        return values.detach().view(len(self._generators), -1).mean(dim=1)  # (G,) -> (R,)

    def _normal(self, *inner: int) -> Tensor:
        """Standard normal values (G, *inner), those of replica r from generator r."""
        shape = (self._groups // len(self._generators), *inner)  # (N, ...)
        drawn = np.concatenate([g.standard_normal(shape, dtype=np.float32) for g in self._generators])
        return torch.from_numpy(drawn).to(self._trained[0][0])  # device and precision
