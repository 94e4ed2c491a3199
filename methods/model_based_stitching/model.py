"""What is fitted once on the original data: densities, inverse model, reward model, and how far a neighbour may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays
from methods.model_based_stitching.steps import Scaling, StepTensors
from methods.networks.inverse_vae import InverseVAE
from methods.networks.stacked import StackedMLP
from methods.networks.transition_density import TransitionDensity
from methods.objectives.transition_density import diagonal_log_density
from tasks.spec import TaskSpec

NUMBERS = ("reward_mean", "reward_std", "reward_low", "reward_high", "radius")
_AT_ONCE = 8_192  # transitions decoded at a time


@dataclass(frozen=True, slots=True, eq=False)
class StitchingModel:
    """One replica.

    Attributes:
        spec: the task.
        scaling: of observations.
        density: the members that were kept. inverse: the VAE. reward: (o, a, o') -> standardised team
            reward; with z before them where it is the generator of a GAN.
        numbers: of NUMBERS; `reward_low` and `reward_high` bound what may be predicted, `radius` is the calibrated one.
        weights: all weights, for `arrays`.
        diagnosis: what fitting tells.
    """

    spec: TaskSpec
    scaling: Scaling
    density: TransitionDensity
    inverse: InverseVAE
    reward: StackedMLP
    numbers: dict[str, float]
    weights: dict[str, NDArray[Any]]
    diagnosis: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str) -> Self:
        """What `arrays` returned, on a device."""
        scaling = Scaling.from_arrays({n.removeprefix("scaling/"): a for n, a in arrays.items() if n[:8] == "scaling/"})
        weights = {n: np.array(a) for n, a in arrays.items() if n.split("/")[0] in ("density", "inverse", "reward")}
        features, none = len(scaling.kept), [np.random.default_rng(0)]  # initial weights that are replaced at once
        members, _, hidden = weights["density/net.layers.0.weight"].shape
        density = TransitionDensity(features, hidden, none, members)
        hidden = weights["inverse/decoder.layers.0.weight"].shape[-1]
        inverse = InverseVAE(2 * features, spec.action, spec.n_agents, hidden, none)
        reward = StackedMLP(
            (*weights["reward/layers.0.weight"].shape[1:], weights["reward/layers.1.weight"].shape[-1], 1), none
        )
        for prefix, module in (("density", density), ("inverse", inverse), ("reward", reward)):
            own = {
                n.removeprefix(f"{prefix}/"): torch.from_numpy(a) for n, a in weights.items() if n.startswith(prefix)
            }
            module.load_state_dict(own)
            module.to(device).requires_grad_(False)
        numbers = {name: float(arrays[name]) for name in NUMBERS}
        return cls(spec, scaling, density, inverse, reward, numbers, weights)

    @property
    def device(self) -> str:
        """Where the networks are."""
        return str(next(self.density.parameters()).device)

    def on(self, device: str) -> StitchingModel:
        """Itself, or a copy on another device."""
        if self.device == device:
            return self
        moved = StitchingModel.from_arrays(self.arrays(), self.spec, device)
        moved.diagnosis.update(self.diagnosis)
        return moved

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For `from_arrays`."""
        named = {f"scaling/{name}": array for name, array in self.scaling.arrays().items()}
        return {**named, **self.weights, **{name: np.array(value) for name, value in self.numbers.items()}}

    @property
    def diverged(self) -> bool:
        """Whether a weight is not finite."""
        return not all(np.isfinite(array).all() for array in self.weights.values())

    @torch.no_grad()
    def densities(self, steps: StepTensors, first: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (members, B, X) each, of the change after rows `first` (B,)."""
        x = steps.rows[first]
        mean, log_std = self.density(x.expand(self._members, *x.shape))
        return mean, log_std

    @torch.no_grad()
    def log_density(self, mean: Tensor, log_std: Tensor, changes: Tensor) -> Tensor:
        """(members, C) of changes (C, X) under means and log standard deviations (members, C, X)."""
        return diagonal_log_density(changes, mean, log_std)

    @torch.no_grad()
    def actions_and_rewards(
        self, steps: StepTensors, first: NDArray[np.int64], second: NDArray[np.int64], latents: NDArray[np.float32]
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """What leads from rows `first` to rows `second`, and what the team is paid for it.

        Args:
            steps: the data.
            first: (C,) rows of o.
            second: (C,) rows of o'.
            latents: (C, `latent`) standard normal.

        Returns:
            actions (C, N, A) float32 in bounds or (C, N) int64, available; rewards (C,) within the range of the data.
        """
        spec, device = self.spec, steps.rows.device
        actions = np.zeros((len(first), spec.n_agents, *(() if spec.action.discrete else (spec.action.size,))))
        rewards = np.zeros(len(first), dtype=np.float32)
        for part in _parts(len(first)):
            a, b = (torch.from_numpy(rows[part]).to(device) for rows in (first, second))
            mask = None if steps.available is None else steps.available[a][None]
            z = torch.from_numpy(latents[part]).to(device)
            own, of_reward = z[None, :, : self.inverse.latent], z[:, self.inverse.latent :]
            chosen = self.inverse.decode(steps.seen(a, b)[None], own, mask)[0]  # (C, N, A) or (C, N)
            actions[part] = chosen.cpu().numpy()
            rewards[part] = self.rewards(steps, a, steps.as_stored(chosen, spec.action), b, of_reward).cpu().numpy()
        return actions.astype(np.int64 if spec.action.discrete else np.float32), rewards

    @torch.no_grad()
    def rewards(self, steps: StepTensors, first: Tensor, actions: Tensor, second: Tensor, latents: Tensor) -> Tensor:
        """(C,) team rewards in the task's units of transitions with actions as `StepTensors` has them.

        Latents (C, Z) are a GAN's; Z = 0 where rewards are a perceptron's.
        """
        raw: Tensor = self.reward(torch.cat([latents, steps.told(first, actions, second)], dim=-1)[None])[0, :, 0]
        numbers = self.numbers
        return (numbers["reward_mean"] + numbers["reward_std"] * raw).clamp(
            numbers["reward_low"], numbers["reward_high"]
        )

    @property
    def latent(self) -> int:
        """Standard normal numbers that action and reward of a transition are drawn with."""
        told = 2 * len(self.scaling.kept) + self.spec.n_agents * self.spec.action.size
        return self.inverse.latent + int(self.weights["reward/layers.0.weight"].shape[1]) - told

    @property
    def _members(self) -> int:
        return len(next(self.density.parameters()))


def module_arrays(prefix: str, weights: dict[str, NDArray[np.float32]], chosen: Any) -> dict[str, NDArray[Any]]:
    """Weights of the chosen ones of G stacked networks, named as `StitchingModel` has them."""
    return {f"{prefix}/{name}": np.ascontiguousarray(array[chosen]) for name, array in weights.items()}


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)
