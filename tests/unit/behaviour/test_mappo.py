"""MAPPO: advantages by hand, losses against plain loops, what it is given by its loop, and a game that it solves."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.behaviour.on_policy import OnPolicyConfig, on_policy_rounds
from methods.networks.heads import masked_log_softmax
from methods.online.mappo import MAPPO, Episodes, MAPPOConfig, advantages
from tasks.base import Step
from tests.unit.behaviour.game import PAYOFF, Game

TINY = MAPPOConfig(hidden=5, critic_hidden=6)


def learner_of(config: MAPPOConfig, seed: int = 0) -> MAPPO:
    return MAPPO(config, (2, 1, 1, 3), torch.Generator().manual_seed(seed), np.random.default_rng(seed))


def test_advantages_of_an_episode_that_ends_and_of_one_that_is_cut() -> None:
    """γ = 0.5, λ = 0.5; the first episode ends truly after two steps, the second is truncated after three."""
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 6.0], [100.0, 8.0]])
    rewards = torch.tensor([[1.0, 0.0], [2.0, 1.0], [50.0, 2.0]])
    running = torch.tensor([[True, True], [True, True], [False, True]])
    terminals = torch.tensor([[False, False], [True, False], [True, False]])
    found = advantages(values, rewards, terminals, running, 0.5, 0.5)
    # First: δ_1 = 2 - 3 = -1; δ_0 = 1 + 1.5 - 1 = 1.5, A_0 = 1.5 + 0.25 · (-1) = 1.25.
    # Second: δ_2 = 2 + 4 - 6 = 0; δ_1 = 1 + 3 - 4 = 0; δ_0 = 0 + 2 - 2 = 0.
    torch.testing.assert_close(found, torch.tensor([[1.25, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    rewards[2, 1] = 3.0  # one more at the truncated end: γλ less a step
    found = advantages(values, rewards, terminals, running, 0.5, 0.5)
    torch.testing.assert_close(found[:, 1], torch.tensor([0.0625, 0.25, 1.0]))


def rows_of(learner: MAPPO) -> tuple[Episodes, Tensor]:
    """Two episodes of random numbers, three and two steps, and where steps are."""
    generator = torch.Generator().manual_seed(3)
    available = torch.rand(3, 2, 2, 3, generator=generator) < 0.6
    available[..., 1] = True
    observations = torch.rand(3, 2, 2, 1, generator=generator)
    actions = torch.stack([learner.act(o, a) for o, a in zip(observations, available, strict=True)])
    running = torch.tensor([[True, True], [True, True], [True, False]])
    alive = torch.ones(3, 2, 2, dtype=torch.bool)
    alive[1, 0, 1] = False
    return Episodes(
        observations=observations,
        states=torch.rand(4, 2, 1, generator=generator),
        available=available,
        alive=alive,
        actions=actions,
        rewards=torch.rand(3, 2, generator=generator),
        terminals=torch.zeros(3, 2, dtype=torch.bool),
        running=running,
    ), running


def test_losses_equal_plain_loops() -> None:
    learner = learner_of(TINY)
    episodes, running = rows_of(learner)
    rows = learner._rows(episodes)
    with torch.no_grad():  # the policy has moved on since it acted
        for parameter in learner._actor:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))

    def network(parameters: list[Tensor], x: Tensor) -> Tensor:
        for layer in range(3):
            x = x @ parameters[2 * layer][0] + parameters[2 * layer + 1][0, 0]
            x = x.relu() if layer < 2 else x
        return x

    assert len(rows.targets) == 5
    gains, terms, errors = [], [], []
    for t, b in running.nonzero().tolist():
        gains.append((t, b))
    whole = advantages(
        torch.stack([torch.stack([network(learner.critic, s)[0] for s in row]) for row in episodes.states]),
        episodes.rewards, episodes.terminals, running, 0.99, 0.95,
    )  # fmt: skip
    drawn = torch.stack([whole[t, b] for t, b in gains])
    scaled = (drawn - drawn.mean()) / (drawn.std() + 1e-5)
    torch.testing.assert_close(rows.advantages, scaled)
    for i, (t, b) in enumerate(gains):
        value = network(learner.critic, episodes.states[t, b])[0]
        errors.append((value - (whole[t, b] + value).detach()) ** 2)
        for agent in range(2):
            if not episodes.alive[t, b, agent]:
                continue
            logits = network(learner.actors, torch.cat([episodes.observations[t, b, agent], torch.eye(2)[agent]]))
            legal = [a for a in range(3) if episodes.available[t, b, agent, a]]
            total = torch.logsumexp(torch.stack([logits[a] for a in legal]), 0)
            log_p = {a: logits[a] - total for a in legal}
            ratio = (log_p[int(episodes.actions[t, b, agent])] - rows.log_probability[i, agent]).exp()
            clipped = ratio.clamp(0.8, 1.2)
            spread = -sum((log_p[a].exp() * log_p[a] for a in legal), torch.zeros(()))
            terms.append(torch.minimum(ratio * scaled[i], clipped * scaled[i]) + 0.05 * spread)
    torch.testing.assert_close(learner.policy_loss(rows, 0.05), -torch.stack(terms).mean())
    torch.testing.assert_close(learner.value_loss(rows), 0.5 * torch.stack(errors).mean())


def test_rates_fall_to_a_tenth_and_entropy_to_nothing() -> None:
    learner = learner_of(TINY)
    episodes, _ = rows_of(learner)
    for done, rate in ((0.0, 1e-3), (0.5, 5e-4), (0.95, 1e-4), (1.5, 1e-4)):
        learner.update(episodes, int(done * learner.config.anneal_steps))
        assert [group["lr"] for group in learner._adam.param_groups] == pytest.approx([rate, rate])


class Listener(MAPPO):
    """Keeps what it is trained on, and learns nothing."""

    def __init__(self) -> None:
        super().__init__(TINY, (2, 1, 1, 3), torch.Generator().manual_seed(0), np.random.default_rng(0))
        self.given: list[tuple[Episodes, int]] = []

    def update(self, episodes: Episodes, env_steps: int) -> None:
        self.given.append((episodes, env_steps))


def test_rounds_are_whole_episodes_of_the_current_policy() -> None:
    learner = Listener()
    env = Game(4)
    rounds = list(islice(on_policy_rounds(env, OnPolicyConfig(num_envs=4, reward_scale=0.5), learner), 4))
    assert [r.env_steps for r in rounds] == [0, 10, 20, 30]  # 1 + 2 + 3 + 4 steps a round
    assert not any(r.uniform or r.epsilon for r in rounds)
    assert [steps for _, steps in learner.given] == [10, 20, 30]
    for number, (episodes, _) in enumerate(learner.given):
        ids = np.arange(4 * number, 4 * number + 4)
        lengths = 1 + ids % 4
        assert episodes.running.sum(dim=0).tolist() == lengths.tolist()
        for b, (episode, length) in enumerate(zip(ids, lengths, strict=True)):
            seen = 10 * episode + np.arange(length)
            assert episodes.observations[:length, b, :, 0].tolist() == [[x, x] for x in seen]
            assert episodes.states[: length + 1, b, 0].tolist() == [*seen, seen[-1] + 1]
            assert episodes.terminals[length - 1, b].item() == (length < 4)
            left, right = episodes.actions[:length, b].numpy().T
            assert episodes.rewards[:length, b].tolist() == (0.5 * PAYOFF[left, right]).tolist()
    assert max(actions.max() for actions in env.given) == 1  # what is not available is never drawn
    drawn = torch.cat([e.actions[e.running].flatten() for e, _ in learner.given])
    assert 0.25 < drawn.float().mean() < 0.75  # nearly uniform at first


def test_the_best_joint_action_is_found() -> None:
    learner = learner_of(MAPPOConfig(hidden=16, critic_hidden=16, learning_rate=1e-2, entropy=0.0))
    env = Game(16)
    blind = env.show

    def without_numbers(rewards: np.ndarray) -> Step:
        shown = blind(rewards)
        assert shown.states is not None
        return replace(
            shown, observations=np.zeros_like(shown.observations), states=np.zeros_like(shown.states)
        )  # what is seen tells nothing

    env.show = without_numbers  # type: ignore[method-assign]
    list(islice(on_policy_rounds(env, OnPolicyConfig(num_envs=16), learner), 30))
    legal = torch.tensor([[[True, True, False]] * 2])
    with torch.no_grad():
        likely = masked_log_softmax(learner._outputs(torch.zeros(1, 2, 1)), legal).exp()
    assert likely[0, :, 0].min() > 0.95
    assert likely.sum().item() == pytest.approx(2.0)
    assert likely[0, :, 2].max() == 0.0
