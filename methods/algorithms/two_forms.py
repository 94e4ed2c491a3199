"""Learners that are one algorithm for continuous actions and another for discrete ones, under one name and config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

from methods.base import Arrays, LearnedPolicy, Learner, Run
from tasks.common.errors import UsageError
from tasks.common.selector import Scalar
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

ConfigT = TypeVar("ConfigT")


class TwoForms(Learner[ConfigT]):
    """Hands data to the form that their task's actions ask for.

    Attributes:
        continuous, discrete: the forms, learners with this config. The `version` of one is raised where it changes
            alone, so that results of the other stay valid.
        of_continuous, of_discrete: fields of the config that one form alone reads.
        tiny_params: of `tiny`, for whichever form reads them.
    """

    continuous: ClassVar[type[Learner[Any]]]
    discrete: ClassVar[type[Learner[Any]]]
    of_continuous: ClassVar[frozenset[str]] = frozenset()
    of_discrete: ClassVar[frozenset[str]] = frozenset()
    tiny_params: ClassVar[Mapping[str, Scalar]] = MappingProxyType({})
    _unread: frozenset[str] = frozenset()  # fields that may be given where no form reads them

    @classmethod
    def tiny(cls, params: Mapping[str, Scalar] | None = None) -> Self:
        """With `tiny_params`, whatever the task."""
        made = cls.from_params({**cls.tiny_params, **(params or {})})
        made._unread = frozenset(cls.tiny_params)
        return made

    @classmethod
    def version_on(cls, spec: TaskSpec) -> int:
        """`version` and how often the form for these actions changed alone."""
        return cls.version + cls._form_class(spec).version - 1

    @classmethod
    def _form_class(cls, spec: TaskSpec) -> type[Learner[Any]]:
        return cls.discrete if spec.action.discrete else cls.continuous

    def form(self, spec: TaskSpec) -> Learner[Any]:
        """The learner behind the name.

        Raises:
            UsageError: where a parameter was given that this form does not read.
        """
        unread, kind = (self.of_continuous, "discrete") if spec.action.discrete else (self.of_discrete, "continuous")
        for field in fields(self.Config):
            value = getattr(self.config, field.name)
            has_none = (field.name, value) == ("memory", "none")  # which is as it is where actions are continuous
            if field.name in unread - self._unread and value != field.default and not has_none:
                raise UsageError(
                    f"{spec.id}: {field.name}={value} has no meaning for {kind} actions, which this task has. "
                    "Leave it out."
                )
        return self._form_class(spec)(self.config)

    def needs_episodes(self, spec: TaskSpec) -> str | None:
        """What the form says."""
        return self.form(spec).needs_episodes(spec)

    def fit(self, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        """See `Learner.fit`. Raises UsageError as `form` does."""
        if not data:
            raise UsageError(f"{type(self).__name__}: no dataset, expected one a seed.")
        return self.form(data[0].spec).fit(data, run)

    def load_policy(self, states: Sequence[Arrays], spec: TaskSpec, device: str) -> LearnedPolicy:
        """The stored policies, acting together."""
        return self.form(spec).load_policy(states, spec, device)
