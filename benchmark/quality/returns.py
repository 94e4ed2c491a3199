"""Returns of the synthetic episodes, as the data claim them."""

from __future__ import annotations

import numpy as np

from benchmark.quality.family import Family, Measured, paired_histogram
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, Which

RETURN_BINS = 30


def measure(subject: Subject) -> Measured:
    """`mean_return` of an episode and `reward_per_step`, which also compares segments with episodes.

    Both are the rewards in the data; `oracle_reward` is what the engine pays for the same transitions.
    """
    returns = {which: subject.data(which).returns() for which in _BOTH}
    per_step = {which: float(subject.data(which).team_rewards().mean(dtype=np.float64)) for which in _BOTH}
    made = returns["synthetic"]
    mean = Measurement(
        value=float(made.mean()),
        original=float(returns["original"].mean()),
        details={
            "std": float(made.std()),
            "min": float(made.min()),
            "max": float(made.max()),
            "p10": float(np.quantile(made, 0.1)),
            "p90": float(np.quantile(made, 0.9)),
            "mean_length": float(subject.synthetic.lengths.mean()),
            "original_mean_length": float(subject.original.lengths.mean()),
        },
    )
    rate = Measurement(value=per_step["synthetic"], original=per_step["original"])
    lengths = {which: subject.data(which).lengths for which in _BOTH}
    alike = np.array_equal(np.unique(lengths["original"]), np.unique(lengths["synthetic"]))
    drawn = returns if alike else {which: returns[which] / lengths[which] for which in _BOTH}
    histogram = paired_histogram(drawn["original"], drawn["synthetic"], RETURN_BINS)
    name = "episode_return" if alike else "episode_reward_per_step"  # segments pay less than episodes, being shorter
    return Measured({"mean_return": mean, "reward_per_step": rate}, {name: histogram})


FAMILY = Family(("mean_return", "reward_per_step"), measure)
_BOTH: tuple[Which, Which] = ("original", "synthetic")
