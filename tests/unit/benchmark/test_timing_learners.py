"""The plain forms that learners are timed against do what the learners do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.checks import sample_dataset
from benchmark.timing.learner_yardstick import SAMPLES, PlainCQL, PlainRecurrentCloning
from methods.algorithms.independent_td3 import critic_losses
from methods.algorithms.team import views
from methods.base import Run
from methods.data.batches import episode_batches, joint_transitions
from methods.learners.omar.config import OMARConfig
from methods.learners.omar.continuous import ContinuousOMAR
from methods.networks.agents import GRUAgent
from methods.objectives.cloning import negative_log_likelihood


def fill(net: nn.Module, parameters: list[Tensor], index: int) -> None:
    """Copies slice `index` of stacked weights and biases into a plain network."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, parameters[::2], parameters[1::2], strict=True):
            layer.weight.copy_(weight[index].T)
            layer.bias.copy_(bias[index, 0])


def test_the_plain_losses_of_cql_are_those_of_the_learner() -> None:
    data, run = sample_dataset("continuous", episodes=6, seed=0), Run(seeds=(0,))
    spec, learner = data.spec, ContinuousOMAR(OMARConfig(tau=0.0, normalise=False))
    team, plain = learner.new_team([data], run), PlainCQL(spec.n_agents, spec.obs_dim, spec.action.size)
    for target in team.target_critic:  # targets that differ from what they follow
        target.mul_(0.5)
    (batch,) = joint_transitions([data], [np.random.default_rng(0)], batch_size=5, updates=1, device="cpu")
    seen = views(batch, team.agent, spec.action)
    of_critics, of_actors = critic_losses(learner, team, seen)[0], learner.actor_losses(team, seen)
    shape = (spec.n_agents, 5, SAMPLES, spec.action.size)
    drawn = torch.from_numpy(run.generator("omar/noise", 0).random(shape, dtype=np.float32)) * 2 - 1
    for i, agent in enumerate(plain.agents):
        fill(agent.actor, team.actor_parameters, i)
        fill(agent.target_actor, team.target_actor, i)
        for k in range(2):
            fill(agent.critics[k], team.critic_parameters, 2 * i + k)
            fill(agent.target_critics[k], team.target_critic, 2 * i + k)
        rows = (seen.observations[i], seen.actions[i], seen.rewards[i], seen.next_observations[i])
        loss = agent.critic_loss(*rows, seen.terminals[i], drawn[i].flatten(0, 1))
        torch.testing.assert_close(loss, of_critics[i])
        torch.testing.assert_close(agent.actor_loss(seen.observations[i]), of_actors[i])


def test_the_plain_loss_of_recurrent_cloning_is_that_of_the_learner() -> None:
    data = sample_dataset("discrete", episodes=6, seed=0)
    spec = data.spec
    agent = GRUAgent(spec, 64, True, [np.random.default_rng(0)])
    plain = PlainRecurrentCloning(spec.n_agents, spec.obs_dim, spec.action.size)
    fill(plain.encoder, list(agent.encoder.parameters()), 0)
    fill(plain.decoder, list(agent.decoder.parameters()), 0)
    memory, cell = agent.memory, plain.cell
    with torch.no_grad():
        cell.weight_ih.copy_(memory.input_weight[0].T)
        cell.weight_hh.copy_(memory.hidden_weight[0].T)
        cell.bias_ih.copy_(memory.input_bias[0, 0])
        cell.bias_hh.copy_(memory.hidden_bias[0, 0])
    every = [np.arange(data.n_episodes)]
    (batch,) = episode_batches([data], every, [np.random.default_rng(0)], batch_size=4, updates=1, device="cpu")
    assert not bool(batch.valid.all())  # episodes of different lengths
    raw, _ = agent(batch.observations, batch.last_actions)
    assert batch.available is not None
    expected = negative_log_likelihood(raw, batch.actions, batch.available, batch.valid)
    torch.testing.assert_close(plain.loss(batch), expected[0])
