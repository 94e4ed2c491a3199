"""`noise`: additive Gaussian noise (INS, App. B, which names the idea and gives no numbers)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.base import Augmenter, Run, require
from methods.data.statistics import mean_and_std
from methods.synthesis.bits import action_codes, decode_bits
from methods.synthesis.emit import as_transitions, sampled_episodes
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseConfig:
    """x' = x + σ · std · ε with ε ~ N(0, 1), std of each feature over the data."""

    sigma: float = 0.05  # inferred; S4RL's 3e-4 is the variant noise-s4rl
    emit: str = "episodes"  # inferred: usable by recurrent learners and bc50; INS has "transitions"
    noise_actions: bool = True  # INS, App. B: its bit module serves this baseline; False keeps the actions
    copies: float = 1.0  # inferred; amount in units of the data where the budget names none

    def __post_init__(self) -> None:
        require(0 <= self.sigma < float("inf"), "noise", f"sigma={self.sigma}", "a finite number, 0 or more")
        require(self.emit in ("episodes", "transitions"), "noise", f"emit={self.emit}", "episodes or transitions")
        require(0 < self.copies < float("inf"), "noise", f"copies={self.copies}", "a finite number above 0")


class Noise(Augmenter[NoiseConfig]):
    """Real data drawn with replacement, with noise on observations, states and actions.

    Each observation row has its own noise, rewards and flags stay. Rows of dead agents stay zero. Continuous
    actions are clipped to their bounds; discrete ones get noise on their bits and decode to the nearest available
    action (INS, Sec. 4.1), which at small σ is the action itself.
    """

    Config = NoiseConfig
    version = 1

    @property
    def returns_transitions(self) -> bool:
        """As the config says."""
        return self.config.emit == "transitions"

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Nothing to learn: the standard deviations are read when generating."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Noisy copies of episodes or transitions."""
        config = self.config
        amount = run.budget.amount
        wanted = round(config.copies * data.n_steps) if amount is None else amount
        source, choose = data.without_privileged(), run.generator("noise/choice")
        if config.emit == "episodes" or data.n_steps == 0:
            copies = source.take(sampled_episodes(source, wanted, choose))
        else:
            copies = as_transitions(source, choose.integers(source.n_steps, size=wanted))

        observations = self._perturb(copies.observations, data.observations, run.generator("noise/observations"))
        if copies.alive is not None:
            observations = np.where(copies.alive[..., None], observations, copies.observations)  # (S + E, N, D)
        states = copies.states
        if states is not None and data.states is not None:
            states = self._perturb(states, data.states, run.generator("noise/states"))
        actions: NDArray[np.float32] | NDArray[np.int64] = copies.actions
        if config.noise_actions:
            actions = self._perturb_actions(copies, data, run.generator("noise/actions"))
        return copies.replace(observations=observations, states=states, actions=actions)

    def _perturb(
        self, values: NDArray[np.float32], reference: NDArray[np.float32], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Adds σ · std(reference) · ε to the values, std over the first axis."""
        _, std = mean_and_std(reference)
        scale = np.float32(self.config.sigma) * std  # (N, D), (K,) or (N, A)
        epsilon = generator.standard_normal(values.shape, dtype=np.float32)
        epsilon *= scale
        epsilon += values
        return epsilon

    def _perturb_actions(
        self, copies: OfflineDataset, data: OfflineDataset, generator: np.random.Generator
    ) -> NDArray[np.float32] | NDArray[np.int64]:
        spec = data.spec.action
        if copies.available_actions is None or not spec.discrete:
            noisy = self._perturb(copies.actions.astype(np.float32), data.actions.astype(np.float32), generator)
            return np.clip(noisy, spec.low, spec.high).astype(np.float32)  # (S, N, A)
        codes = action_codes(spec.size)
        bits = self._perturb(codes[copies.actions], codes[data.actions], generator)  # (S, N, L)
        return decode_bits(bits, copies.available_actions[copies.row_of_step()])  # (S, N)
