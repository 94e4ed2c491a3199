"""Synthetic transitions against the real engine: restore the observation, repeat the action, compare.

The engine is put where `BatchedEnv.restore` puts it. Generated views may contradict each other; for the particle
environments own positions and velocities then win, and everything else is where the first agent that sees it says
(`tasks.mpe.observe.Observer.locate`). A view that disagrees shows up as an error of the next observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.family import Family, Measured, central_histogram, paired_histogram
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, Which
from tasks.base import Task
from tasks.datasets.views import TransitionBatch

ERROR_BINS, ERROR_BOUNDS = 40, (-8.0, 2.0)
"""Bins of the decimal logarithm of a transition's root mean squared error."""

REWARD_BINS = 40


@dataclass(frozen=True, slots=True)
class Replay:
    """What the engine says about M transitions, with team rewards in its units.

    Attributes:
        true_rewards, claimed_rewards: (M,).
        errors: (M,) squared errors of the normalised next observations, averaged over agents and features.
    """

    true_rewards: NDArray[np.float64]
    claimed_rewards: NDArray[np.float64]
    errors: NDArray[np.float64]


def measure(subject: Subject) -> Measured:
    """`oracle_reward`, `reward_mse` and `dynamics_mse` of the sampled transitions."""
    real, made = replay(subject, "original"), replay(subject, "synthetic")
    reward = Measurement(value=float(made.true_rewards.mean()), original=float(real.true_rewards.mean()))
    reward_errors = [(r.claimed_rewards - r.true_rewards) ** 2 for r in (real, made)]
    metrics = {
        "oracle_reward": reward,
        "reward_mse": _mean_of_errors(reward_errors[1], reward_errors[0]),
        "dynamics_mse": _mean_of_errors(made.errors, real.errors),
    }
    with np.errstate(divide="ignore"):  # an exact transition has error 0: the lowest bin
        logarithms = [np.maximum(0.5 * np.log10(r.errors), ERROR_BOUNDS[0]) for r in (real, made)]
    histogram = paired_histogram(logarithms[0], logarithms[1], ERROR_BINS, ERROR_BOUNDS)
    paid = central_histogram(real.true_rewards, made.true_rewards, REWARD_BINS)  # INS, Fig. A2
    return Measured(metrics, {"dynamics_error": histogram, "oracle_reward": paid})


FAMILY = Family(("oracle_reward", "reward_mse", "dynamics_mse"), measure)


def replay(subject: Subject, which: Which) -> Replay:
    """Repeats sampled transitions in the engine (INS, Eq. A3 and A4).

    INS normalises observations before it takes the error and does not say how: here with mean and standard deviation
    of each feature of each agent in the original data, 1 where a feature never varies. # inferred

    Raises:
        UsageError: where the engine cannot be put into the state of an observation.
    """
    batch, reference = subject.sampled[which], subject.sampled["original"].observations
    true_observations, true_rewards = _repeated(subject.task, batch)
    spread = reference.std(axis=0, dtype=np.float64)  # (N, D)
    scale = np.where(spread > 1e-8, spread, 1.0)
    difference = (true_observations.astype(np.float64) - batch.next_observations) / scale  # (M, N, D)
    fold = subject.task.spec.fold_rewards
    return Replay(
        true_rewards=fold(true_rewards).astype(np.float64),
        claimed_rewards=fold(batch.rewards).astype(np.float64),
        errors=(difference * difference).mean(axis=(1, 2)),
    )


def _repeated(task: Task, batch: TransitionBatch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What follows in the engine, (M, N, D) and (M, N), in turns of as many environments as the task has at most."""
    count, at_once = len(batch.rewards), min(len(batch.rewards), task.most_envs)
    steps = []
    for first in range(0, count, at_once):
        turn = slice(first, min(first + at_once, count))
        env = task.make_env(turn.stop - turn.start, seed=0)
        try:
            env.restore(batch.observations[turn])
            steps.append(env.step(batch.actions[turn]))
        finally:
            env.close()
    return np.concatenate([s.observations for s in steps]), np.concatenate([s.rewards for s in steps])


def _mean_of_errors(made: NDArray[np.float64], real: NDArray[np.float64]) -> Measurement:
    return Measurement(
        value=float(made.mean()),
        original=float(real.mean()),
        details={"median": float(np.median(made)), "p90": float(np.quantile(made, 0.9))},
    )
