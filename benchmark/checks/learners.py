"""The properties that every learner must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.checks.check import Check, EveryCheckpoint, require_equal
from benchmark.checks.returned import check_policy_actions
from benchmark.checks.sample_data import SHAPES, sample_dataset
from methods.base import Budget, Checkpoint, LearnedPolicy, Learner, Run
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset

AnyLearner = Learner[Any]


def learner_checks(make: Callable[[], AnyLearner], name: str = "learner") -> Iterator[Check]:
    """The properties that every learner must have.

    Args:
        make: builds a fresh learner, at a size whose updates take milliseconds.
        name: for messages.
    """
    for shape in SHAPES:
        suite = _LearnerSuite(make, name, shape)
        for title, body in suite.properties().items():
            yield Check(f"{shape}: {title}", body, type(make()).unsupported(suite.spec))


class _LearnerSuite:
    def __init__(self, make: Callable[[], AnyLearner], name: str, shape: str) -> None:
        self.make, self.name, self.shape = make, name, shape
        self.data = [sample_dataset(shape, seed=seed).without_privileged() for seed in range(3)]
        self.spec = self.data[0].spec

    def properties(self) -> dict[str, Callable[[], None]]:
        return {
            "acts within bounds and masks": self.legal_actions,
            "the same seeds give the same policies": self.same_seed,
            "leaves its input unchanged": self.input_unchanged,
            "R seeds together equal R single runs": self.together,
            "a diverged seed leaves the others alone": self.divergence,
            "a policy acts the same after saving and loading": self.save_and_load,
            "snapshots come at the budget's points and stay frozen": self.snapshots,
            "a training goes on from a checkpoint as if undisturbed": self.resumption,
        }

    def legal_actions(self) -> None:
        diverged = self._act(self._fit(self.data))[1]
        if diverged.any():
            raise MethodError(f"{self.name}: NaN actions of replicas {np.flatnonzero(diverged)} on harmless data.")

    def same_seed(self) -> None:
        first, second = self._fit(self.data), self._fit(self.data)
        for r in range(len(self.data)):
            self._require_close((first, r), (second, r), 0.0, "two runs with the same seeds differ")

    def input_unchanged(self) -> None:
        data = [sample_dataset(self.shape, seed=seed).without_privileged() for seed in range(3)]
        self._fit(data)
        for given, before in zip(data, self.data, strict=True):
            require_equal(given, before, f"{self.name} changed the dataset it was given. Copy before writing")

    def together(self) -> None:
        policy = self._fit(self.data)
        for r in range(len(self.data)):
            alone = self._fit(self.data[r : r + 1], seeds=(r,))
            message = f"seed {r} trained beside others differs from seed {r} trained alone"
            self._require_close((alone, 0), (policy, r), 1e-5, message)

    def divergence(self) -> None:
        poisoned = self.data[1].replace(observations=np.full_like(self.data[1].observations, np.nan))
        with np.errstate(invalid="ignore"):
            policy = self._fit([self.data[0], poisoned, self.data[2]], original=self.data[0])
        healthy = self._fit(self.data, original=self.data[0])
        if not policy.diverged(1):
            raise MethodError(f"{self.name}: `diverged` is False for a policy that was trained on NaN observations.")
        for r in (0, 2):
            if policy.diverged(r):
                raise MethodError(f"{self.name}: seed {r} diverged because seed 1 did.")
            message = f"seed {r} depends on the diverged seed 1"
            self._require_close((healthy, r), (policy, r), 1e-5, message)

    def save_and_load(self) -> None:
        policy = self._fit(self.data)
        states = [{key: np.array(value) for key, value in policy.state(r).items()} for r in range(3)]
        loaded = self.make().load_policy(states, self.spec, "cpu")
        if not np.array_equal(self._act(loaded)[0], self._act(policy)[0]):
            raise MethodError(f"{self.name}: a policy acts otherwise after `state` and `load_policy`.")

    def snapshots(self) -> None:
        seen: list[tuple[int, LearnedPolicy, NDArray[Any]]] = []

        def keep(updates: int, policy: LearnedPolicy) -> None:
            seen.append((updates, policy, self._act(policy)[0]))

        final = self._fit(self.data, snapshots=3, snapshot=keep)
        points = [updates for updates, _, _ in seen]
        if points != [2, 4, 6]:
            raise MethodError(f"{self.name}: snapshots after {points} updates of 6, expected [2, 4, 6].")
        for updates, policy, then in seen:
            if not np.array_equal(self._act(policy)[0], then):
                raise MethodError(f"{self.name}: the snapshot of update {updates} changed afterwards. Copy it.")
        if not np.array_equal(self._act(final)[0], seen[-1][2]):
            raise MethodError(f"{self.name}: the last snapshot is not the policy that `fit` returned.")

    def resumption(self) -> None:
        """From the first, the last and a middle state that it saved; points of its curve come once more, unchanged."""
        kept = EveryCheckpoint()
        undisturbed, curve = self._fit_with_curve(kept)
        for index in sorted({0, len(kept.states) // 2, len(kept.states) - 1}) if kept.states else ():
            state = kept.states[index]
            resumed, again = self._fit_with_curve(EveryCheckpoint(state))
            for r in range(len(self.data)):
                message = "a training that loads a checkpoint ends otherwise than one that never stopped"
                self._require_close((undisturbed, r), (resumed, r), 0.0, message)
                if undisturbed.diagnosis(r) != resumed.diagnosis(r):
                    raise MethodError(f"{self.name}: after a checkpoint `diagnosis` tells other numbers.")
            if [points for points, _ in again] != [points for points, _ in curve]:
                raise MethodError(f"{self.name}: after a checkpoint the learning curve has other points.")
            for (points, then), (_, now) in zip(curve, again, strict=True):
                message = f"after a checkpoint the snapshot of update {points} is another"
                for r in range(len(self.data)):
                    self._require_close((then, r), (now, r), 0.0, message)

    def _fit_with_curve(self, checkpoint: Checkpoint) -> tuple[LearnedPolicy, list[tuple[int, LearnedPolicy]]]:
        curve: list[tuple[int, LearnedPolicy]] = []
        policy = self._fit(self.data, snapshots=3, snapshot=lambda *point: curve.append(point), checkpoint=checkpoint)
        return policy, curve

    def _fit(
        self,
        data: Sequence[OfflineDataset],
        *,
        seeds: tuple[int, ...] | None = None,
        original: OfflineDataset | None = None,
        snapshots: int = 1,
        snapshot: Callable[[int, LearnedPolicy], None] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> LearnedPolicy:
        run = Run(
            seeds=tuple(range(len(data))) if seeds is None else seeds,
            budget=Budget(updates=6, batch_size=8, snapshots=snapshots),
            original=original,
            checkpoint=checkpoint,
        )
        return self.make().fit(data, run if snapshot is None else replace(run, snapshot=snapshot))

    def _act(self, policy: LearnedPolicy) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Legal actions (R, T, B, N[, A]) over two steps in four environments, and (R,) who diverged."""
        replicas = policy.replicas
        probe = sample_dataset(self.shape, episodes=4, seed=7)
        memory, actions = None, []
        diverged = np.zeros(replicas, dtype=np.bool_)
        for t in range(2):
            rows = probe.row_starts[:-1] + t  # (B,)
            observations = np.repeat(probe.observations[None, rows], replicas, axis=0)  # (R, B, N, D)
            mask = probe.available_actions
            available = None if mask is None else np.repeat(mask[None, rows], replicas, axis=0)
            chosen, memory = policy.act(observations, available, memory)
            diverged |= check_policy_actions(
                chosen,
                self.spec,
                replicas=replicas,
                batch=len(rows),
                available_actions=available,
                learner_name=self.name,
            )
            actions.append(chosen)
        return np.stack(actions, axis=1), diverged

    def _require_close(
        self, first: tuple[LearnedPolicy, int], second: tuple[LearnedPolicy, int], tolerance: float, message: str
    ) -> None:
        """Raises unless the parameters of two policies, each one replica, agree."""
        mine, other = first[0].state(first[1]), second[0].state(second[1])
        for key in sorted(mine.keys() | other.keys()):
            if (
                key not in mine
                or key not in other
                or not np.allclose(mine[key], other[key], rtol=tolerance, atol=tolerance, equal_nan=True)
            ):
                raise MethodError(f"{self.name}: {message} (first in {key!r}).")
