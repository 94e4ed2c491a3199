"""MATD3's equations on numbers worked by hand and against plain loops; both action kinds learn a toy problem."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.networks.stacked import StackedMLP, perceptron
from methods.objectives.td3 import smoothed, td3_target
from methods.online.imitation import Imitation, ImitationConfig
from methods.online.matd3 import (
    MATD3,
    MATD3Config,
    ReplayBatch,
    clip_by_agent,
    own_action_replaced,
    straight_through,
)
from tasks.common.seeding import make_generator
from tasks.spec import ActionSpec

CONTINUOUS = ActionSpec(kind="continuous", size=2)
DISCRETE = ActionSpec(kind="discrete", size=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The networks are small: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights() -> np.random.Generator:
    return make_generator("weights", 0)


def random_batch(action: ActionSpec, n: int = 3, obs_dim: int = 4, batch: int = 8) -> ReplayBatch:
    g = generator(1)
    actions = 2 * torch.rand(batch, n, action.size, generator=g) - 1
    if action.discrete:
        actions = torch.nn.functional.one_hot(actions.argmax(dim=-1), action.size).float()
    return ReplayBatch(
        observations=torch.randn(batch, n, obs_dim, generator=g),
        actions=actions,
        rewards=torch.randn(batch, n, generator=g),
        next_observations=torch.randn(batch, n, obs_dim, generator=g),
        terminals=torch.rand(batch, generator=g) < 0.5,
    )


def test_target_takes_the_smaller_twin_and_stops_at_true_ends() -> None:
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0]])  # (N, B)
    next_q = torch.tensor([[[10.0, 10.0], [4.0, 4.0]], [[6.0, 6.0], [8.0, 8.0]]])  # (2, N, B)
    target = td3_target(reward, torch.tensor([False, True]), next_q, 0.5)
    torch.testing.assert_close(target, torch.tensor([[4.0, 1.0], [4.0, 2.0]]))
    twins = torch.stack([next_q[0], next_q[0]])
    torch.testing.assert_close(td3_target(reward, torch.tensor([False, False]), twins, 0.5), reward + 0.5 * next_q[0])


def test_smoothing_noise_is_clipped_before_and_after() -> None:
    noise = torch.tensor([2.0, -2.0, 0.1, 0.3])
    action = torch.tensor([0.0, 0.0, 0.5, 0.9])
    torch.testing.assert_close(smoothed(action, noise, 0.5), torch.tensor([0.5, -0.5, 0.6, 1.0]))


def test_straight_through_is_one_hot_with_the_gradient_of_softmax() -> None:
    logits = torch.tensor([0.2, 0.1, -1.0], requires_grad=True)
    gumbel = torch.tensor([0.0, 1.0, 0.0])
    chosen = straight_through(logits, gumbel, 1.0)
    torch.testing.assert_close(chosen, torch.tensor([0.0, 1.0, 0.0]))
    weights = torch.tensor([1.0, 2.0, 3.0])
    (gradient,) = torch.autograd.grad((chosen * weights).sum(), logits)
    soft = (logits.detach() + gumbel).softmax(dim=-1)
    torch.testing.assert_close(gradient, soft * (weights - (soft * weights).sum()))


def test_stacked_networks_equal_single_ones() -> None:
    parameters = list(StackedMLP((4, 5, 6, 2), [weights()], 3).parameters())
    x = torch.randn(3, 7, 4, generator=generator(2))
    out = perceptron(parameters, x)
    for group in range(3):
        w = [parameter[group] for parameter in parameters]
        hidden = torch.relu(torch.relu(x[group] @ w[0] + w[1]) @ w[2] + w[3])
        torch.testing.assert_close(out[group], hidden @ w[4] + w[5])
    assert parameters[0].abs().max() <= 0.5  # 1 / sqrt(4), the fan-in of one slice


def test_gradient_of_an_agents_critic_reaches_its_own_action_alone() -> None:
    recorded, own = torch.zeros(5, 3, 2), torch.ones(3, 5, 2, requires_grad=True)
    joint = own_action_replaced(recorded, own)  # (N, B, N, A)
    for agent in range(3):
        for other in range(3):
            assert (joint[agent, :, other] == float(agent == other)).all()
        (gradient,) = torch.autograd.grad(joint[agent].sum(), own, retain_graph=True)
        assert [bool(row.any()) for row in gradient] == [other == agent for other in range(3)]


def part_targets(learner: MATD3) -> None:
    """Moves the target networks away from the trained ones, so that mistaking one for the other shows."""
    with torch.no_grad():
        for parameter in (*learner._target_actors, *learner._target_critics):
            parameter.mul_(1.3)


def single(parameters: list[Tensor], index: int, x: Tensor) -> Tensor:
    """Network `index` of a stack, alone: (B, in) -> (B, out)."""
    return perceptron([parameter[index : index + 1] for parameter in parameters], x[None])[0]


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=lambda action: action.kind)
def test_actor_gradient_of_an_agent_ignores_the_other_actors(action: ActionSpec) -> None:
    """An agent's gradient stays the same when the others' actors change (the recorded actions do not)."""
    learner = MATD3(MATD3Config(hidden=8), 3, 4, action, generator(), weights())
    batch = random_batch(action)

    def gradient() -> Tensor:
        learner._generator.manual_seed(5)
        return torch.autograd.grad(learner.actor_loss(batch), learner.actors)[0]

    before = gradient()
    with torch.no_grad():
        learner.actors[0][1] += 1.0
    after = gradient()
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert not torch.allclose(after[1], before[1])


def test_without_noise_and_with_equal_twins_it_is_maddpg() -> None:
    """Critic loss against a plain loop over agents: y_i = r_i + γ (1 − e) Q̄_i(s', π̄(o'))."""
    config = MATD3Config(hidden=8, target_noise=0.0, policy_delay=1, discount=0.9)
    n, batch = 3, random_batch(CONTINUOUS)
    learner = MATD3(config, n, 4, CONTINUOUS, generator(), weights())
    part_targets(learner)
    with torch.no_grad():
        for parameters in (learner.critics, learner._target_critics):
            for parameter in parameters:
                parameter[n:] = parameter[:n]

    expected = 0.0
    next_actions = [single(learner._target_actors, i, batch.next_observations[:, i]).tanh() for i in range(n)]
    for i in range(n):
        next_joint = torch.cat([batch.next_observations.flatten(1), *next_actions], dim=1)
        next_q = single(learner._target_critics, i, next_joint)[:, 0]
        y = batch.rewards[:, i] + 0.9 * (~batch.terminals) * next_q
        q = single(learner.critics, i, torch.cat([batch.observations.flatten(1), batch.actions.flatten(1)], dim=1))
        expected += 2 * (q[:, 0] - y).square().mean().item()
    assert learner.critic_loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_target_has_the_noise_of_td3() -> None:
    """Critic loss against a loop with its own noise: both twins learn r_i + γ (1 − e) min_k Q̄_i^k(s', ã')."""
    config = MATD3Config(hidden=8, target_noise=0.7, target_noise_clip=0.5, discount=0.9)
    n, batch = 3, random_batch(CONTINUOUS)
    learner = MATD3(config, n, 4, CONTINUOUS, generator(9), weights())
    part_targets(learner)
    noise = 0.7 * torch.randn(n, 8, 2, generator=generator(9))
    assert (noise.abs() > 0.5).any()  # so that the clip matters
    next_actions = [
        (single(learner._target_actors, i, batch.next_observations[:, i]).tanh() + noise[i].clamp(-0.5, 0.5)).clamp(
            -1, 1
        )
        for i in range(n)
    ]
    next_joint = torch.cat([batch.next_observations.flatten(1), *next_actions], dim=1)
    joint = torch.cat([batch.observations.flatten(1), batch.actions.flatten(1)], dim=1)
    expected = 0.0
    for i in range(n):
        twins = [single(learner._target_critics, i + k * n, next_joint)[:, 0] for k in range(2)]
        y = batch.rewards[:, i] + 0.9 * (~batch.terminals) * torch.minimum(*twins)
        expected += sum((single(learner.critics, i + k * n, joint)[:, 0] - y).square().mean().item() for k in range(2))
    assert learner.critic_loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_actor_loss_is_that_of_the_first_critic_and_the_penalty() -> None:
    """Σ_i −mean Q_i^1(s, a_{−i}, π_i(o_i)) + 0.3 mean(raw²), by a loop over agents."""
    n, batch = 3, random_batch(CONTINUOUS)
    learner = MATD3(MATD3Config(hidden=8, output_penalty=0.3), n, 4, CONTINUOUS, generator(), weights())
    part_targets(learner)
    expected = 0.0
    for i in range(n):
        raw = single(learner.actors, i, batch.observations[:, i])
        actions = batch.actions.clone()
        actions[:, i] = raw.tanh()
        q = single(learner.critics, i, torch.cat([batch.observations.flatten(1), actions.flatten(1)], dim=1))
        expected += (-q.mean() + 0.3 * raw.square().mean()).item()
    assert learner.actor_loss(batch).item() == pytest.approx(expected, rel=1e-5)
    critics = torch.autograd.grad(learner.actor_loss(batch), learner.critics, allow_unused=True)
    assert all(gradient is None for gradient in critics)


def test_clipping_is_per_agent_over_all_its_networks() -> None:
    # Two agents with twins: agent 0's gradients have norm sqrt(3² + 4²) = 5, agent 1's 0.1 in all.
    weight = torch.tensor([3.0, 0.1, 4.0, 0.0]).view(4, 1, 1)
    bias = torch.zeros(4, 1, 1)
    clip_by_agent([weight, bias], agents=2, limit=0.5)
    torch.testing.assert_close(weight.flatten(), torch.tensor([0.3, 0.1, 0.4, 0.0]))


def test_actors_and_targets_move_every_second_update() -> None:
    learner = MATD3(MATD3Config(hidden=8), 3, 4, CONTINUOUS, generator(), weights())
    start = [parameter.detach().clone() for parameter in learner.actors]
    first_critics = [parameter.detach().clone() for parameter in learner.critics]
    learner.update(random_batch(CONTINUOUS))
    assert all(torch.equal(a, b) for a, b in zip(start, learner.actors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first_critics, learner._target_critics, strict=True))
    assert not torch.equal(first_critics[0], learner.critics[0])
    learner.update(random_batch(CONTINUOUS))
    assert not torch.equal(start[0], learner.actors[0])
    moved = start[0] + 0.01 * (learner.actors[0].detach() - start[0])
    torch.testing.assert_close(learner._target_actors[0], moved)
    for before, now, target in zip(first_critics, learner.critics, learner._target_critics, strict=True):
        torch.testing.assert_close(target, before + 0.01 * (now.detach() - before))


def test_an_update_clips_the_gradients_of_each_agent() -> None:
    learner = MATD3(MATD3Config(hidden=8, policy_delay=1), 3, 4, CONTINUOUS, generator(), weights())
    steep = random_batch(CONTINUOUS)
    steep.rewards.mul_(1e3)
    learner.update(steep)
    norm = torch.zeros(3)  # of agent i's two critics
    for parameter in learner.critics:
        assert parameter.grad is not None
        norm += parameter.grad.flatten(1).square().sum(dim=1).view(2, 3).sum(dim=0)
    torch.testing.assert_close(norm.sqrt(), torch.full((3,), 0.5))


def test_same_seed_same_learner() -> None:
    first, second = (MATD3(MATD3Config(hidden=8), 3, 4, DISCRETE, generator(4), weights()) for _ in range(2))
    for learner in (first, second):
        for _ in range(4):
            learner.update(random_batch(DISCRETE))
    assert all(torch.equal(a, b) for a, b in zip(first.actors, second.actors, strict=True))


def test_exploration_stays_legal() -> None:
    observations = torch.randn(50, 3, 4, generator=generator(3))
    noisy = MATD3(MATD3Config(hidden=8, exploration_noise=3.0), 3, 4, CONTINUOUS, generator(), weights()).act(
        observations
    )
    assert noisy.shape == (50, 3, 2)
    assert noisy.abs().max() == 1.0
    quiet = MATD3(MATD3Config(hidden=8, exploration_noise=0.0), 3, 4, CONTINUOUS, generator(), weights())
    usual = MATD3(MATD3Config(hidden=8), 3, 4, CONTINUOUS, generator(), weights())
    many = torch.randn(5_000, 3, 4, generator=generator(4))
    assert (usual.act(many) - quiet.act(many)).std().item() == pytest.approx(0.1, rel=0.03)
    sampled = MATD3(MATD3Config(hidden=8), 3, 4, DISCRETE, generator(), weights()).act(observations)
    assert set(sampled.unique().tolist()) == {0.0, 1.0}
    assert (sampled.sum(dim=-1) == 1).all()


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=lambda action: action.kind)
def test_learns_a_one_step_problem(action: ActionSpec) -> None:
    """Agent i is paid for action 0 where its observation is positive, else for the opposite (or action 1)."""
    config, g = MATD3Config(hidden=32, learning_rate=3e-3), generator(6)
    learner = MATD3(config, 2, 1, action, g, weights())

    def reward(observation: Tensor, chosen: Tensor) -> Tensor:
        sign = observation[..., 0].sign()
        if action.discrete:
            return sign * (chosen[..., 0] - chosen[..., 1])
        return 1.0 - (chosen[..., 0] - 0.8 * sign).square()

    def batch() -> ReplayBatch:
        observation = torch.randn(128, 2, 1, generator=g)
        chosen = learner.act(observation)
        ended = torch.ones(128, dtype=torch.bool)
        return ReplayBatch(observation, chosen, reward(observation, chosen), observation, ended)

    for _ in range(300):
        learner.update(batch())
    observation = torch.randn(500, 2, 1, generator=g)
    raw = perceptron(learner.actors, observation.transpose(0, 1)).transpose(0, 1).detach()
    greedy = torch.nn.functional.one_hot(raw.argmax(dim=-1), action.size).float() if action.discrete else raw.tanh()
    mean = float(reward(observation, greedy).mean())
    assert mean > 0.8
    assert not math.isnan(mean)


def test_imitation_learns_its_teacher() -> None:
    """Agents that shall answer what they see with (x, -x) learn it from states alone."""
    g = generator(8)
    learner = Imitation(ImitationConfig(learning_rate=3e-3), 2, 1, 2, lambda seen: teacher(seen), g, weights())

    def teacher(seen: Tensor) -> Tensor:
        return torch.cat([seen, -seen], dim=-1).clamp(-1.0, 1.0)

    for _ in range(300):
        seen = torch.randn(128, 2, 1, generator=g)
        unused = torch.zeros(128, 2)
        learner.update(ReplayBatch(seen, torch.zeros(128, 2, 2), unused, seen, unused[:, 0].bool()))
    seen = torch.linspace(-2, 2, 50).view(50, 1, 1).expand(50, 2, 1)
    out = perceptron(learner.actors, seen.transpose(0, 1)).tanh().transpose(0, 1)
    assert (out - teacher(seen)).abs().max() < 0.15
    acted = learner.act(seen)
    assert acted.abs().max() <= 1.0
    assert 0.05 < (acted - out.detach()).std() < 0.15


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=lambda action: action.kind)
def test_an_update_is_an_adam_step_on_the_clipped_gradient(action: ActionSpec) -> None:
    """Against torch's plain Adam, on the same losses and noise: critics after one call, actors after the second."""
    config, batch = MATD3Config(hidden=8), random_batch(action)
    learner, twin = (MATD3(config, 3, 4, action, generator(5), weights()) for _ in range(2))
    optimisers = [torch.optim.Adam(p, lr=config.learning_rate, fused=False) for p in (twin.critics, twin.actors)]
    learner.update(batch)
    learner.update(batch)
    for update in range(2):
        for parameters, optimiser, loss in zip(
            (twin.critics, twin.actors), optimisers, ("critic", "actor"), strict=True
        ):
            if loss == "critic" or update == 1:
                gradients = torch.autograd.grad(getattr(twin, f"{loss}_loss")(batch), parameters)
                clip_by_agent(gradients, 3, config.gradient_clip)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimiser.step()
    for ours, plain in zip([*learner.actors, *learner.critics], [*twin.actors, *twin.critics], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-7)
