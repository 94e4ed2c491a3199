"""What augmenters around one fitted model share: making it small, fitting, storing, moving it, telling of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from methods.base import Arrays, Augmenter, Run
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class FittedModel(Protocol):
    """One replica."""

    @property
    def diagnosis(self) -> dict[str, Any]:
        """What fitting tells, as JSON knows it."""
        ...

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        ...

    def arrays(self) -> Arrays:
        """All of it."""
        ...


ConfigT = TypeVar("ConfigT")
ModelT = TypeVar("ModelT", bound=FittedModel)


class FittedAugmenter(Augmenter[ConfigT], Generic[ConfigT, ModelT]):
    """An augmenter whose state is one model.

    Attributes:
        name: for messages and random streams.
        tiny_params: what `tiny` sets; variants' parameters come on top.
    """

    trains: ClassVar[bool] = True
    name: ClassVar[str]
    tiny_params: ClassVar[Mapping[str, Any]]

    def __init__(self, config: ConfigT | None = None) -> None:
        super().__init__(config)
        self._model: ModelT | None = None

    @abstractmethod
    def restored(self, arrays: Arrays, spec: TaskSpec, device: str) -> ModelT:
        """The model whose `arrays` are given, on a device."""

    @abstractmethod
    def generation_told(self) -> Mapping[str, Any] | None:
        """What the last `generate` tells, or None where there was none."""

    @abstractmethod
    def forget_generation(self) -> None:
        """There was none."""

    @classmethod
    def tiny(cls, params: Mapping[str, Any] | None = None) -> Self:
        """A narrow network, trained for a moment."""
        return cls.from_params({**cls.tiny_params, **(params or {})})

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Trains the model."""
        self.fit_together([self], data, run)

    def forget(self) -> None:
        """As if nothing had been fitted or generated."""
        self._model = None
        self.forget_generation()

    def model_on(self, device: str) -> ModelT:
        """What was fitted, moved to a device.

        Raises:
            UsageError: if nothing was.
        """
        if self._model is None:
            raise UsageError(f"{self.name}: nothing was fitted. Call `fit` or `load_state` first.")
        if self._model.device != device:
            self._model = self.restored(self._model.arrays(), self._model.spec, device)
        return self._model

    def state(self) -> Arrays:
        """The model."""
        return {} if self._model is None else self._model.arrays()

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        """Takes it back, on the CPU; `generate` moves it to the device of its run."""
        self.forget_generation()
        self._model = self.restored(arrays, spec, "cpu") if arrays else None

    def diagnosis(self) -> Mapping[str, Any]:
        """What the model tells of its fit, and under `generation` what the last `generate` tells."""
        told = {} if self._model is None else dict(self._model.diagnosis)
        generation = self.generation_told()
        return told if generation is None else {**told, "generation": generation}
