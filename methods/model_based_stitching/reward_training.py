"""The two reward models of MBTS' repository: a perceptron, and the generator of a Wasserstein GAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from methods.diffusion.stacked_adam import StackedAdam
from methods.model_based_stitching.steps import StepTensors
from methods.model_based_stitching.training import OneAdam, Stage
from methods.networks.reward_gan import RewardGAN, reward_critic_loss, reward_generator_loss
from methods.networks.stacked import StackedMLP

_BETAS = (0.5, 0.999)  # of both Adams of the GAN; MBTS' repository, WGAN_Reward.py

FORMS = ("mlp", "wgan")

Wanted = Callable[[Tensor], Tensor]
"""Standardised team rewards (G, B) of steps (G, B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSettings:
    """Size and training of a reward model.

    Attributes:
        form: of FORMS.
        hidden, updates, batch_size, learning_rate: see `MBTSConfig`.
        latent, critic_updates, penalty: of the GAN.
    """

    form: str
    hidden: int
    updates: int
    batch_size: int
    learning_rate: float
    latent: int
    critic_updates: int
    penalty: float


def reward_stage(
    settings: RewardSettings,
    steps: StepTensors,
    mean: float,
    std: float,
    weights: Sequence[np.random.Generator],
    batches: Sequence[np.random.Generator],
) -> Stage:
    """What trains the reward model of R replicas on all steps; rewards are standardised by `mean` and `std`."""
    features = steps.told_size
    device = steps.rows.device

    def wanted(index: Tensor) -> Tensor:
        return (steps.rewards[index] - mean) / std

    module: StackedMLP | RewardGAN
    descent: OneAdam | GANDescent
    if settings.form == "wgan":
        module = RewardGAN(features, settings.latent, settings.hidden, weights).to(device)
        descent = GANDescent(settings, module, steps, wanted)
        noise = settings.latent * (settings.critic_updates + 1)
    else:
        module, noise = StackedMLP((features, settings.hidden, settings.hidden, 1), weights).to(device), 0
        descent = OneAdam(module, squared_errors(module, steps, wanted), settings.learning_rate)
    return Stage(
        name="reward model",
        module=module,
        descent=descent,
        generators=batches,
        steps=[np.arange(len(steps.at))] * len(batches),
        noise=noise,
        updates=settings.updates,
        batch_size=settings.batch_size,
    )


def kept_weights(form: str, weights: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Of what was trained, the network that predicts: all of the perceptron, the generator of the GAN."""
    if form == "mlp":
        return weights
    return {n.removeprefix("generator."): a for n, a in weights.items() if n.startswith("generator.")}


def squared_errors(module: StackedMLP, steps: StepTensors, wanted: Wanted) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The perceptron's loss."""

    def losses(index: Tensor, noise: Tensor | None) -> Tensor:
        at = steps.at[index]
        predicted = module(steps.told(at, steps.actions[index], at + 1))[..., 0]  # (G, B)
        error: Tensor = predicted - wanted(index)
        return error.square().mean(dim=1)

    return losses


class GANDescent:
    """One update: some steps of the critic and one of the generator, all on one batch, each with fresh z.

    The critic goes down ⟨C(x, r)⟩ − ⟨C(x, r̃)⟩ + λ |θ|², the generator down ⟨C(x, r̃)⟩ (MBTS' repository; neither are
    weights clipped nor gradients held at 1, as other Wasserstein GANs do).
    """

    def __init__(self, settings: RewardSettings, module: RewardGAN, steps: StepTensors, wanted: Wanted) -> None:
        self._settings, self._module, self._steps, self._wanted = settings, module, steps, wanted
        # Adam's L2 decay adds w θ to the gradient, and that of λ |θ|² is 2 λ θ.
        decay, rate = 2 * settings.penalty, settings.learning_rate
        self._critic = StackedAdam(module.critic, rate, betas=_BETAS, weight_decay=decay)
        self._generator = StackedAdam(module.generator, rate, betas=_BETAS)

    def step(self, index: Tensor, noise: Tensor | None) -> Tensor:
        """See `Descent`; noise holds the z of all steps side by side. The losses are the critic's last, without λ."""
        assert noise is not None  # the stage asks for it
        steps, module = self._steps, self._module
        at = steps.at[index]
        seen, real = steps.told(at, steps.actions[index], at + 1), self._wanted(index)
        *critic_latents, latents = torch.split(noise, self._settings.latent, dim=-1)
        losses = torch.zeros(len(index), device=seen.device)
        for z in critic_latents:
            with torch.no_grad():
                made = module.rewards(seen, z)
            losses = reward_critic_loss(module.judged(seen, real), module.judged(seen, made))
            self._critic.step(losses)
        # The critic's own gradients are of no use here; the next step of it begins with none.
        self._generator.step(reward_generator_loss(module.judged(seen, module.rewards(seen, latents))))
        return losses

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Both networks and their optimisers."""
        parts = {"critic": self._critic, "generator": self._generator}
        return {f"{part}/{name}": array for part, adam in parts.items() for name, array in adam.arrays().items()}

    def load(self, arrays: Arrays) -> None:
        """Takes what `arrays` returned."""
        for part, adam in (("critic", self._critic), ("generator", self._generator)):
            adam.load({n.removeprefix(f"{part}/"): a for n, a in arrays.items() if n.startswith(f"{part}/")})
