"""What learners are timed against in the same run: the same updates written the obvious way.

`torch.nn` modules, one network of one agent at a time, a loop over the steps of an episode; the form of the published
implementations, without their logging and storage of episodes.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from methods.data.batches import EpisodeBatch, TransitionBatch

HIDDEN = 64
SAMPLES, CONSERVATISM, CLIP, DISCOUNT, RATE, POLYAK, PENALTY = 10, 5.0, 0.5, 0.99, 0.01, 0.01, 1e-3  # as `cql` has them
CLONING_RATE, CLONING_CLIP = 5e-4, 10.0  # as recurrent `bc` has them


def perceptron(n_in: int, n_out: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_out)
    )


class PlainCQLAgent:
    """Actor, twin critics, targets and optimisers of one agent, continuous actions in [−1, 1]."""

    def __init__(self, obs_dim: int, size: int) -> None:
        self.actor = perceptron(obs_dim, size)
        self.critics = nn.ModuleList(perceptron(obs_dim + size, 1) for _ in range(2))
        self.target_actor, self.target_critics = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self._of_actor = torch.optim.Adam(self.actor.parameters(), lr=RATE)
        self._of_critics = torch.optim.Adam(self.critics.parameters(), lr=RATE)
        self._generator = torch.Generator().manual_seed(0)

    def update(self, o: Tensor, a: Tensor, r: Tensor, o2: Tensor, ends: Tensor) -> None:
        """One step of the critics, one of the actor, one of the targets: (B, D), (B, A), (B,), (B, D), (B,)."""
        candidates = torch.rand(len(o) * SAMPLES, a.shape[1], generator=self._generator) * 2 - 1
        self._step(self._of_critics, self.critics, self.critic_loss(o, a, r, o2, ends, candidates))
        self._step(self._of_actor, self.actor, self.actor_loss(o))
        with torch.no_grad():
            for current, target in ((self.actor, self.target_actor), (self.critics, self.target_critics)):
                for new, old in zip(current.parameters(), target.parameters(), strict=True):
                    old.mul_(1 - POLYAK).add_(POLYAK * new)

    def critic_loss(self, o: Tensor, a: Tensor, r: Tensor, o2: Tensor, ends: Tensor, candidates: Tensor) -> Tensor:
        """Σ_k mean (Q^k − y)² + α mean [logsumexp_a (Q^k(o, a) − log p) − Q^k(o, a)]; candidates (B · K, A)."""
        with torch.no_grad():
            following = torch.cat([o2, self.target_actor(o2).tanh()], dim=1)
            smaller = torch.min(*(critic(following)[:, 0] for critic in self.target_critics))
            y = r + DISCOUNT * (~ends) * smaller
        recorded, random = torch.cat([o, a], dim=1), torch.cat([o.repeat_interleave(SAMPLES, 0), candidates], dim=1)
        loss = torch.zeros(())
        for critic in self.critics:
            q = critic(recorded)[:, 0]
            pushed = (critic(random).view(-1, SAMPLES) - a.shape[1] * math.log(0.5)).logsumexp(dim=1)
            loss = loss + (q - y).square().mean() + CONSERVATISM * (pushed - q).mean()
        return loss

    def actor_loss(self, o: Tensor) -> Tensor:
        """−mean Q¹(o, π(o)) + c mean π²."""
        policy: Tensor = self.actor(o).tanh()
        q: Tensor = self.critics[0](torch.cat([o, policy], dim=1))
        return PENALTY * policy.square().mean() - q.mean()

    def _step(self, adam: torch.optim.Optimizer, net: nn.Module, loss: Tensor) -> None:
        net.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        adam.step()


class PlainCQL:
    """Independent agents; `agents` of a team with these sizes."""

    def __init__(self, n_agents: int, obs_dim: int, size: int) -> None:
        self.agents = [PlainCQLAgent(obs_dim, size) for _ in range(n_agents)]

    def update(self, batch: TransitionBatch) -> None:
        """Of the first replica."""
        for i, agent in enumerate(self.agents):
            rows = (batch.observations, batch.actions, batch.rewards, batch.next_observations)
            o, a, r, o2 = (column[0, :, i] for column in rows)
            agent.update(o, a, r, o2, batch.terminals[0])


class PlainRecurrentCloning(nn.Module):
    """PyMARL's agent, cloned: (o, last action, id) -> H, ReLU -> GRU cell -> A, one for the team, step by step."""

    def __init__(self, n_agents: int, obs_dim: int, n_actions: int) -> None:
        super().__init__()
        self.n_agents, self.n_actions = n_agents, n_actions
        self.encoder = nn.Linear(obs_dim + n_actions + n_agents, HIDDEN)
        self.cell, self.decoder = nn.GRUCell(HIDDEN, HIDDEN), nn.Linear(HIDDEN, n_actions)
        self._adam = torch.optim.Adam(self.parameters(), lr=CLONING_RATE)

    def loss(self, batch: EpisodeBatch) -> Tensor:
        """Mean over valid steps and agents of −log π(a) of the first replica."""
        assert batch.last_actions is not None
        assert batch.available is not None
        steps, episodes = batch.actions.shape[1:3]
        own = torch.eye(self.n_agents).expand(episodes, -1, -1)
        h, total = torch.zeros(episodes * self.n_agents, HIDDEN), torch.zeros(())
        for t in range(steps):
            last = one_hot(batch.last_actions[0, t], self.n_actions + 1)[..., :-1]  # zeros at the first step
            x = torch.cat([batch.observations[0, t], last, own], dim=-1).flatten(0, 1)
            h = self.cell(self.encoder(x).relu(), h)
            logits = self.decoder(h).masked_fill(~batch.available[0, t].flatten(0, 1), -1e10)
            losses = cross_entropy(logits, batch.actions[0, t].flatten(), reduction="none")
            total = total + (losses.view(episodes, -1).mean(dim=1) * batch.valid[0, t]).sum()
        return total / batch.valid[0].sum()

    def update(self, batch: EpisodeBatch) -> None:
        """One step of Adam."""
        self._adam.zero_grad()
        self.loss(batch).backward()  # type: ignore[no-untyped-call]  # as torch has it
        nn.utils.clip_grad_norm_(self.parameters(), CLONING_CLIP)
        self._adam.step()
