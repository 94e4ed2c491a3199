"""What a diffusion model of whole episodes is made of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from methods.base import EpisodeBudget, require
from methods.diffusion.schedule import make_schedule
from methods.diffusion.settings import SegmentSettings
from methods.networks.conv_unet import ConvUNetConfig

MEANS = ("padded", "valid")
PREDICTIONS = ("data", "velocity")
HEADS = ("availability", "alive", "termination", "state")
"""What a signal does not tell: emission asks these auxiliary networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSettings:
    """One model that predicts clean episodes, and its auxiliary networks."""

    lambda_q: float = 0.1  # λ; EAQ, Sec. 4.5 takes the best of 0.5, 0.1, 0.01 by the returns of its learners
    q_mean: str = "padded"  # Q is averaged over all T_max steps, zeros included (Eq. 5), or an episode's own: "valid"
    gamma: float = 0.99  # of the reward-to-go (inferred; Sec. 3.2 has a γ without a number)
    schedule: str = "linear"  # Ho et al. 2020, "established DDPM hyperparameters" (EAQ, Sec. 4.4); or "cosine"
    diffusion_steps: int = 1_000  # K; Ho et al. 2020
    prediction: str = "data"  # what the network's output is: x_0 (EAQ, Sec. 3.2), or "velocity" (inferred option)
    width: int = 64  # channels of the first level (inferred)
    model_state: bool = False  # the global state has channels as well (inferred option); else a head predicts it

    updates: int = 100_000  # inferred
    batch_size: int = 32  # episodes (inferred)
    learning_rate: float = 8e-5  # of Adam (inferred)
    ema_decay: float = 0.995  # inferred
    ema_every: int = 10  # updates (inferred)
    ema_start: int = 2_000  # before it the average is a copy (inferred)
    use_ema: bool = True  # sample with the averaged weights (inferred)

    head_hidden: int = 256  # as the other augmenters' (inferred)
    head_updates: int = 100_000  # inferred

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "ema_every"):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, "eaq", f"{name}={value}", "a whole number, 1 or more")
        for name in ("ema_decay", "gamma"):
            value = getattr(self, name)
            require(0 <= value <= 1, "eaq", f"{name}={value}", "a number in [0, 1]")
        require(0 <= self.lambda_q < float("inf"), "eaq", f"lambda_q={self.lambda_q}", "a finite number, 0 or more")
        rate = self.learning_rate
        require(0 < rate < float("inf"), "eaq", f"learning_rate={rate}", "a finite number above 0")
        require(self.q_mean in MEANS, "eaq", f"q_mean={self.q_mean}", " or ".join(MEANS))
        known = " or ".join(PREDICTIONS)
        require(self.prediction in PREDICTIONS, "eaq", f"prediction={self.prediction}", known)
        make_schedule(self.schedule, self.diffusion_steps)
        ConvUNetConfig(rows=ConvUNetConfig.factor(), channels=1, width=self.width)
        self.rows()

    def rows(self) -> SegmentSettings:
        """How the auxiliary networks see single rows: every feature by its range."""
        return SegmentSettings(
            horizon=2,
            normaliser="limits",
            append_state=self.model_state,
            updates=self.updates,
            heads=HEADS,
            head_hidden=self.head_hidden,
            head_updates=self.head_updates,
        )

    def within(self, budget: EpisodeBudget) -> Self:
        """These settings with what a protocol fixes in their place.

        Where it fixes the updates, the average of the weights begins after a fifth of them at the latest (inferred).
        """
        own = {field.name for field in fields(self)}
        given = {f.name: getattr(budget, f.name) for f in fields(budget) if f.name in own}
        given = {name: value for name, value in given.items() if value is not None}
        if "updates" in given:
            given["ema_start"] = min(self.ema_start, given["updates"] // 5)
        return replace(self, **given)

    def array(self) -> NDArray[np.uint8]:
        """As bytes of JSON, to be stored beside arrays."""
        return np.frombuffer(json.dumps(asdict(self)).encode(), dtype=np.uint8).copy()

    @classmethod
    def from_array(cls, array: NDArray[np.uint8]) -> Self:
        """What `array` returned, read back."""
        return cls(**json.loads(array.tobytes()))
