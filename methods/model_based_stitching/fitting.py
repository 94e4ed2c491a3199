"""Fits the models of R replicas side by side on the original transitions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run, TransitionBudget
from methods.data.windows import require_finite
from methods.journal import Journal
from methods.model_based_stitching.model import NUMBERS, StitchingModel, module_arrays
from methods.model_based_stitching.neighbours import nearest_distances
from methods.model_based_stitching.reward_training import RewardSettings, kept_weights, reward_stage
from methods.model_based_stitching.steps import Scaling, StepTensors
from methods.model_based_stitching.training import EarlyStop, OneAdam, Stage, Trained, train
from methods.networks.inverse_vae import InverseVAE
from methods.networks.transition_density import TransitionDensity
from methods.objectives.transition_density import diagonal_log_density
from tasks.datasets.offline import OfflineDataset

_HELD_OUT = 0.2  # share of the transitions that densities are judged by; MBTS' repository, model_trainer.py
_JUDGED = 4_096  # of them, at most (choice)
_JUDGEMENTS = 50  # of a training of a fixed number of updates (choice)
_MEASURED = 2_048  # rows whose nearest neighbour is looked for (choice)
RADIUS_QUANTILE, RADIUS_FACTOR = 0.01, 3.0  # inferred


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Sizes and optimisers of the three models; see `MBTSConfig`."""

    members: int
    kept_members: int
    density_hidden: int
    density_updates: int | None
    density_epochs: int
    patience: int
    density_batch_size: int
    density_learning_rate: float
    inverse_hidden: int
    inverse_updates: int
    inverse_batch_size: int
    inverse_learning_rate: float
    reward: str
    reward_hidden: int
    reward_updates: int
    reward_batch_size: int
    reward_learning_rate: float
    gan_latent: int
    gan_critic_updates: int
    gan_penalty: float

    def within(self, budget: TransitionBudget) -> ModelSettings:
        """With what a protocol fixes."""
        chosen: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        fixed = {
            "hidden": budget.width,
            "updates": budget.updates,
            "batch_size": budget.batch_size,
            "learning_rate": budget.learning_rate,
        }
        for model in ("density", "inverse", "reward"):
            chosen |= {f"{model}_{name}": value for name, value in fixed.items() if value is not None}
        return ModelSettings(**chosen)


def fit_models(settings: ModelSettings, data: OfflineDataset, run: Run) -> list[StitchingModel]:
    """R models, replica r from `run.seeds[r]` alone.

    Raises:
        DataError: where values of the data are not finite.
    """
    began = time.monotonic()
    require_finite(data)
    scaling = Scaling.fit(data)
    steps = StepTensors.of(data, scaling, run.device)
    replicas = range(len(run.seeds))
    fitting = _Fitting(settings, data, scaling, steps, run)
    journal = Journal(run, fitting.density_updates + settings.inverse_updates + settings.reward_updates)
    journal.report(0, "preparing the data", now=True)
    density, held_out = fitting.density(journal)
    inverse = fitting.inverse(journal)
    reward = fitting.reward(journal)
    radius = [calibrated_radius(data, scaling, run.generator("mbts/radius", r)) for r in replicas]
    rewards = data.team_rewards().astype(np.float64)
    models = []
    for r in replicas:
        own = np.arange(r * settings.members, (r + 1) * settings.members)
        best = own[np.sort(np.argsort(held_out[own], kind="stable")[: settings.kept_members])]
        numbers = (rewards.mean(), reward_std(rewards), rewards.min(), rewards.max(), radius[r])
        arrays: dict[str, NDArray[Any]] = {
            **{f"scaling/{name}": array for name, array in scaling.arrays().items()},
            **module_arrays("density", density.weights, best),
            **module_arrays("inverse", inverse.weights, [r]),
            **module_arrays("reward", reward.weights, [r]),
            **{name: np.array(value) for name, value in zip(NUMBERS, numbers, strict=True)},
        }
        model = StitchingModel.from_arrays(arrays, data.spec, run.device)
        model.diagnosis.update(
            {
                "density_heldout_nll": [float(loss) for loss in held_out[own]],
                "kept_members": [int(member - own[0]) for member in best],
                "density_updates": density.updates,
                "inverse_loss": float(inverse.loss[r]),
                "reward_loss": float(reward.loss[r]),
                "calibrated_radius": radius[r],
                "diverged": model.diverged,
                "features": len(scaling.kept),
                "seconds": {
                    "density": round(density.seconds, 3),
                    "inverse": round(inverse.seconds, 3),
                    "reward": round(reward.seconds, 3),
                    "all": round(time.monotonic() - began, 3),
                },
            }
        )
        models.append(model)
    return models


def reward_std(rewards: NDArray[np.float64]) -> float:
    """Of the team rewards; 1 where they are all alike."""
    return float(rewards.std()) or 1.0


def calibrated_radius(data: OfflineDataset, scaling: Scaling, generator: np.random.Generator) -> float:
    """Three times the 1% quantile of the distance of a row to the nearest one of another episode (inferred).

    Within an episode the nearest row is the one before or after: a radius from those would stitch an episode to itself.
    Rows that are equal, as where every battle starts alike, tell nothing of the scale and do not count.
    """
    rows = scaling.rows(data)
    episodes = np.repeat(np.arange(data.n_episodes), data.lengths + 1)
    chosen = generator.permutation(len(rows))[:_MEASURED]
    distances = nearest_distances(rows, episodes, chosen)
    apart = distances[distances > 0]
    return float(RADIUS_FACTOR * np.quantile(apart, RADIUS_QUANTILE)) if len(apart) else 0.0


