"""The properties that every augmenter must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmark.checks.check import Check, EveryCheckpoint, equal, require_equal
from benchmark.checks.returned import check_generated
from benchmark.checks.sample_data import SHAPES, sample_dataset, sample_spec
from benchmark.diagnosis import plain
from methods.base import Arrays, Augmenter, Budget, Checkpoint, Run
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset

AnyAugmenter = Augmenter[Any]
TOGETHER = 1e-4
"""Between weights of members fitted together and alone: sums in float32 in another order, made larger by some steps of
Adam, which gives a tiny gradient a step of the same length. Ten times that relative to the value.
"""


def augmenter_checks(make: Callable[[], AnyAugmenter], name: str = "augmenter") -> Iterator[Check]:
    """The properties that every augmenter must have.

    Args:
        make: builds a fresh augmenter, at a size that fits and generates in seconds.
        name: for messages.
    """
    for shape in SHAPES:
        suite = _AugmenterSuite(make, name, shape)
        for title, body in suite.properties().items():
            yield Check(f"{shape}: {title}", body, type(make()).unsupported(sample_spec(shape)))


class _AugmenterSuite:
    def __init__(self, make: Callable[[], AnyAugmenter], name: str, shape: str) -> None:
        self.make, self.name, self.shape = make, name, shape
        self._learned: dict[int, Arrays] = {}

    def properties(self) -> dict[str, Callable[[], None]]:
        return {
            "returns a valid dataset": self.valid,
            "the same seed gives the same episodes": self.same_seed,
            "another seed gives other episodes": self.other_seed,
            "leaves its input unchanged": self.input_unchanged,
            "returns the amount asked for": self.amount,
            "amount 0 gives no episodes": self.amount_zero,
            "copes with data without episodes": self.empty_input,
            "fitting again starts afresh": self.refit,
            "state and load_state restore a fit": self.state_round_trip,
            "members fitted together equal single fits": self.together,
            "a fit goes on from a checkpoint as if undisturbed": self.resumption,
            "what it tells of itself is JSON": self.diagnosis,
        }

    def valid(self) -> None:
        self._checked(self._fitted(), amount=None)

    def same_seed(self) -> None:
        require_equal(self._generate(), self._checked(self._fitted()), f"{self.name}: two runs with one seed differ")

    def other_seed(self) -> None:
        if type(self.make()).random and equal(self._checked(self._fitted()), self._checked(self._fitted(4), seed=4)):
            raise MethodError(
                f"{self.name}: seeds 3 and 4 give the same episodes. Draw from `run.generator(...)`, or set "
                "`random = False` if nothing is drawn at all."
            )

    def input_unchanged(self) -> None:
        data, before = self._data(), self._data()
        self._generate(data)
        require_equal(data, before, f"{self.name} changed the dataset it was given. Copy before writing")

    def amount(self) -> None:
        augmenter, data = self._fitted(), self._data()
        limit = data.spec.episode_limit
        for amount in (7, 40, 150):
            returned = augmenter.generate(data, self._run(3, amount))
            steps = check_generated(returned, data, data.spec, self.name).n_steps
            if type(self.make()).adds_data and not amount <= steps < amount + limit:
                raise MethodError(
                    f"{self.name} returned {steps} transitions for `run.budget.amount` = {amount}; expected {amount}, "
                    f"or up to {limit - 1} more to keep episodes whole."
                )

    def amount_zero(self) -> None:
        if episodes := self._checked(self._fitted(), amount=0).n_episodes:
            raise MethodError(f"{self.name} returned {episodes} episodes for `run.budget.amount` = 0, expected none.")

    def empty_input(self) -> None:
        empty = OfflineDataset.empty(self._data().spec)
        if type(self.make()).needs_extra_data:
            return  # its episodes come from elsewhere
        if steps := self._generate(empty, amount=None).n_steps:
            raise MethodError(f"{self.name} made {steps} transitions out of data without episodes, expected none.")

    def refit(self) -> None:
        augmenter = self.make()
        augmenter.fit(self._data(seed=9), self._run(5, 30))
        again = self._generate(augmenter=augmenter)
        first = self._checked(self._fitted())
        require_equal(again, first, f"{self.name}: an earlier fit changes what a later one gives")

    def state_round_trip(self) -> None:
        augmenter, data = self.make(), self._data()
        if not augmenter.trains:
            return
        run = self._run(3, 30)
        augmenter.fit(data, run)
        restored = self.make()
        restored.load_state({key: np.array(value) for key, value in augmenter.state().items()}, data.spec)
        require_equal(
            restored.generate(data, run), augmenter.generate(data, run), f"{self.name}: load_state(state()) differs"
        )

    def together(self) -> None:
        seeds = (3, 4)
        if not type(self.make()).trains:
            return
        for seed, member in zip(seeds, self._fit_together(seeds), strict=True):
            self._require_close(
                self._fitted(seed),
                member,
                TOGETHER,
                f"seed {seed} fitted beside another differs from seed {seed} fitted alone. Draw for member r from "
                "`run.generator(purpose, r)` alone, and let no loss average over members",
            )

    def resumption(self) -> None:
        if not type(self.make()).trains:
            return
        kept, seeds = EveryCheckpoint(), (3, 4)
        undisturbed = self._fit_together(seeds, kept)
        if not kept.states:
            return  # its fits are short
        resumed = self._fit_together(seeds, EveryCheckpoint(kept.states[len(kept.states) // 2]))
        for first, second in zip(undisturbed, resumed, strict=True):
            self._require_close(
                first, second, 0.0, "a fit that loads a checkpoint ends otherwise than one that never stopped"
            )

    def diagnosis(self) -> None:
        augmenter, data, run = self.make(), self._data(), self._run(3, 30)
        augmenter.fit(data, run)
        plain(augmenter.diagnosis(), f"{self.name} after fit")
        augmenter.generate(data, run)
        plain(augmenter.diagnosis(), f"{self.name} after generate")

    def _fit_together(self, seeds: tuple[int, ...], checkpoint: Checkpoint | None = None) -> list[AnyAugmenter]:
        members = [self.make() for _ in seeds]
        run = replace(self._run(seeds[0], 30), seeds=seeds, checkpoint=checkpoint)
        type(members[0]).fit_together(members, self._data(), run)
        return members

    def _require_close(self, first: AnyAugmenter, second: AnyAugmenter, tolerance: float, message: str) -> None:
        """Raises unless what two fits learned agrees, in every array of floats."""
        mine, other = (
            {key: value for key, value in fitted.state().items() if np.issubdtype(value.dtype, np.floating)}
            for fitted in (first, second)
        )
        for key in sorted(mine.keys() | other.keys()):
            if (
                key not in mine
                or key not in other
                or mine[key].shape != other[key].shape
                or not np.allclose(mine[key], other[key], rtol=10 * tolerance, atol=tolerance, equal_nan=True)
            ):
                raise MethodError(f"{self.name}: {message} (first in {key!r}).")

    def _data(self, seed: int = 0) -> OfflineDataset:
        data = sample_dataset(self.shape, seed=seed)
        return data if self.make().privileged else data.without_privileged()

    def _run(self, seed: int, amount: int | None) -> Run:
        extra = sample_dataset(self.shape, episodes=200, seed=1) if self.make().needs_extra_data else None
        return Run(seeds=(seed,), budget=Budget(amount=amount), extra_data=extra)

    def _generate(
        self,
        data: OfflineDataset | None = None,
        *,
        seed: int = 3,
        amount: int | None = 30,
        augmenter: AnyAugmenter | None = None,
    ) -> OfflineDataset:
        data = self._data() if data is None else data
        augmenter = self.make() if augmenter is None else augmenter
        augmenter.fit(data, self._run(seed, amount))
        return self._checked(augmenter, data, seed=seed, amount=amount)

    def _checked(
        self, augmenter: AnyAugmenter, data: OfflineDataset | None = None, *, seed: int = 3, amount: int | None = 30
    ) -> OfflineDataset:
        """What a fitted augmenter generates."""
        data = self._data() if data is None else data
        return check_generated(augmenter.generate(data, self._run(seed, amount)), data, data.spec, self.name)

    def _fitted(self, seed: int = 3) -> AnyAugmenter:
        """Fitted on the sample data; what was learned once is loaded, for fits are most of the time of a suite."""
        augmenter, data = self.make(), self._data()
        if seed in self._learned:
            augmenter.load_state(self._learned[seed], data.spec)
            return augmenter
        augmenter.fit(data, self._run(seed, 30))
        if type(augmenter).trains:
            self._learned[seed] = {key: np.array(value) for key, value in augmenter.state().items()}
        return augmenter
