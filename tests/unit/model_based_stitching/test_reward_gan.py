"""Rewards of jumps from a Wasserstein GAN."""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.checks import sample_dataset
from benchmark.checks.check import EveryCheckpoint
from benchmark.checks.returned import check_generated
from methods.augmenters.mbts import MBTS
from methods.base import Budget, Run
from methods.model_based_stitching.reward_training import GANDescent, RewardSettings, kept_weights
from methods.model_based_stitching.steps import Scaling, StepTensors
from methods.networks.reward_gan import RewardGAN, reward_critic_loss, reward_generator_loss

SETTINGS = RewardSettings(
    form="wgan", hidden=5, updates=10, batch_size=6, learning_rate=1e-2, latent=2, critic_updates=3, penalty=0.1
)


def test_the_losses_by_hand() -> None:
    real, made = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[5.0, 7.0], [-1.0, 2.0]])
    assert reward_critic_loss(real, made).tolist() == [2.0 - 6.0, 0.0 - 0.5]
    assert reward_generator_loss(made).tolist() == [6.0, 0.5]


def plain(stack: nn.Module, x: Tensor) -> Tensor:
    """One perceptron of a stack of one, layer by layer: (B, in) -> (B,)."""
    layers = list(stack.layers)  # type: ignore[arg-type]  # as StackedMLP has them
    for layer in layers[:-1]:
        x = (x @ layer.weight[0] + layer.bias[0]).clamp(min=0)
    return (x @ layers[-1].weight[0] + layers[-1].bias[0])[:, 0]


def test_an_update_is_three_steps_of_the_critic_and_one_of_the_generator() -> None:
    data = sample_dataset("continuous").without_privileged()
    steps = StepTensors.of(data, Scaling.fit(data), "cpu")
    module = RewardGAN(steps.told_size, 2, 5, [np.random.default_rng(0)])
    other = copy.deepcopy(module)
    index, noise = (
        torch.tensor([[4, 9, 9, 30, 2, 60]]),
        torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0)),
    )
    descent = GANDescent(SETTINGS, module, steps, lambda index: (steps.rewards[index] - 0.5) / 2)
    said = descent.step(index, noise)

    at = data.row_of_step()[index[0].numpy()]
    seen = torch.cat([steps.rows[at], steps.actions[index[0]].flatten(1), steps.rows[at + 1]], dim=1)
    real = (torch.from_numpy(data.team_rewards()[index[0].numpy()]) - 0.5) / 2
    critic = torch.optim.Adam(other.critic.parameters(), lr=1e-2, betas=(0.5, 0.999))
    generator = torch.optim.Adam(other.generator.parameters(), lr=1e-2, betas=(0.5, 0.999))
    for turn in range(4):
        made = plain(other.generator, torch.cat([noise[0, :, 2 * turn : 2 * turn + 2], seen], dim=1))
        judged = plain(other.critic, torch.cat([seen, made[:, None]], dim=1)).mean()
        if turn < 3:
            critic.zero_grad()
            wrong = plain(other.critic, torch.cat([seen, real[:, None]], dim=1)).mean() - judged
            last = wrong.item()
            penalty = torch.stack([parameter.square().sum() for parameter in other.critic.parameters()]).sum()
            torch.autograd.backward(wrong + 0.1 * penalty)
            critic.step()
        else:
            generator.zero_grad()
            torch.autograd.backward(judged)
            generator.step()
    np.testing.assert_allclose(said.item(), last, rtol=1e-5)
    for (name, found), expected in zip(module.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_what_is_kept_is_the_generator() -> None:
    module = RewardGAN(3, 2, 4, [np.random.default_rng(0)])
    arrays = {name: p.detach().numpy() for name, p in module.named_parameters()}
    kept = kept_weights("wgan", arrays)
    np.testing.assert_array_equal(kept["layers.0.weight"], arrays["generator.layers.0.weight"])
    assert kept["layers.0.weight"].shape == (1, 5, 4)
    assert kept_weights("mlp", arrays) is arrays


def test_rewards_of_jumps_are_drawn_within_those_of_the_data() -> None:
    data, run = sample_dataset("discrete").without_privileged(), Run(seeds=(3,), budget=Budget(amount=300))
    augmenter = MBTS.tiny({"reward": "wgan", "fresh_copies": 30})
    augmenter.fit(data, run)
    (model,) = augmenter._models
    assert model.latent == 2 * data.spec.n_agents * data.spec.action.size + 2
    returned = check_generated(augmenter.generate(data, run), data, data.spec, "mbts")
    assert returned.team_rewards().min() >= data.team_rewards().min()
    assert returned.team_rewards().max() <= data.team_rewards().max()
    steps = StepTensors.of(data, model.scaling, "cpu")
    first, second = np.array([0, 0]), np.array([5, 5])
    latents = np.zeros((2, model.latent), dtype=np.float32)
    latents[1, -2:] = 3.0  # z of the reward alone
    actions, rewards = model.actions_and_rewards(steps, first, second, latents)
    np.testing.assert_array_equal(actions[0], actions[1])
    assert rewards[0] != rewards[1]


def test_a_fit_goes_on_from_every_checkpoint_as_if_undisturbed() -> None:
    data, kept = sample_dataset("discrete").without_privileged(), EveryCheckpoint()

    def fitted(checkpoint: EveryCheckpoint) -> MBTS:
        member = MBTS.tiny({"reward": "wgan", "gan_updates": 40})
        MBTS.fit_together([member], data, replace(Run(seeds=(3,)), checkpoint=checkpoint))
        return member

    undisturbed = fitted(kept).state()
    assert len(kept.states) >= 4
    for stored in kept.states:
        for name, array in fitted(EveryCheckpoint(stored)).state().items():
            np.testing.assert_array_equal(array, undisturbed[name], err_msg=name)