class _Fitting:
    def __init__(
        self, settings: ModelSettings, data: OfflineDataset, scaling: Scaling, steps: StepTensors, run: Run
    ) -> None:
        self._settings, self._data, self._steps, self._run = settings, data, steps, run
        self._features, self._replicas = len(scaling.kept), range(len(run.seeds))
        epoch = max(1, round((1 - _HELD_OUT) * data.n_steps / settings.density_batch_size))
        fixed = settings.density_updates
        self.density_updates = settings.density_epochs * epoch if fixed is None else fixed
        # Where a protocol fixes the updates there is no early stop, and as many judgements as are useful.
        self._judge_every = epoch if fixed is None else max(1, fixed // _JUDGEMENTS)
        self._patience = settings.patience if fixed is None else _JUDGEMENTS + 1

    def _generators(self, purpose: str) -> list[np.random.Generator]:
        return [self._run.generator(f"mbts/{purpose}", r) for r in self._replicas]

    def density(self, journal: Journal) -> tuple[Trained, NDArray[np.float64]]:
        """Weights at each member's best judgement, and that, (R · members,)."""
        settings, steps, device = self._settings, self._steps, self._run.device
        module = TransitionDensity(
            self._features, settings.density_hidden, self._generators("density/weights"), settings.members
        ).to(device)
        taught, judged = zip(
            *(self._split(generator) for generator in self._generators("density/held-out")), strict=True
        )
        shown = [judged_steps[:_JUDGED] for judged_steps in judged]

        def losses(index: Tensor, noise: Tensor | None) -> Tensor:
            return density_losses(module, steps, index)

        def judge() -> Tensor:
            index = np.concatenate([np.tile(part, (settings.members, 1)) for part in shown])
            parts = torch.split(torch.from_numpy(index).to(device), settings.density_batch_size, dim=1)
            total = torch.zeros(len(index), device=device)
            for part in parts:
                total += density_losses(module, steps, part) * part.shape[1]
            return total.div_(index.shape[1])

        stop = EarlyStop(module, judge, self._judge_every, self._patience, self.density_updates)
        stage = Stage(
            name="transition density",
            module=module,
            descent=OneAdam(module, losses, settings.density_learning_rate),
            generators=self._generators("density/batches"),
            steps=taught,
            copies=settings.members,
            updates=self.density_updates,
            batch_size=settings.density_batch_size,
            watcher=stop,
        )
        trained = train(stage, journal, 0, device)
        best = {n.removeprefix("best/"): a for n, a in trained.watched.items() if n.startswith("best/")}
        return replace(trained, weights=best), trained.watched["loss"].astype(np.float64)

    def inverse(self, journal: Journal) -> Trained:
        """The VAE of joint actions."""
        settings, steps, data, device = self._settings, self._steps, self._data, self._run.device
        module = InverseVAE(
            2 * self._features,
            data.spec.action,
            data.spec.n_agents,
            settings.inverse_hidden,
            self._generators("inverse/weights"),
        ).to(device)

        def losses(index: Tensor, noise: Tensor | None) -> Tensor:
            assert noise is not None  # the stage asks for it
            at = steps.at[index]
            available = None if steps.available is None else steps.available[at]
            return module.losses(steps.seen(at, at + 1), steps.encoded(steps.actions[index]), noise, available)

        stage = Stage(
            name="inverse model",
            module=module,
            descent=OneAdam(module, losses, settings.inverse_learning_rate),
            generators=self._generators("inverse/batches"),
            steps=self._all(),
            noise=module.latent,
            updates=settings.inverse_updates,
            batch_size=settings.inverse_batch_size,
        )
        return train(stage, journal, self.density_updates, device)

    def reward(self, journal: Journal) -> Trained:
        """The model of the team reward, standardised."""
        settings, rewards = self._settings, self._data.team_rewards().astype(np.float64)
        own = RewardSettings(
            form=settings.reward,
            hidden=settings.reward_hidden,
            updates=settings.reward_updates,
            batch_size=settings.reward_batch_size,
            learning_rate=settings.reward_learning_rate,
            latent=settings.gan_latent,
            critic_updates=settings.gan_critic_updates,
            penalty=settings.gan_penalty,
        )
        numbers = (float(rewards.mean()), reward_std(rewards))
        generators = (self._generators("reward/weights"), self._generators("reward/batches"))
        stage = reward_stage(own, self._steps, *numbers, *generators)
        trained = train(stage, journal, self.density_updates + settings.inverse_updates, self._run.device)
        return replace(trained, weights=kept_weights(own.form, trained.weights))

    def _all(self) -> Sequence[NDArray[np.int64]]:
        return [np.arange(self._data.n_steps)] * len(self._replicas)

    def _split(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Steps to train on and to judge by; the only step of the data is both."""
        order = generator.permutation(self._data.n_steps)
        judged = max(1, round(_HELD_OUT * len(order)))
        return (order[judged:] if judged < len(order) else order), order[:judged]


def density_losses(module: TransitionDensity, steps: StepTensors, index: Tensor) -> Tensor:
    """Mean negative log density (G,) of the changes at steps (G, B)."""
    at = steps.at[index]
    mean, log_std = module(steps.rows[at])
    return -diagonal_log_density(steps.changes(at, at + 1), mean, log_std).mean(dim=1)
