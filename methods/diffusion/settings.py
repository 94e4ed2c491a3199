"""What a diffusion model of windows and its auxiliary networks are made of; defaults as the papers have them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from methods.base import DiffusionBudget, require

HEADS = (
    "inverse",
    "dynamics",
    "reward",
    "return_to_go",
    "value",
    "availability",
    "alive",
    "termination",
    "state",
)
"""Every auxiliary network, in the order in which they are built."""

EMISSION_HEADS = ("inverse", "reward", "availability", "alive", "termination", "state")
"""What it takes to turn generated observations into a dataset, without a validity test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSettings:
    """One diffusion model of joint windows (B, H, N, D) and its heads.

    Heads that the data leave without a meaning are skipped: `availability` on continuous actions, `alive` where
    nobody dies, `termination` where nothing ends before its time limit, `state` without a global state.
    """

    horizon: int = 8  # H, observation rows; MADiTS, Tab. 2; MASTARS, App. E
    diffusion_steps: int = 200  # K; MADiTS, Tab. 2
    width: int = 128  # channels of the first level; MADiff's repository, exp_specs
    attention: bool = True  # between agents; False: DoF
    first_skip: bool = False  # full resolution from the first level to the last block (inferred option)
    prediction: str = "noise"  # what the network estimates: ε, as all papers, or "velocity" (inferred option)
    normaliser: str = "cdf"  # of observations; MADiff's repository, exp_specs
    action_normaliser: str = "data"  # continuous actions: "data" as observations (MADiff's repository), or "bounds"
    append_state: bool = False  # model o ⊕ s for every agent (MASTARS' repository on SMAC); else a head predicts s
    pad_windows: bool = True  # MADiff's repository; False: MADiTS, Eq. 2, literally

    updates: int = 1_000_000  # of the denoiser; MADiTS, Tab. 2
    batch_size: int = 32  # windows; MADiTS, Tab. 2
    learning_rate: float = 2e-4  # of Adam; MADiTS, Tab. 2
    ema_decay: float = 0.995  # MADiff's repository, utils/training.py
    ema_every: int = 10  # updates; same
    ema_start: int = 2_000  # before it the average is a copy; same
    use_ema: bool = True  # sample with the averaged weights; False: MASTARS' repository

    condition_dropout: float = 0.25  # MADiTS, Tab. 2
    dropout_per_agent: bool = True  # drawn for every (window, agent); MADiff's repository, ma_temporal.py
    gamma: float = 0.99  # discount of the return that conditions; MADiff's repository
    returns_scale: float | None = None  # R_s; None: the largest episode return under `gamma` (inferred)
    per_agent_returns: bool = False  # each agent's own rewards (MADiff's repository), else the team's
    labels: bool = False  # condition on a label vector z (CODI, Sec. 3.2)
    label_single_keep: float = 0.0  # share of windows that keep exactly one label (inferred)
    circular_shift: float = 0.0  # r_cir, share of the windows of each start step to rotate (MADiTS, App. D)
    wconcat: bool = False  # learned weights of the agents' noise estimates (DoF, wconcat)

    heads: tuple[str, ...] = EMISSION_HEADS
    inverse_scope: str = "per_agent"  # MADiff's repository; "joint": MADiTS, Eq. 4; CODI, Eq. 9
    dynamics_scope: str = "per_agent"  # MASTARS' repository; "joint": MADiTS, Eq. 4; CODI, Eq. 9
    dynamics_residual: bool = False  # predict o' − o in place of o' (inferred option)
    reward_next: bool = False  # g(o, a, o') in place of g(o, a) (CODI, Eq. 9)
    value_gamma: float = 0.99  # MASTARS, Eq. 12
    value_literal: bool = False  # gradient through the target and no mask of terminals, as MASTARS' repository
    head_hidden: int = 256  # two hidden layers; MADiTS, App. E; MASTARS, App. E
    head_updates: int = 100_000  # inferred: trained apart from the denoiser, on larger batches
    head_batch_size: int = 256  # transitions (inferred)
    head_learning_rate: float = 3e-3  # of Adam, at its highest; rises for 5%, then falls to 0 (inferred)

    def __post_init__(self) -> None:
        whole = ("horizon", "diffusion_steps", "width", "updates", "batch_size", "ema_every")
        for name in (*whole, "head_hidden", "head_updates", "head_batch_size"):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, "diffusion", f"{name}={value}", "a whole number, 1 or more")
        require(self.horizon >= 2, "diffusion", f"horizon={self.horizon}", "2 observation rows or more")
        for name in ("ema_decay", "condition_dropout", "gamma", "label_single_keep", "circular_shift", "value_gamma"):
            value = getattr(self, name)
            require(0 <= value <= 1, "diffusion", f"{name}={value}", "a number in [0, 1]")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            require(0 < value < float("inf"), "diffusion", f"{name}={value}", "a finite number above 0")
        scale = self.returns_scale
        require(scale is None or scale > 0, "diffusion", f"returns_scale={scale}", "a number above 0, or None")
        for name in ("inverse_scope", "dynamics_scope"):
            value = getattr(self, name)
            require(value in ("joint", "per_agent"), "diffusion", f"{name}={value}", "joint or per_agent")
        prediction = self.prediction
        require(prediction in ("noise", "velocity"), "diffusion", f"prediction={prediction}", "noise or velocity")
        # Samplers clip to [−1, 1], and a third of standardised values lie beyond.
        within = self.normaliser in ("cdf", "cdf_mixed", "limits")
        keeps = "one that keeps to [-1, 1]: cdf, cdf_mixed or limits"
        require(within, "diffusion", f"normaliser={self.normaliser}", keeps)
        kind = self.action_normaliser
        require(kind in ("data", "bounds"), "diffusion", f"action_normaliser={kind}", "data or bounds")
        unknown = [name for name in self.heads if name not in HEADS]
        require(not unknown, "diffusion", f"heads={unknown}", f"names of {', '.join(HEADS)}")
        both = self.labels and self.circular_shift > 0
        require(not both, "diffusion", "labels and circular_shift", "one of them: a rotation would need new labels")

    def within(self, budget: DiffusionBudget) -> Self:
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
        values = json.loads(array.tobytes())
        return cls(**{**values, "heads": tuple(values["heads"])})
