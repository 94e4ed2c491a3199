"""CFCQL for continuous actions: its updates, what it is paid and shown, and the model of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from methods.algorithms.joint import unit_actions
from methods.base import Budget, Run
from methods.data.batches import joint_transitions
from methods.learners.cfcql.config import CFCQLConfig
from methods.learners.cfcql.continuous import ContinuousCFCQL
from methods.networks.behaviour_vae import BehaviourVAE
from methods.networks.critics import twin_values
from methods.objectives.counterfactual import counterfactual_actions
from tests.unit.methods.problems import bandit, own_generators, precise_transitions
from tests.unit.methods.small_trainers import AGENTS, REPLICAS, datasets

HIDDEN = 8
DATA = datasets("continuous", 20)
SPEC = DATA[0].spec


def test_the_actors_move_at_the_first_of_five_steps_and_the_targets_at_the_last() -> None:
    learner = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN, cql_samples=2, polyak=0.25))
    made = learner.new_trainer(DATA, Run(seeds=(0, 1)))
    drawn = joint_transitions(DATA, own_generators(4), batch_size=8, updates=7, device="cpu")
    before_target = [p.clone() for p in made.target_critic]
    actors_moved, critics_moved, targets_moved = [], [], []
    for transitions in drawn:
        actor, critic = made.actor_parameters[0].detach().clone(), made.critic_parameters[0].detach().clone()
        target = made.target_critic[0].clone()
        told = made.update(transitions)
        actors_moved.append(not torch.equal(actor, made.actor_parameters[0]))
        critics_moved.append(not torch.equal(critic, made.critic_parameters[0]))
        targets_moved.append(not torch.equal(target, made.target_critic[0]))
        assert ("actor_loss" in told) == actors_moved[-1]
        if targets_moved[-1]:
            for now, old, current in zip(made.target_critic, before_target, made.critic_parameters, strict=True):
                torch.testing.assert_close(now, old + 0.25 * (current.detach() - old))
    assert actors_moved == [True, False, False, False, False, True, False]
    assert targets_moved == [False, False, False, False, True, False, False]
    assert all(critics_moved)


def test_gradients_are_clipped_for_every_actor_and_for_the_critics_of_a_replica() -> None:
    data = [d.replace(rewards=1e4 * d.rewards) for d in DATA]
    made = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN, output_penalty=1e3)).new_trainer(data, Run(seeds=(0, 1)))
    with torch.no_grad():
        for parameter in (made.actor_parameters[-2], made.critic_parameters[-2]):
            parameter.mul_(1e3)
    made.update(next(joint_transitions(data, own_generators(4), batch_size=8, updates=1, device="cpu")))

    def norms(parameters: Sequence[Tensor], groups: int) -> Tensor:
        flat = [p.grad.view(groups, -1) for p in parameters if p.grad is not None]
        return torch.cat(flat, dim=1).norm(dim=1)

    torch.testing.assert_close(norms(made.critic_parameters, REPLICAS), torch.full((REPLICAS,), 0.5))
    torch.testing.assert_close(
        norms(made.actor_parameters, REPLICAS * AGENTS), torch.full((REPLICAS * AGENTS,), 0.5), atol=1e-4, rtol=1e-4
    )


def test_a_conservative_critic_keeps_down_what_the_data_never_show() -> None:
    """One agent leaves narrow data, the others stay: a plain critic thinks little worse of it than of the data."""
    data = bandit(-0.5, 0.05)
    recorded = torch.full((1, 1, AGENTS, 2), -0.5)
    far = torch.linspace(0.2, 1, 9)[:, None].expand(1, 1, AGENTS, 9, 2)

    def advantage(conservatism: float) -> float:
        config = CFCQLConfig(
            hidden=32, conservatism=conservatism, normalise=False, learning_rate=0.01, batch_norm=False
        )
        learner = ContinuousCFCQL(config)
        made = learner.new_trainer([data], Run(seeds=(0,)))
        for transitions in joint_transitions([data], own_generators(5, 1), batch_size=64, updates=300, device="cpu"):
            made.update(transitions)
        state = torch.zeros(1, 1, AGENTS * data.spec.obs_dim)
        with torch.no_grad():
            of_data = twin_values(made.critic_parameters, state, recorded.flatten(2).unsqueeze(2))
            joint = counterfactual_actions(recorded, far).flatten(2, 3)  # (1, 1, N · 9, N · A)
            return float((twin_values(made.critic_parameters, state, joint) - of_data).mean())

    assert advantage(5.0) < -5
    assert advantage(0.0) > -3


def test_the_team_is_paid_by_the_rule_of_the_task() -> None:
    learner = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN))
    transitions = precise_transitions(DATA, 6)
    for rule, expected in (("sum", transitions.rewards.sum(-1)), ("first", transitions.rewards[..., 0])):
        data = [replace(d, spec=replace(SPEC, team_reward=rule)) for d in DATA]
        made = learner.new_trainer(data, Run(seeds=(0, 1)))
        torch.testing.assert_close(made.views(transitions).rewards, expected)


def test_a_model_of_the_data_likes_what_they_show() -> None:
    """Trained on actions around −0.5: these are likelier than 0.5, for the agent alone that does the latter."""
    data = bandit(-0.5, 0.1)
    learner = ContinuousCFCQL(
        CFCQLConfig(weights="behaviour", behaviour_hidden=32, behaviour_updates=0, normalise=False)
    )
    run = Run(seeds=(0,))
    made = learner.new_trainer([data], run)
    made._settings = replace(made._settings, behaviour_updates=300, behaviour_learning_rate=1e-3)
    assert isinstance(made.vae, BehaviourVAE)
    made.fit_behaviour(made.vae.requires_grad_(), [data], run)
    actions = torch.full((1, 1, AGENTS, 2), -0.5)
    actions[:, :, 1] = 0.5
    noise = torch.randn(20, 1, 1, made.vae.latent, generator=torch.Generator().manual_seed(0))
    found = made.vae.log_likelihoods(torch.zeros(1, 1, AGENTS * data.spec.obs_dim), actions, noise)[0, 0]
    assert float(found[1]) < float(found[0]) - 1
    assert float(found[1]) < float(found[2]) - 1


def test_seeds_weighed_by_behaviour_do_not_touch_each_other() -> None:
    config = CFCQLConfig(hidden=HIDDEN, weights="behaviour", behaviour_hidden=8, behaviour_updates=5)
    poisoned = DATA[1].replace(observations=np.full_like(DATA[1].observations, np.nan))
    budget = Budget(updates=6, batch_size=8)
    alone = ContinuousCFCQL(config).fit(DATA[:1], Run(seeds=(0,), budget=budget, original=DATA[0]))
    together = ContinuousCFCQL(config).fit([DATA[0], poisoned], Run(seeds=(0, 1), budget=budget, original=DATA[0]))
    assert together.diverged(1)
    for name, array in alone.state(0).items():
        np.testing.assert_allclose(together.state(0)[name], array, atol=1e-5, rtol=1e-5)


def test_actions_are_mapped_from_their_bounds() -> None:
    data = bandit(-0.1, 0.5, 0.0, 4.0)
    made = ContinuousCFCQL(CFCQLConfig(hidden=HIDDEN)).new_trainer([data], Run(seeds=(0,)))
    transitions = next(joint_transitions([data], own_generators(0, 1), batch_size=8, updates=1, device="cpu"))
    torch.testing.assert_close(made.views(transitions).actions, unit_actions(transitions.actions, data.spec.action))
    assert float(made.views(transitions).actions.min()) < 0
