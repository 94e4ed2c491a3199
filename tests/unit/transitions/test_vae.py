"""`vae`: its loss by hand, what it learns, its modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.augmenters.vae import VAE
from methods.base import Budget, Run
from methods.networks.token_groups import TokenGroups
from methods.networks.transition_vae import TransitionVAE
from methods.run import TransitionBudget
from tasks.common.errors import UsageError
from tests.unit.transitions.toy import facts, toy


def normal(seed: int, *shape: int) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(seed))
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def made(*, apart: bool = True) -> TransitionVAE:
    return TransitionVAE(TokenGroups(3, apart, not apart), 4, 2, 8, [np.random.Generator(np.random.Philox(0))])


def test_the_loss_by_hand() -> None:
    """½ (mean (x̂ − x)² + mean of ½ (μ² + σ² − 1) − ln σ), of each agent's network."""
    vae, x, noise = made(), normal(1, 1, 6, 3, 4), normal(2, 1, 6, 3, 2)
    mean, log_std = vae.encode(x)
    rebuilt = vae.decode(mean + log_std.exp() * noise)
    for agent in range(3):
        error = (rebuilt - x)[0, :, agent].square().mean()
        m, s = mean[0, :, agent], log_std[0, :, agent]
        divergence = (0.5 * (m.square() + (2 * s).exp() - 1) - s).mean()
        assert divergence >= 0
        torch.testing.assert_close(vae.losses(x, noise)[agent], 0.5 * (error + divergence))


def test_training_lowers_the_error_of_what_is_rebuilt() -> None:
    vae, x = made(), normal(1, 1, 256, 3, 4)
    x[..., 2:] = x[..., :2]  # two numbers say it all
    optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)

    def error() -> float:
        with torch.no_grad():
            return float((vae.decode(vae.encode(x)[0]) - x).square().mean())

    before = error()
    for step in range(300):
        optimiser.zero_grad()
        torch.autograd.backward(vae.losses(x, normal(2 + step, 1, 256, 3, 2)).sum())
        optimiser.step()
    assert error() < 0.6 * before


def test_the_deviation_of_the_posterior_is_bounded() -> None:
    vae = made()
    with torch.no_grad():
        list(vae.encoder.parameters())[-1].fill_(-100.0)
    assert vae.encode(normal(1, 1, 6, 3, 4))[1].max().item() == -4


def test_agents_are_apart() -> None:
    for apart in (True, False):
        vae, z = made(apart=apart), normal(1, 1, 6, 3, 2)
        moved = z.clone()
        moved[:, :, 1] += 1
        assert torch.equal(vae.decode(z)[:, :, [0, 2]], vae.decode(moved)[:, :, [0, 2]])


def test_a_known_law_is_roughly_learned() -> None:
    data = toy(2000)
    budget = TransitionBudget(width=64, updates=800, batch_size=128, learning_rate=2e-3)
    run = Run(seeds=(0,), budget=Budget(amount=1000, transition=budget))
    augmenter = VAE()
    augmenter.fit(data, run)
    found, real, told = facts(augmenter.generate(data, run)), facts(data), augmenter.diagnosis()
    assert told["loss_curve"][0][1] > 1.5 * told["training_loss"]
    assert found["mean"] == pytest.approx(real["mean"], abs=0.4)
    assert 0.4 * real["deviation"] < found["deviation"] < 1.1 * real["deviation"]  # means of a decoder spread less
    assert abs(found["between agents"]) < 0.15


@pytest.mark.parametrize("mode", ["shared", "joint"])
def test_the_other_modes_give_valid_data(mode: str) -> None:
    data = sample_dataset("states-and-deaths").without_privileged()
    augmenter = VAE.tiny({"agent_mode": mode})
    augmenter.fit(data, Run(seeds=(0,)))
    augmenter.generate(data, Run(seeds=(0,), budget=Budget(amount=20))).validate()


def test_the_defaults_are_those_of_mbts_and_bad_ones_are_refused() -> None:
    plan = VAE().plan(1000)
    assert (plan.updates, plan.batch_size, plan.learning_rate, plan.ema_decay) == (400_000, 100, 1e-4, None)
    with pytest.raises(UsageError, match="latent=0"):
        VAE.from_params({"latent": 0})
    with pytest.raises(UsageError, match="per_agent or shared or joint"):
        VAE.from_params({"agent_mode": "none"})
