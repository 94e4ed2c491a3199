"""The properties that every augmenter must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmark.checks.check import Check, equal, require_equal
from benchmark.checks.returned import check_generated
from benchmark.checks.sample_data import SHAPES, sample_dataset, sample_spec
from methods.base import Augmenter, Budget, Run
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset

AnyAugmenter = Augmenter[Any]


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
        }

    def valid(self) -> None:
        self._generate(amount=None)

    def same_seed(self) -> None:
        require_equal(self._generate(), self._generate(), f"{self.name}: two runs with one seed differ")

    def other_seed(self) -> None:
        if type(self.make()).random and equal(self._generate(seed=3), self._generate(seed=4)):
            raise MethodError(
                f"{self.name}: seeds 3 and 4 give the same episodes. Draw from `run.generator(...)`, or set "
                "`random = False` if nothing is drawn at all."
            )

    def input_unchanged(self) -> None:
        data, before = self._data(), self._data()
        self._generate(data)
        require_equal(data, before, f"{self.name} changed the dataset it was given. Copy before writing")

    def amount(self) -> None:
        limit = self._data().spec.episode_limit
        for amount in (7, 40, 150):
            steps = self._generate(amount=amount).n_steps
            if type(self.make()).adds_data and not amount <= steps < amount + limit:
                raise MethodError(
                    f"{self.name} returned {steps} transitions for `run.budget.amount` = {amount}; expected {amount}, "
                    f"or up to {limit - 1} more to keep episodes whole."
                )

    def amount_zero(self) -> None:
        if episodes := self._generate(amount=0).n_episodes:
            raise MethodError(f"{self.name} returned {episodes} episodes for `run.budget.amount` = 0, expected none.")

    def empty_input(self) -> None:
        empty = OfflineDataset.empty(self._data().spec)
        if type(self.make()).needs_extra_data:
            return  # its episodes come from elsewhere
        if steps := self._generate(empty, amount=None).n_steps:
            raise MethodError(f"{self.name} made {steps} transitions out of data without episodes, expected none.")

    def refit(self) -> None:
        augmenter, data = self.make(), self._data()
        augmenter.fit(sample_dataset(self.shape, seed=9).without_privileged(), self._run(5, 30))
        again = self._generate(data, augmenter=augmenter)
        require_equal(again, self._generate(data), f"{self.name}: an earlier fit changes what a later one gives")

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

    def _data(self) -> OfflineDataset:
        data = sample_dataset(self.shape)
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
        run = self._run(seed, amount)
        augmenter.fit(data, run)
        return check_generated(augmenter.generate(data, run), data, data.spec, self.name)
