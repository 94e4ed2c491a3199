"""`rad-s`, `rad-m`: random amplitude scaling, EAQ's baselines (EAQ, Sec. 4.2; Laskin et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.base import Augmenter, Run, require
from methods.synthesis.emit import tiled_episodes
from tasks.datasets.offline import OfflineDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class RADConfig:
    """Random amplitude scaling, s' = s · z with z ~ U[low, high] (EAQ, Sec. 4.2)."""

    low: float = 0.8  # EAQ, Sec. 4.2
    high: float = 1.2  # EAQ, Sec. 4.2
    copies: int = 5  # EAQ, Sec. 4 and Alg. 1; without an amount in the budget
    per_dimension: bool = False  # False: RAD-s, True: RAD-m (EAQ, Sec. 4.2)
    granularity: str = "step"  # inferred; "step": every row its own z, "episode": one z an episode
    per_agent: bool = True  # inferred; False: one z for the team
    scale_state: bool = True  # inferred; the global state has its own z
    skip_agent_id: bool = True  # inferred; features named agent_id* keep their values

    def __post_init__(self) -> None:
        bounds = f"low={self.low}, high={self.high}"
        require(bool(np.isfinite([self.low, self.high]).all()), "rad", bounds, "finite")
        require(self.low <= self.high, "rad", bounds, "low no larger than high")
        require(self.copies >= 1, "rad", f"copies={self.copies}", "1 or more")
        require(self.granularity in ("step", "episode"), "rad", f"granularity={self.granularity}", "step or episode")


class RAD(Augmenter[RADConfig]):
    """Copies episodes and rescales what the agents saw; everything else stays."""

    Config = RADConfig
    version = 1

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Nothing to learn."""

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Whole copies of the data with rescaled observations and states."""
        config, spec = self.config, data.spec
        episodes = tiled_episodes(data, run.budget.amount, config.copies, run.generator("rad/episodes"))
        copies = data.without_privileged().take(episodes)

        n_agents = spec.n_agents if config.per_agent else 1
        n_features = spec.obs_dim if config.per_dimension else 1
        z = self._factors(copies, (n_agents, n_features), run.generator("rad/observations"))
        if config.skip_agent_id:
            is_id = np.array([name.startswith("agent_id") for name in spec.observation_features])  # (D,)
            if is_id.any():
                z = np.where(is_id, np.float32(1), z)  # (S + E, N or 1, D)
        states = copies.states
        if states is not None and config.scale_state:
            n_features = states.shape[-1] if config.per_dimension else 1
            states = states * self._factors(copies, (n_features,), run.generator("rad/states"))
        return copies.replace(observations=copies.observations * z, states=states)

    def _factors(
        self, data: OfflineDataset, shape: tuple[int, ...], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """(S + E, *shape) factors z, one draw a row or one an episode."""
        low, high = np.float32(self.config.low), np.float32(self.config.high)
        rows = data.n_steps + data.n_episodes
        draws = data.n_episodes if self.config.granularity == "episode" else rows
        z = low + (high - low) * generator.random((draws, *shape), dtype=np.float32)
        return np.repeat(z, data.lengths + 1, axis=0) if self.config.granularity == "episode" else z
